"""Measuring callables side by side: interleaved times and peak extra memory.

Not for profiling: it answers "how do these compare", on a machine that may be doing other work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.profiler import profile

Work = Callable[[], object]
# One call is too short to be timed by itself, above all where a GPU is started anew for each.
_SHORTEST_SECONDS = 2e-3


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
        return float(self._ratios(other).quantile(0.5))

    def distance_from(self, other: Times) -> float:
        """How far three quarters of the rounds' ratios stay from 1: noise, for equal callables."""
        return float((self._ratios(other) - 1).abs().quantile(0.75))

    def _ratios(self, other: Times) -> Tensor:
        pairs = zip(self.seconds, other.seconds, strict=False)
        return torch.tensor([here / there for here, there in pairs], dtype=torch.float64)


@dataclass(frozen=True)
class Budget:
    """When to stop: after `rounds`, or after `seconds` (and 3 rounds) for all callables together.

    A callable that has used up `seconds_each` by itself takes no part in further rounds.
    """

    rounds: int
    seconds: float
    seconds_each: float


def interleaved(
    works: Mapping[str, Sequence[Work]], device: torch.device, budget: Budget
) -> dict[str, Times]:
    """Time every callable, warmed up by the caller, once a round until the budget is used up.

    A callable comes once for each set of inputs; the sets take turns from call to call, so that no
    call finds its inputs in a cache where the one before it left them. Rounds run forwards and
    backwards in turn, so that none always follows the same neighbour. A short callable is called
    several times a round, on one set after the other.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    spent = dict.fromkeys(works, 0.0)
    n_calls: dict[str, int] = {}
    turn = 0

    def run(sets: Sequence[Work], n: int) -> float:
        nonlocal turn
        calls = [sets[(turn + i) % len(sets)] for i in range(n)]
        turn += n
        return _seconds(calls, device)

    started = time.perf_counter()
    for round_ in range(budget.rounds):
        if round_ >= 3 and time.perf_counter() - started > budget.seconds:
            break
        for name in list(works)[:: 1 if round_ % 2 == 0 else -1]:
            if spent[name] > budget.seconds_each:
                continue
            sets = works[name]
            seconds = run(sets, n_calls.get(name, 1))
            if name not in n_calls:
                n_calls[name] = max(1, math.ceil(_SHORTEST_SECONDS / max(seconds, 1e-6)))
                if n_calls[name] > 1:  # too short to count; the round's own calls follow
                    seconds = run(sets, n_calls[name])
            spent[name] += seconds
            taken[name].append(seconds / n_calls[name])
    return {name: Times(tuple(values)) for name, values in taken.items()}


def _seconds(calls: Sequence[Work], device: torch.device) -> float:
    """Seconds of the calls, one after the other: by the GPU's own clock where there is one."""
    if device.type == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        first.record()
        for call in calls:
            call()
        last.record()
        torch.cuda.synchronize(device)
        return float(first.elapsed_time(last)) / 1e3
    started = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - started


def machine_rates(device: torch.device) -> dict[str, float]:
    """Return bytes read a second, and operations a second of float32 and bfloat16 matmuls.

    Medians of five calls each: a sum over 256 MB (on a GPU half of a copy), squares of 2048 (8192).
    """
    values = torch.zeros(2**26, device=device)
    copy = torch.empty_like(values) if device.type == "cuda" else None
    reads = (lambda: copy.copy_(values)) if copy is not None else values.sum
    works: dict[str, list[Work]] = {"read": [reads]}
    n = 8192 if device.type == "cuda" else 1024
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.ones(n, n, device=device, dtype=dtype)
        works[str(dtype).removeprefix("torch.")] = [lambda square=square: square @ square]  # type: ignore[misc]
    for (work,) in works.values():
        work()
    times = interleaved(works, device, Budget(rounds=5, seconds=10.0, seconds_each=10.0))
    rates = {name: 2 * n**3 / found.median for name, found in times.items() if name != "read"}
    moved = values.nbytes * (1 if copy is None else 2)
    return {"read": moved / times["read"].median, **rates}


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
