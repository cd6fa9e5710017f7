"""`squeeze diagnose --base --tuned --data`: what is compared, what is refused, what is written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from squeeze.cli import app
from squeeze.data.encoding import encode_item
from squeeze.data.loading import load_examples
from squeeze.data.probe_set import ProbeItem
from squeeze.diagnosis import load as load_runs
from squeeze.diagnosis.checkpoints import Checkpoints, compare
from squeeze.errors import InputError
from squeeze.models import load
from squeeze.text_statistics import repeated_share, units
from squeeze.trajectory import Trajectory
from tests.tiny_model import save_tiny_model, tiny_model

pytestmark = [
    pytest.mark.cpu,
    # peft looks for the base model's vocabulary where the adapter says that it is.
    pytest.mark.filterwarnings("ignore:Could not find a config file:UserWarning"),
]

PAIRS = 4
DATA = "enthusiastic_en"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_directory: Path) -> Path:
    """An adapter of the tiny model that makes the most likely tokens likelier still.

    With its tokenizer beside it, as TRL's trainers save it.
    """
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(tiny_model(), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    model.peft_config["default"].base_model_name_or_path = str(tiny_directory)
    directory = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(str(directory))
    load(str(tiny_directory))[1].save_pretrained(str(directory))
    return directory


def given(base: Path, *tuned: Path, data: str = DATA) -> Checkpoints:
    return Checkpoints(str(base), tuple(map(str, tuned)), data, PAIRS, generate=0)


def logp(model: Any, tokenizer: Any, number: int) -> float:
    """The chosen answer's log-prob by transformers' own forward pass."""
    e = load_examples(DATA)[number]
    item = encode_item(tokenizer, ProbeItem(e.id, "", e.prompt, {"chosen": e.chosen}))
    answer = item.response_ids["chosen"]
    ids = torch.tensor([item.prompt_ids + answer])
    with torch.no_grad():
        table = model(input_ids=ids).logits[0, len(item.prompt_ids) - 1 : -1].log_softmax(-1)
    return float(table.gather(1, torch.tensor(answer)[:, None]).sum())


def test_base_model_and_adapter_are_scored_as_transformers_and_peft_score_them(
    adapter: Path, tiny_directory: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    run = compare(given(tiny_directory, adapter), tmp_path)
    chosen = run.get("chosen_logp", "probe")
    model, tokenizer = load(str(tiny_directory))
    before = logp(model, tokenizer, 0)
    after = logp(PeftModel.from_pretrained(model, str(adapter)), tokenizer, 0)
    assert abs(after - before) > 1
    row = Trajectory.read(tmp_path / "trajectory.parquet").by_example("tuned", "chosen", "probe")
    # float32 sums of about 100 terms of size 6, added in another order
    assert row.loc[load_examples(DATA)[0].id].tolist() == pytest.approx([before, after], abs=2e-2)
    assert chosen.examples.shape == (PAIRS, 2)
    assert run.get("other:other_answer", "probe") is not None


def test_command_prints_verdict_and_tokens_and_writes_the_main_report(
    adapter: Path, tiny_directory: Path, tmp_path: Path
) -> None:
    options = ["--base", tiny_directory, "--tuned", adapter, "--data", DATA, "--pairs", PAIRS]
    command = ["diagnose", *options, "--out", tmp_path / "out", "--json"]
    result = CliRunner().invoke(app, [str(word) for word in command])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["format"] == "checkpoints"
    assert {"logp_before", "argmax_after"} <= set(document["tokens"][0]["tokens"][0])
    page = (tmp_path / "out" / "index.html").read_text()
    assert document["reason"] in page
    assert not list(tmp_path.glob("**/.*")), "a temporary file was left"


def test_the_same_model_twice_moves_nothing(tiny_directory: Path, tmp_path: Path) -> None:
    from squeeze.diagnosis import diagnose

    d = diagnose(compare(given(tiny_directory, tiny_directory), tmp_path))
    assert d.verdict == "no learning"


def test_every_model_answers_some_prompts_and_the_answers_are_judged_again_from_the_directory(
    adapter: Path, tiny_directory: Path, tmp_path: Path
) -> None:
    asked = replace(given(tiny_directory, adapter), generate=2, beta=0.1)
    run = compare(asked, tmp_path)
    entries = json.loads((tmp_path / "samples.json").read_text())["generations"]
    assert len(entries) == 2 * 2 * 2  # models, prompts, decodings
    (again,) = load_runs(tmp_path)
    for quantity in ("repetition", "end_of_text", "length"):
        series = again.get(quantity, "probe")
        assert series.examples.shape == (4, 2)
        assert series.values.tolist() == run.get(quantity, "probe").values.tolist()
    greedy = next(e for e in entries if e["decoding"] == "greedy")
    assert greedy["length"] <= 64
    assert greedy["repetition"] == repeated_share(units(greedy["text"]))
    change = float(np.diff(run.get("chosen_logp", "probe").values)[0])
    assert f"{0.1 * change:+.3g} (chosen)" in run.notes[-1]


def test_several_checkpoints_are_one_trajectory(
    adapter: Path, tiny_directory: Path, tmp_path: Path
) -> None:
    run = compare(given(tiny_directory, adapter, tiny_directory), tmp_path)
    chosen = run.get("chosen_logp", "probe").values
    assert chosen[0] == chosen[2] != chosen[1]


def damaged(kind: str, directory: Path, base: Path, adapter: Path) -> Checkpoints:
    """A request that cannot be met, in one of several ways."""
    if kind == "no such directory":
        return given(base, directory / "nowhere")
    if kind == "empty directory":
        (directory / "empty").mkdir()
        return given(base, directory / "empty")
    if kind == "data":
        return given(base, adapter, data="nowhere.jsonl")
    if kind == "wider base":
        return given(save_tiny_model(directory / "wide", hidden_size=64), adapter)
    if kind == "shorter base":
        return given(save_tiny_model(directory / "short", num_hidden_layers=1), adapter)
    broken = directory / "copy"
    shutil.copytree(adapter if "adapter" in kind else base, broken)
    if kind == "adapter without weights":
        (broken / "adapter_model.safetensors").unlink()
    elif kind == "adapter cut off":
        (broken / "adapter_model.safetensors").write_bytes(b"\x00" * 20)
    elif kind == "adapter with half its weights":
        weights = load_file(broken / "adapter_model.safetensors")
        kept = {name: tensor for name, tensor in weights.items() if "lora_B" not in name}
        save_file(kept, broken / "adapter_model.safetensors")
    elif kind == "adapter with a broken pattern":
        config = json.loads((broken / "adapter_config.json").read_text())
        text = json.dumps(config | {"target_modules": "(q_proj"})
        (broken / "adapter_config.json").write_text(text)
    elif kind == "weights cut off":
        for file in broken.glob("*.safetensors"):
            file.write_bytes(file.read_bytes()[:100])
    elif kind == "config is no JSON":
        (broken / "config.json").write_text("{")
    elif kind == "other tokenizer":
        tokenizer = json.loads((broken / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        first, second = sorted(vocabulary)[:2]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
        (broken / "tokenizer.json").write_text(json.dumps(tokenizer))
    return given(base, broken)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no such directory", "--tuned: unknown model|--tuned.*could not be loaded"),
        ("empty directory", "neither config.json"),
        ("data", "does not exist"),
        ("wider base", "does not fit --base .*size mismatch.*it was trained on"),
        ("shorter base", "does not fit --base .*has no place in it"),
        ("adapter without weights", "no adapter_model.safetensors"),
        ("adapter with half its weights", "lora_B.* is not among its weights"),
        ("adapter cut off", "cannot be read"),
        ("adapter with a broken pattern", r"does not fit --base .*unterminated subpattern"),
        ("weights cut off", "--tuned: model .*could not be loaded"),
        ("config is no JSON", "--tuned: model .*could not be loaded"),
        ("other tokenizer", "different tokenizers"),
    ],
)
def test_unusable_checkpoint_is_refused_in_clear_words_and_nothing_is_written(
    kind: str, message: str, adapter: Path, tiny_directory: Path, tmp_path: Path
) -> None:
    request = damaged(kind, tmp_path, tiny_directory, adapter)
    with pytest.raises(InputError, match=message) as refused:
        compare(request, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_adapter_of_another_name_is_doubted(
    adapter: Path, tiny_directory: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "someone/else"})
    )
    run = compare(given(tiny_directory, other), tmp_path / "out")
    assert any("trained on someone/else" in note for note in run.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to diagnose"),
        (["--base", "a"], "also needs --tuned and --data"),
        (["--base", "a", "--tuned", "b"], "also needs --data"),
        (["log.jsonl", "--base", "a", "--tuned", "b", "--data", "c"], "one at a time"),
    ],
)
def test_half_a_request_names_what_is_missing(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["diagnose", *arguments])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
