"""Measuring callables side by side: interleaved times and peak extra memory.

Not for profiling: it answers "how do these compare", on a machine that may be doing other work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.autograd.profiler import profile

Work = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of every round of one callable, warm-up left out."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median round, in seconds."""
        return float(torch.tensor(self.seconds, dtype=torch.float64).quantile(0.5))

    @property
    def spread(self) -> tuple[float, float]:
        """The first and third quartile, in seconds."""
        first, third = torch.tensor(self.seconds, dtype=torch.float64).quantile(
            torch.tensor([0.25, 0.75], dtype=torch.float64)
        )
        return float(first), float(third)

    def ratio_to(self, other: Times) -> float:
        """The median over rounds of this one's seconds per second of the other's.

        Both ran in every round, one soon after the other, so whatever slowed a round down slowed
        both; that makes the ratio steadier than a ratio of two medians. When one was stopped
        early, the rounds that both ran count.
        """
        pairs = zip(self.seconds, other.seconds, strict=False)
        ratios = torch.tensor([here / there for here, there in pairs], dtype=torch.float64)
        return float(ratios.quantile(0.5))


@dataclass(frozen=True)
class Budget:
    """When to stop: after `rounds`, or after `seconds` (and 3 rounds) for all callables together.

    A callable that has used up `seconds_each` by itself takes no part in further rounds.
    """

    rounds: int
    seconds: float
    seconds_each: float


def interleaved(
    works: Mapping[str, Work], device: torch.device, budget: Budget
) -> dict[str, Times]:
    """Time every callable, warmed up by the caller, once a round until the budget is used up.

    Rounds run forwards and backwards in turn, so that none always follows the same neighbour.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    started = time.perf_counter()
    for round_ in range(budget.rounds):
        if round_ >= 3 and time.perf_counter() - started > budget.seconds:
            break
        for name in list(works)[:: 1 if round_ % 2 == 0 else -1]:
            if sum(taken[name]) <= budget.seconds_each:
                taken[name].append(_seconds(works[name], device))
    return {name: Times(tuple(values)) for name, values in taken.items()}


def _seconds(work: Work, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def peak_extra_bytes(work: Work, device: torch.device) -> int:
    """The most bytes that torch's allocator held during one call, beyond what it held before.

    On a CPU it is the running sum of the profiler's allocation events, exact and independent of
    other processes; what a BLAS library packs in buffers of its own is not seen.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with profile(use_cpu=True, profile_memory=True) as record:
        work()
    results = record.kineto_results
    assert results is not None
    events = [event for event in results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
