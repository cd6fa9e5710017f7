"""Synthetic logs in the formats of real trainers, for the diagnosis tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from squeeze.diagnosis import RunSeries, Series

Curve = Sequence[float] | np.ndarray


def noisy(start: float, *ends: float, n: int = 24, noise: float = 0.4, seed: int = 0) -> np.ndarray:
    """A curve through `start` and `ends`, equally spaced, with normal noise."""
    knots = np.linspace(0, 1, len(ends) + 1)
    clean = np.interp(np.linspace(0, 1, n), knots, [start, *ends])
    return clean + np.random.default_rng(seed).normal(0, noise, n)


def run(split: str = "eval", phase: str = "", **values: Curve) -> RunSeries:
    """A run with the given series at steps 0, 1, ..."""
    series = tuple(
        Series(name, split, np.arange(len(v), dtype=float), np.asarray(v, dtype=float), name)
        for name, v in values.items()
    )
    return RunSeries("test", "test", "test", "step", series, phase)


def trl_records(n: int = 60, batch_noise: float = 30.0, seed: int = 0) -> list[dict[str, Any]]:
    """What TRL's DPOTrainer logs (steps 10, 20, ...) while chosen falls by 20 nats at β = 0.1."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(1, n + 1):
        chosen, rejected = -20 * i / n, -60 * i / n
        records.append(
            {
                "epoch": round(i / n, 4),
                "grad_norm": 3.1,
                "learning_rate": 5e-7,
                "logits/chosen": -2.1,
                "logps/chosen": -250 + chosen + rng.normal(0, batch_noise),
                "logps/rejected": -230 + rejected + rng.normal(0, batch_noise),
                "loss": 0.69 - 0.4 * i / n,
                "rewards/accuracies": 0.5 + 0.4 * i / n,
                "rewards/chosen": 0.1 * chosen + rng.normal(0, 0.1),
                "rewards/margins": 0.1 * (chosen - rejected) + rng.normal(0, 0.1),
                "rewards/rejected": 0.1 * rejected + rng.normal(0, 0.1),
                "step": 10 * i,
            }
        )
    return records


def trainer_state(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write trainer_state.json, with the summary line that closes a finished run."""
    last = records[-1]["step"] if records else 0
    history = [*records, {"epoch": 1.0, "step": last, "train_loss": 0.5, "train_runtime": 12.3}]
    path.write_text(json.dumps({"global_step": last, "max_steps": last, "log_history": history}))
    return path


def jsonl(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write one JSON object a line (NaN as a bare token, as Python does)."""
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path
