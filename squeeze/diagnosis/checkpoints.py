"""From checkpoints to a run directory: a base model and what was made of it, on the same data.

The directory holds what reports and readers know (trajectory.parquet, samples.json, run.json), so
that everything behind it is the same as for a training that was watched. Nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from squeeze.data.encoding import EncodedItem, apply_template, encode_item, encode_prompt
from squeeze.data.examples import PreferenceExample
from squeeze.data.loading import data_sha256, load_examples
from squeeze.data.probe_set import build_probe_set
from squeeze.diagnosis.probe import SPLIT, spaced
from squeeze.diagnosis.readers import load
from squeeze.diagnosis.series import (
    CHOSEN,
    END_OF_TEXT,
    LENGTH,
    REJECTED,
    REPETITION,
    RunSeries,
)
from squeeze.errors import InputError
from squeeze.files import read_json, write_json
from squeeze.generation import generate_answers
from squeeze.models import load_model, load_tokenizer, model_sha256, with_adapter
from squeeze.provenance import environment
from squeeze.run_directory import now
from squeeze.scoring import score_responses
from squeeze.text_statistics import repeated_share, units
from squeeze.training.samples import chosen_tokens, token_changes
from squeeze.trajectory import ProbePoint, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ARM = "tuned"
SHOWN_EXAMPLES = 8
MAX_NEW_TOKENS = 64
DECODINGS = {"greedy": 0.0, "sampled": 1.0}  # temperatures
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Checkpoints:
    """What is compared: `tuned` are models or adapters of `base`, in the order of training.

    `pairs` limits the examples of `data`, evenly spaced; `template` is the chat template's name. To
    the prompts of `generate` of them every model answers too. `beta` turns changes into rewards.
    """

    base: str
    tuned: tuple[str, ...]
    data: str
    pairs: int = 32
    template: str = "model"
    max_length: int | None = None
    generate: int = 4
    beta: float | None = None


def compare(given: Checkpoints, directory: Path) -> RunSeries:
    """Score base and tuned models on the data's pairs and response kinds into `directory`.

    Its files are written when all is scored. Raises `InputError` for models, adapters or data that
    cannot be read, for tokenizers that differ, and for an adapter that does not fit the base model.
    """
    examples = spaced(load_examples(given.data), given.pairs)
    for name in given.tuned:
        _require_model(name)
    tokenizer = _tokenizer(given)
    probe = build_probe_set(examples, [])
    items = [
        encode_item(tokenizer, replace(item, split=SPLIT), given.max_length) for item in probe.items
    ]
    trajectory, notes = Trajectory.empty(), list[str]()
    asked = spaced(examples, given.generate) if given.generate else []
    generations: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    last: dict[str, Any] = {}
    for number, name in enumerate((given.base, *given.tuned)):
        model = _model(given.base, name if number else None, items)
        responses = list(score_responses(model, items))
        if asked:
            phase = f"{number} {Path(name).name}" if number else "base"
            generations += _answers(model, tokenizer, asked, number, phase)
        # Neither step nor epoch is known: the probes count the checkpoints.
        point = ProbePoint(ARM, "checkpoint", 0, 0.0, number)
        trajectory = trajectory.append(point, [r.summary() for r in responses])
        last = chosen_tokens(responses, tokenizer)
        first = first or last
        notes += _doubts(given.base, name)
    changes = token_changes(
        ARM, first, last, examples, {e.id: SPLIT for e in examples}, SHOWN_EXAMPLES
    )
    about = _about(given, len(examples), notes)
    trajectory.write(directory / "trajectory.parquet")
    write_json(
        directory / "samples.json", {"schema": 1, "tokens": changes, "generations": generations}
    )
    write_json(directory / "run.json", about)
    (run,) = load(directory)
    notes += _rewards(run, given.beta)
    return replace(run, name=about["name"], format="checkpoints", notes=(*run.notes, *notes))


def _answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[PreferenceExample],
    probe: int,
    phase: str,
) -> list[dict[str, Any]]:
    """Greedy and sampled answers to the examples' prompts, as entries of samples.json."""
    prompts = [encode_prompt(tokenizer, example.prompt) for example in examples]
    found = []
    for decoding, temperature in DECODINGS.items():
        said = generate_answers(
            model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, temperature=temperature
        )
        for example, answer in zip(examples, said, strict=True):
            found.append(
                {
                    "arm": ARM,
                    "phase": phase if decoding == "greedy" else f"{phase}, {decoding}",
                    "epoch": probe,
                    "example": example.id,
                    "prompt": example.prompt[-1].content,
                    "text": answer.text,
                    "decoding": decoding,
                    REPETITION: repeated_share(units(answer.text)),
                    END_OF_TEXT: float(answer.ended),
                    LENGTH: float(answer.n_tokens),
                }
            )
    return found


def _rewards(run: RunSeries, beta: float | None) -> list[str]:
    """What DPO would have logged of the last model at that β, as a sentence."""
    chosen, rejected = run.get(CHOSEN, SPLIT), run.get(REJECTED, SPLIT)
    if beta is None or chosen is None or rejected is None:
        return []
    moved = [beta * float(s.values[-1] - s.values[0]) for s in (chosen, rejected)]
    return [
        f"at β = {beta:g} these are rewards of {moved[0]:+.3g} (chosen) and {moved[1]:+.3g} "
        f"(rejected), a margin of {moved[0] - moved[1]:+.3g}"
    ]


