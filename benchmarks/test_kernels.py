"""pytest-benchmark view of `squeeze bench kernels --quick`: `pytest benchmarks -m benchmark`.

The ratios that the documentation quotes come from `squeeze bench kernels`, which interleaves the
candidates; here each is timed by itself, and two tests hold the ratios that noise cannot turn.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from squeeze.bench.candidates import NAIVE, OURS, candidates, limit
from squeeze.bench.cases import HIDDEN, LOGITS, TRAINING, Case, make_inputs
from squeeze.bench.measure import Budget, interleaved

pytestmark = pytest.mark.benchmark

CPU = torch.device("cpu")
CASES = [Case(task, "smollm2", 64) for task in (LOGITS, HIDDEN, TRAINING)]
PAIRS = [
    (case, one.name)
    for case in CASES
    for one in candidates(case, make_inputs(dataclasses.replace(case, n_tokens=1), CPU))[0]
]


@pytest.mark.parametrize(("case", "name"), PAIRS, ids=lambda value: getattr(value, "title", value))
def test_speed(case: Case, name: str, benchmark: Any) -> None:
    benchmark.group = case.title
    inputs = make_inputs(case, CPU)
    candidate = next(one for one in candidates(case, inputs)[0] if one.name == name)
    with torch.set_grad_enabled(case.task == TRAINING):
        output = benchmark.pedantic(candidate.call, (inputs,), rounds=5, warmup_rounds=1)
    assert bool(output.isfinite().all())


def _ratio(case: Case, other: str) -> float:
    """Our time over another's, in the fastest of many rounds: other work only slows a round."""
    inputs = make_inputs(case, CPU)
    chosen = {one.name: one for one in candidates(case, inputs)[0] if one.name in (other, OURS)}
    works = {name: [lambda one=one: one.call(inputs)] for name, one in chosen.items()}
    works.setdefault(other, [limit(case, inputs)[1]])
    with torch.no_grad():
        for (work,) in works.values():
            work()
        times = interleaved(works, CPU, Budget(rounds=30, seconds=60.0, seconds_each=60.0))
    return min(times[OURS].seconds) / min(times[other].seconds)


def test_from_logits_we_take_less_than_half_the_naive_time() -> None:
    assert _ratio(Case(LOGITS, "smollm2", 64), NAIVE) < 0.5


def test_from_hidden_states_we_take_at_most_one_and_a_half_matmuls() -> None:
    assert _ratio(Case(HIDDEN, "smollm2", 128), "limit") < 1.5
