"""Configuration of a run: what is trained on what, all plain data.

Nothing here trains; `trainers` turns a `RunConfig` into TRL trainers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import FiniteFloat, StrictBool, StrictInt, StrictStr, TypeAdapter

from squeeze.data.encoding import current_template
from squeeze.errors import InputError, did_you_mean
from squeeze.jsonc import strip_comments
from squeeze.losses import get_loss
from squeeze.run_directory import flag
from squeeze.training.arms import Arm, Phase, make_arm
from squeeze.training.declared import (
    Count,
    CountOrNone,
    Decay,
    Epochs,
    Norm,
    Positive,
    Rank,
    Rate,
    Schedule,
    Seed,
    Share,
    Tokens,
    Validation,
    Warmup,
    checked,
)

MOST_BYTES = 1_000_000
MOST_VALUES = 20_000

ARM_NAMES = ("dpo", "sft-dpo", "extend-dpo")


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run. Fields are the options of `squeeze replicate`.

    `probe_train` training prompts and all held-out ones are scored at every probe; `generations`
    prompts of each part are answered after every phase, in at most `max_new_tokens` tokens.
    `data_format` names the data file's format ("auto" recognises it). `max_length` is in tokens.
    `dtype` is "float32", "bfloat16" or "auto": bfloat16 where this device multiplies it faster.

    Fields from `system` to `max_grad_norm` are LLaMA-Factory's (`llamafactory`). `system` goes
    before prompts without a system message. `demonstrations` lets data lack rejected answers (SFT
    alone). `max_samples` rows of each data set are read. With `val_size` (a share below 1, or a
    count) that
    part is held out, at most `held_out` rows of it are probed, and all others are trained on,
    whatever `pairs` is. `too_long` is "refuse" or "cut": what becomes of answers beyond
    `max_length`. `adapters` (directories, with commas) are merged into the model first;
    `ref_model`, with `ref_model_adapters`, is DPO's reference instead of the model itself.

    `split_seed`, where it is set, chooses and orders the pairs and draws the probe set in `seed`'s
    place, so that runs of several seeds score the same prompts and responses.

    `finetuning` is "lora" (an adapter a phase, the `lora_…` fields its shape) or "full" (every
    weight). `weights` is the frozen weights' numeric type, "float32" or "bfloat16"; with "full" it
    is float32. DPO is probed every `probe_every` epochs and at its end. `sft_…` fields replace
    their namesakes in SFT phases; a warm-up of 1 and more counts steps.
    """

    model: str = "smollm2-135m"
    data: str = "enthusiastic_en"
    data_format: str = "auto"
    template: str = "model"
    arms: tuple[str, ...] = ARM_NAMES
    pairs: Count = 16
    held_out: CountOrNone = 6
    probe_train: Count = 8
    epochs: Epochs = 5
    sft_epochs: Epochs = 2
    seed: Seed = 0
    beta: Positive = 0.1
    loss_type: str = "sigmoid"
    learning_rate: Rate = 4e-4
    sft_learning_rate: Rate = 2e-4
    batch_size: Count = 4
    accumulation: Count = 1
    schedule: Schedule = "constant_with_warmup"
    warmup: Warmup = 0.1
    weight_decay: Decay = 0.0
    lora_r: Rank = 16
    lora_alpha: Count = 32
    lora_dropout: Share = 0.0
    lora_targets: str = "all-linear"
    gradient_checkpointing: bool = False
    max_length: Tokens = 1024
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    generations: CountOrNone = 2
    max_new_tokens: Tokens = 48
    variant_probe_every: Epochs = 1
    system: str = ""
    demonstrations: bool = False
    max_samples: CountOrNone | None = None
    val_size: Validation | None = None
    too_long: Literal["refuse", "cut"] = "refuse"
    adapters: str | None = None
    ref_model: str | None = None
    ref_model_adapters: str | None = None
    loss_options: Mapping[str, StrictBool | StrictInt | FiniteFloat | StrictStr] = field(
        default_factory=dict
    )
    max_grad_norm: Norm = 1.0
    weights: Literal["float32", "bfloat16"] = "float32"
    split_seed: Seed | None = None
    finetuning: Literal["lora", "full"] = "lora"
    probe_every: Epochs = 1
    sft_batch_size: Count | None = None
    sft_accumulation: Count | None = None
    sft_warmup: Warmup | None = None
    sft_weight_decay: Decay | None = None

    def phase_arms(self) -> tuple[Arm, ...]:
        """The arms of this run as phases; raises `InputError` for an unknown name."""
        return tuple(self.arm(name) for name in self.arms)

    def arm(self, name: str) -> Arm:
        """The arm of this name under these settings; raises `InputError` for an unknown one."""
        return make_arm(name, self.main_arms(), self.variant_probe_every)

    def main_arms(self) -> tuple[Arm, Arm, Arm]:
        """The main job's three arms under these settings."""
        shared = {
            "batch_size": self.batch_size,
            "accumulation": self.accumulation,
            "schedule": self.schedule,
            "warmup": self.warmup,
            "weight_decay": self.weight_decay,
        }
        dpo = Phase(
            "dpo",
            "pairs",
            self.epochs,
            self.learning_rate,
            beta=self.beta,
            loss_type=self.loss_type,
            loss_options=self.loss_options,
            probe_every=self.probe_every,
            **shared,  # type: ignore[arg-type]
        )
        own = {name: getattr(self, f"sft_{name}") for name in _SFT_OWN}
        sft = Phase(
            "sft",
            "chosen",
            self.sft_epochs,
            self.sft_learning_rate,
            probe_every=self.sft_epochs,
            **shared | {name: value for name, value in own.items() if value is not None},
        )
        extended = replace(sft, on="chosen+rejected")
        return (
            Arm("dpo", "DPO from the pretrained model", (dpo,)),
            Arm("sft-dpo", "SFT on chosen, then DPO", (sft, dpo)),
            Arm("extend-dpo", "SFT on chosen and rejected, then DPO", (extended, dpo)),
        )

    @property
    def data_seed(self) -> int:
        """What chooses and orders the pairs and draws the probe set."""
        return self.seed if self.split_seed is None else self.split_seed

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as written to `run.json` and `config.yaml`.

        Fields from `system` on are there only where they are set.
        """
        values = asdict(self) | {"arms": list(self.arms)}
        defaults = {f.name: f.default for f in fields(self)} | {"loss_options": {}}
        return {k: v for k, v in values.items() if k not in _EXTRA or v != defaults[k]}


_SFT_OWN = ("batch_size", "accumulation", "warmup", "weight_decay")
_NAMES = [f.name for f in fields(RunConfig)]
_EXTRA = _NAMES[_NAMES.index("system") :]

# What --quick changes: every arm and every station, on a few examples.
QUICK = {
    "pairs": 4,
    "held_out": 2,
    "probe_train": 3,
    "epochs": 2,
    "sft_epochs": 1,
    "batch_size": 2,
    "generations": 1,
}


_DECLARATION = TypeAdapter(RunConfig)


def make_config(values: Mapping[str, Any]) -> RunConfig:
    """A checked configuration from options or a YAML mapping; unset (None) values take defaults.

    Raises `InputError` naming the field, its value and what is allowed.
    """
    given = {key.replace("-", "_"): value for key, value in values.items() if value is not None}
    for key in given:
        if key not in _NAMES:
            hint = did_you_mean(key, _NAMES, cutoff=0.6)
            raise InputError(f"unknown configuration field {key[:60]!r}{hint}")
    if isinstance(given.get("arms"), str):
        given["arms"] = [name.strip() for name in given["arms"].split(",") if name.strip()]
    if isinstance(given.get("template"), str):
        given["template"] = current_template(given["template"])
    config: RunConfig = checked(lambda: _DECLARATION.validate_python(given), flag)
    if not config.arms or len(set(config.arms)) != len(config.arms):
        raise InputError("--arms needs at least one arm, each named once")
    for arm in config.phase_arms():  # an unknown name is an error here
        for phase in arm.phases:
            get_loss(phase.loss_type).check_names(phase.loss_options)
    return config


def read_config(path: Path) -> dict[str, Any]:
    """Read a mapping of fields in YAML or JSON with comments; `InputError` if it is not one.

    At most `MOST_BYTES` are read, and at most `MOST_VALUES` made of them once aliases are resolved.
    """
    if not path.exists():
        raise InputError(f"the configuration {path} given with --config does not exist")
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise InputError(f"the configuration {path} must be a file of at most {MOST_BYTES:,} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        is_json = text.lstrip().startswith(("{", "//", "/*"))
        values = _load_yaml(strip_comments(text) if is_json else text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the configuration {path} is not readable YAML ({reason})") from error
    except RecursionError:
        raise InputError(f"the configuration {path} is nested too deeply") from None
    if not isinstance(values, dict):
        raise InputError(f"the configuration {path} must be a mapping of fields to values")
    return {str(key): value for key, value in values.items()}


def _load_yaml(text: str) -> Any:
    """The document's value; `ValueError` for a key named twice, or aliases that make too much."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _size(root, {}) > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} values, aliases resolved")
        _require_distinct(root, set())
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for, every alias counted as what it repeats."""
    if id(node) not in known:
        known[id(node)] = math.inf  # of a node that holds itself
        below = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for item in below for part in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def _require_distinct(node: yaml.Node, seen: set[int]) -> None:
    """Raise `ValueError` for a key that a mapping names twice: YAML would keep the last."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(item,) for item in node.value]
    known: dict[Any, int] = {}
    for pair in pairs:
        key, line = pair[0].value, pair[0].start_mark.line + 1
        if len(pair) == 2 and isinstance(key, str):
            if key in known:
                raise ValueError(f"it names {key!r} twice, at lines {known[key]} and {line}")
            known[key] = line
        for part in pair:
            _require_distinct(part, seen)