def is_adapter(name: str) -> bool:
    """Whether that is a directory of a PEFT adapter."""
    return (Path(name) / _ADAPTER).is_file()


# --- models ---------------------------------------------------------------------------------------


def _require_model(name: str) -> None:
    path = Path(name)
    if not path.is_dir() or is_adapter(name) or (path / "config.json").is_file():
        return
    raise InputError(
        f"--tuned {name} is a directory with neither config.json (a model) nor {_ADAPTER} (an "
        "adapter); give the directory that save_pretrained or the trainer wrote"
    )


def _tokenizer(given: Checkpoints) -> PreTrainedTokenizerBase:
    """The tokenizer that both models share, with the template that the tuned one was given.

    Raises `InputError` when a tuned model's own tokenizer has another vocabulary.
    """
    base = _named("--base", load_tokenizer, given.base)
    chosen: PreTrainedTokenizerBase = base
    for name in given.tuned:
        path = Path(name)
        if path.is_dir() and not (path / "tokenizer_config.json").is_file():
            continue  # adapters and checkpoints may come without one
        tuned = _named("--tuned", load_tokenizer, name)
        differing = set(base.get_vocab().items()) ^ set(tuned.get_vocab().items())
        if differing:
            token = min(differing)[0]
            raise InputError(
                f"--base {given.base} and --tuned {name} have different tokenizers "
                f"({len(differing)} entries differ, {token!r} among them), so their log-probs "
                "cannot be compared; give the base model that was tuned"
            )
        if tuned.chat_template:
            chosen = tuned
    apply_template(chosen, given.template)
    return chosen


def _model(base: str, tuned: str | None, items: Sequence[EncodedItem]) -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if tuned is None or is_adapter(tuned):
        model: Any = _named("--base", load_model, base)
    else:
        model = _named("--tuned", load_model, tuned)
    _require_vocabulary(model, items, tuned or base)
    if tuned is not None and is_adapter(tuned):
        model = _with_adapter(model, base, tuned)
    return model.to(device).eval()


def _require_vocabulary(model: Any, items: Sequence[EncodedItem], name: str) -> None:
    ids = (i for item in items for r in (item.prompt_ids, *item.response_ids.values()) for i in r)
    largest, rows = max(ids), model.get_input_embeddings().weight.shape[0]
    if largest >= rows:
        raise InputError(
            f"{name} has {rows} embeddings, but the tokenizer gives the token id {largest}; the "
            "model and the tokenizer do not belong together"
        )


def _with_adapter(model: PreTrainedModel, base: str, adapter: str) -> Any:
    try:
        return with_adapter(model, adapter)
    except InputError as error:
        raise InputError(f"--tuned {error}") from error
    except Exception as error:  # PEFT raises anything, for a pattern re.error
        raise InputError(_misfit(base, adapter, _first_line(error))) from error


def _misfit(base: str, adapter: str, why: str) -> str:
    return (
        f"the adapter {adapter} does not fit --base {base} ({why}); it was trained on "
        f"{_adapters_base(adapter)}, so give that as --base"
    )


def _adapters_base(adapter: str) -> str:
    """What an adapter says it was trained on."""
    config = read_json(Path(adapter) / _ADAPTER)
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return str(base or "a model that it does not name")


def _doubts(base: str, name: str) -> list[str]:
    """An adapter fits any base of its shape; its own record may tell of another one."""
    if not is_adapter(name):
        return []
    theirs = _adapters_base(name)
    if Path(theirs).name == Path(base).name:
        return []
    return [f"the adapter {name} says that it was trained on {theirs}, not on {base}"]


def _named(flag: str, load: Any, name: str) -> Any:
    """What `load(name)` gives, with every refusal naming the flag."""
    from safetensors import SafetensorError

    try:
        return load(name)
    except InputError as error:
        raise InputError(f"{flag}: {str(error).replace('--model', flag)}") from error
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{flag} {name} cannot be loaded ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    """The first line of an error that says something; torch puts a title before it."""
    lines = [line.strip().rstrip(".:") for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Error(s) in loading")]
    return (telling or [type(error).__name__])[0][:200]


def _about(given: Checkpoints, n: int, notes: list[str]) -> dict[str, Any]:
    command = ["squeeze", "diagnose", "--base", given.base]
    command += [word for name in given.tuned for word in ("--tuned", name)]
    return {
        "schema": 1,
        "name": f"{Path(given.base).name} → {Path(given.tuned[-1]).name}",
        "status": "finished",
        "created": now(),
        "config": {"base": given.base, "tuned": list(given.tuned), "template": given.template},
        "arms": [{"name": ARM, "title": f"{given.tuned[-1]} against {given.base}"}],
        "model": {"name": given.tuned[-1], "base": given.base, "sha256": model_sha256(given.base)},
        "data": {"name": given.data, "sha256": data_sha256(given.data), "n_probe": n},
        "scoring": {"dtype": "float32"},
        "notes": notes,
        "command": [*command, "--data", given.data, "--pairs", str(given.pairs)],
        **environment(),
    }
