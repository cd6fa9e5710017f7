"""What `SqueezeCallback` costs at its default interval: the embedded DPO job with and without it.

Two numbers: the callback's own account (seconds of scoring per second of training, in one process)
and the ratio of two trainings run one after the other, which the machine's other work also moves.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from squeeze import SqueezeCallback
from squeeze.bench.measure import Times
from squeeze.data.loading import load_examples, split
from squeeze.models import load
from squeeze.training.config import make_config
from squeeze.training.phase_place import PhasePlace
from squeeze.training.trainers import make_trainer, quiet

pytestmark = pytest.mark.benchmark


def train(callbacks: list[Any], directory: Path, epochs: int) -> float:
    """Train the default recipe's DPO phase (16 pairs, epochs of 4 steps); seconds of training."""
    config = make_config({"arms": "dpo", "epochs": epochs})
    (phase,) = config.phase_arms()[0].phases
    pairs, _ = split(load_examples(config.data), config.pairs, 0, seed=0)
    model, tokenizer = load(config.model)
    trainer = make_trainer(
        model, tokenizer, pairs, phase, config, PhasePlace(directory), callbacks, bf16=False
    )
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


def test_callback_takes_at_most_a_tenth_of_the_training_time(
    tmp_path: Path, pytestconfig: pytest.Config, record_property: Any
) -> None:
    quiet()
    quick = pytestconfig.getoption("--quick")
    epochs = 1 if quick else 5
    watched, alone, accounts = [], [], []
    for round_ in range(1 if quick else 3):
        for with_callback in (True, False) if round_ % 2 else (False, True):
            directory = tmp_path / f"{round_}-{with_callback}"
            if not with_callback:
                alone.append(train([], directory, epochs))
                continue
            callback = SqueezeCallback()
            watched.append(train([callback], directory, epochs))
            accounts.append(callback.overhead)
    ratio = Times(tuple(watched)).ratio_to(Times(tuple(alone)))
    record_property("overhead by the callback's account", max(accounts))
    record_property("seconds with / without the callback", ratio)
    shares = ", ".join(f"{share:.1%}" for share in accounts)
    print(f"\ncallback: {shares} of the training; with / without {ratio:.3f}; alone {alone}")
    assert all(share > 0 for share in accounts)
    # Four steps are too few for the default interval, whose first probe falls before training.
    assert quick or max(accounts) <= 0.1
