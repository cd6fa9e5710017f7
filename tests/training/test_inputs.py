"""Inputs of a run are the same for the main job and for experiments."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from squeeze.data.examples import Message, PreferenceExample
from squeeze.errors import InputError
from squeeze.models import load_model
from squeeze.study import seed_run as experiment
from squeeze.study.seed_run import Experiment
from squeeze.training.config import make_config
from squeeze.training.inputs import Pairs, pretrained

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("target", ["", "(a*)*b", "model", "input_layernorm", "q_proj,nope"])
def test_a_target_of_lora_is_a_layer_with_a_matrix(tiny_directory, target):
    """PEFT would find no module, or one that it cannot adapt."""
    config = make_config({"model": str(tiny_directory), "lora_targets": target})
    with pytest.raises(InputError, match="the model has no layer"):
        pretrained(config)


def pair(name: str, prompt: str = "Is it?", chosen: str = "Yes!", rejected: str = "No.") -> object:
    return PreferenceExample(name, (Message("user", prompt),), chosen, rejected)


@pytest.fixture(scope="module")
def adapter(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the tiny model that changes its predictions."""
    from peft import LoraConfig, get_peft_model

    directory = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    wanted = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(load_model(str(tiny_directory)), wanted)
    model.save_pretrained(directory)
    return directory


def test_an_experiment_starts_from_the_model_with_its_adapters_merged(
    tiny_directory: Path, adapter: Path, tmp_path: Path
) -> None:
    plain = {"model": str(tiny_directory), "dtype": "float32"}
    pairs = Pairs([pair("a")], [pair("b", "Was it?")])
    merged = make_config(plain | {"adapters": str(adapter)})
    started = Experiment(merged, pairs, cache=tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        got = started.arms.base(ids).logits
        torch.testing.assert_close(got, pretrained(merged)(ids).logits)
        assert (got - load_model(str(tiny_directory))(ids).logits).abs().max() > 0.1
    before = started.directory
    assert before != Experiment(make_config(plain), pairs, cache=tmp_path).directory
    # Other weights under the same path are another experiment.
    weights = adapter / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        assert Experiment(merged, pairs, cache=tmp_path).directory != before
    finally:
        weights.write_bytes(content)


def test_an_experiment_cuts_long_answers_and_leaves_long_prompts_out(
    tiny_directory: Path, tmp_path: Path
) -> None:
    settings = {"model": str(tiny_directory), "dtype": "float32", "max_length": 40}
    pairs = Pairs([pair("a", chosen="Yes! " * 50), pair("long", "Is it? " * 50)], [pair("b")])
    with pytest.raises(InputError, match="more than the 40"):
        Experiment(make_config(settings), pairs, cache=tmp_path)
    cut = Experiment(make_config(settings | {"too_long": "cut"}), pairs, cache=tmp_path)
    assert [e.id for e in cut.pairs.train] == ["a"]
    (train, _) = cut.arms.items
    assert len(train.prompt_ids) + len(train.response_ids["chosen"]) == 40
    with pytest.raises(InputError, match=r"every prompt takes 40 tokens or more; raise --max-len"):
        Experiment(
            make_config(settings | {"too_long": "cut"}), Pairs([pairs.train[1]], []), cache=tmp_path
        )


def test_the_name_of_an_experiment_without_adapters_is_what_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A field that is added later leaves it alone: caches and records must be found again."""
    monkeypatch.setattr(experiment, "model_sha256", lambda name: "m")
    example = PreferenceExample("a", (Message("user", "q"),), "yes", "no")
    known = SimpleNamespace(
        config=make_config({"pairs": 4, "seed": 3, "beta": 0.2}),
        pairs=SimpleNamespace(train=[example], held_out=[example]),
    )
    assert Experiment._key(known, torch.float32) == "3-e95e8019dffb08c0"
