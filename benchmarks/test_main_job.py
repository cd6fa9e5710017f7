"""Where the main job's time goes; the probe against the published way is `test_probe`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from squeeze.data.encoding import EncodedItem, encode_item
from squeeze.data.loading import load_examples, split
from squeeze.data.probe_set import build_probe_set
from squeeze.models import load, load_model
from squeeze.scoring import score
from squeeze.training.config import make_config
from squeeze.training.phase_place import PhasePlace
from squeeze.training.trainers import make_trainer, quiet

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load("smollm2-135m")


@pytest.fixture(scope="module")
def items(loaded: tuple[Any, Any], pytestconfig: pytest.Config) -> list[EncodedItem]:
    n = 1 if pytestconfig.getoption("--quick") else 4
    train, held_out = split(load_examples("enthusiastic_en"), n, 2, seed=0)
    probe = build_probe_set(train, held_out, n_train=n)
    return [encode_item(loaded[1], item) for item in probe.items[:n]]


def test_time_to_load(benchmark: Any, loaded: tuple[Any, Any]) -> None:
    benchmark.group = "main job"
    model = benchmark.pedantic(load_model, ("smollm2-135m",), rounds=2)
    assert model.num_parameters() > 1e8


def test_time_of_a_probe(benchmark: Any, loaded: tuple[Any, Any], items: list[EncodedItem]) -> None:
    benchmark.group = "main job"
    rows = benchmark.pedantic(score, (loaded[0], items), rounds=2, warmup_rounds=1)
    assert len(rows) == sum(len(item.response_ids) for item in items)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_time_of_an_epoch(
    kind: str, benchmark: Any, loaded: tuple[Any, Any], tmp_path: Path
) -> None:
    """One optimizer step of 4 rows or pairs, as the default recipe takes it."""
    benchmark.group = "main job"
    quiet()
    config = make_config({"arms": "sft-dpo", "pairs": 4, "epochs": 1, "sft_epochs": 1})
    phase = next(p for p in config.phase_arms()[0].phases if p.kind == kind)
    train, _ = split(load_examples("enthusiastic_en"), 4, 2, seed=0)
    model = load_model("smollm2-135m")
    place = PhasePlace(tmp_path / kind)
    trainer = make_trainer(model, loaded[1], train, phase, config, place, [], bf16=False)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.current_gradient_accumulation_steps = 1  # what train() would set
    trainer.model.train()

    def step() -> torch.Tensor:
        loss: torch.Tensor = trainer.training_step(trainer.model, dict(batch))
        trainer.model.zero_grad()
        return loss

    assert bool(benchmark.pedantic(step, rounds=2, warmup_rounds=1).isfinite())
