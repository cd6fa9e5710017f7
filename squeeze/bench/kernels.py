"""The log-prob benchmark: run the cases, one after the other, into plain records."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from squeeze.bench.candidates import LIMIT, NAIVE, OURS, Candidate, candidates, limit
from squeeze.bench.cases import (
    CHECKED_ROWS,
    SHAPES,
    TRAINING,
    Case,
    expected_output,
    rotated_inputs,
)
from squeeze.bench.measure import (
    Budget,
    Times,
    Work,
    interleaved,
    machine_rates,
    peak_extra_bytes,
)
from squeeze.bench.own import OwnKernel
from squeeze.bench.peers import PEERS, first_line

# Arrays above this are not made: on a CPU other processes want memory too.
_LARGEST_BYTES = {"cpu": 4 * 10**9, "cuda": 20 * 10**9}
# Together with compiling and checking, about 8 minutes on 2 cores; the quick form about 2.
_FULL = Budget(rounds=25, seconds=8.0, seconds_each=6.0)
_AGAIN = "limit again"
_QUICK = Budget(rounds=15, seconds=4.0, seconds_each=2.0)
Report = dict[str, Any]


def run_cases(
    cases: list[Case],
    device: torch.device,
    *,
    quick: bool,
    starts: Callable[[Case], None],
    ends: Callable[[Case, Report], None],
    own: OwnKernel | None = None,
) -> Report:
    """Measure every case and return the report: `machine`, `cases` with records, `not_measured`.

    `starts` is called before each case and `ends` after it, with the report so far, in which
    `partial` is true until the last case has ended.
    """
    machine = describe_machine(device)
    report: Report = {"machine": machine, "partial": True, "cases": [], "not_measured": {}}
    report["peers"] = [{"name": one.name, "gives": one.gives, "needs": one.needs} for one in PEERS]
    for position, case in enumerate(cases, start=1):
        starts(case)
        if case.largest_bytes > _LARGEST_BYTES[device.type]:
            gigabytes = case.largest_bytes / 1e9
            report["not_measured"][case.title] = f"naive would make an array of {gigabytes:.0f} GB"
        else:
            report["cases"].append(_run_case(case, device, quick, own))
        report["partial"] = position < len(cases)
        ends(case, report)
    return report


def _run_case(
    case: Case, device: torch.device, quick: bool, own: OwnKernel | None = None
) -> dict[str, Any]:
    sets = rotated_inputs(case, device)
    chosen, missing = candidates(case, sets[0], own)
    limits = [limit(case, inputs) for inputs in sets]
    limit_name, limit_work, share = limits[0]
    expected = expected_output(case, sets[0])
    measured: dict[str, dict[str, Any]] = {}
    works: dict[str, list[Work]] = {}
    for candidate in chosen:
        try:
            facts = _check(candidate, case, sets[0], expected, device)
        except torch.OutOfMemoryError:
            missing[candidate.name] = "out of memory"
            continue
        except Exception as error:
            if candidate.name in (NAIVE, OURS):
                raise
            # A peer's compiler may raise anything; the others are measured all the same.
            missing[candidate.name] = f"failed: {type(error).__name__}: {first_line(error)}"
            continue
        if not math.isfinite(facts["error"]):
            missing[candidate.name] = "its result is not finite"
            continue
        measured[candidate.name] = facts
        works[candidate.name] = [_work(candidate, case, inputs) for inputs in sets]
    limit_work()  # its first call, unmeasured; the others have had theirs
    # The limit twice: how far a thing is from itself is the machine's noise.
    works[LIMIT] = works[_AGAIN] = [work for _, work, _ in limits]
    times = interleaved(works, device, _QUICK if quick else _FULL)
    return {
        "title": case.title,
        "task": case.task,
        "shape": case.shape,
        "n_tokens": case.n_tokens,
        "dtype": str(case.dtype).removeprefix("torch."),
        "bytes": case.n_bytes,
        "operations": case.n_operations,
        "input_sets": len(sets),
        "limit": limit_name,
        "limit_ms": times[LIMIT].median * share * 1e3,
        "noise": times[_AGAIN].distance_from(times[LIMIT]),
        **_records(measured, times, share),
        "not_measured": missing,
    }


def _records(
    measured: dict[str, dict[str, Any]], times: dict[str, Times], share: float
) -> dict[str, Any]:
    peers = [name for name, facts in measured.items() if facts["is_peer"]]
    best = min(peers, key=lambda name: times[name].median, default=None)
    records = []
    for name, facts in measured.items():
        first, third = times[name].spread
        records.append(
            {"name": name, **facts}
            | {"median_ms": times[name].median * 1e3, "quartiles_ms": [first * 1e3, third * 1e3]}
            | {"rounds": len(times[name].seconds)}
            | {"times_naive": _ratio(times, name, NAIVE)}
            | {"times_best_peer": _ratio(times, name, best)}
            | {"times_limit": times[name].ratio_to(times[LIMIT]) / share}
        )
    return {"best_peer": best, "records": sorted(records, key=lambda one: one["median_ms"])}


def _ratio(times: dict[str, Times], name: str, other: str | None) -> float | None:
    return times[name].ratio_to(times[other]) if other in times else None


def _work(candidate: Candidate, case: Case, inputs: Any) -> Work:
    def work() -> object:
        with torch.set_grad_enabled(case.task == TRAINING):
            return candidate.call(inputs)

    return work


def _check(
    candidate: Candidate, case: Case, inputs: Any, expected: torch.Tensor, device: torch.device
) -> dict[str, Any]:
    """Measure memory and error; the first call, unmeasured, is where anything is compiled."""
    work = _work(candidate, case, inputs)
    output = work()
    assert isinstance(output, torch.Tensor)
    error = (output[:CHECKED_ROWS].double() - expected).abs().max()
    del output
    extra = peak_extra_bytes(work, device)
    facts = {"gives": candidate.gives, "is_peer": candidate.is_peer}
    return {**facts, "error": float(error), "extra_megabytes": extra / 2**20}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return date, processor, threads and versions: what a number needs beside it."""
    facts: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "device": _processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "shapes": SHAPES,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "rates": machine_rates(device),
    }
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
