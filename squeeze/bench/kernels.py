"""The log-prob benchmark: run the cases, one after the other, into plain records."""

from __future__ import annotations

import datetime
import math
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from squeeze.bench.candidates import LIMIT, NAIVE, OURS, Candidate, candidates, limit
from squeeze.bench.cases import CHECKED_ROWS, SHAPES, TRAINING, Case, expected_output, make_inputs
from squeeze.bench.measure import Budget, Times, Work, interleaved, peak_extra_bytes

# Arrays above this are not made: on a CPU other processes want memory too.
_LARGEST_BYTES = {"cpu": 4 * 10**9, "cuda": 20 * 10**9}
# Together with compiling and checking, about 8 minutes on 2 cores; the quick form about 2.
_FULL = Budget(rounds=25, seconds=8.0, seconds_each=6.0)
_QUICK = Budget(rounds=15, seconds=4.0, seconds_each=2.0)
Report = dict[str, Any]


def run_cases(
    cases: list[Case],
    device: torch.device,
    *,
    quick: bool,
    starts: Callable[[Case], None],
    ends: Callable[[Case, Report], None],
) -> Report:
    """Measure every case and return the report: `machine`, `cases` with records, `not_measured`.

    `starts` is called before each case and `ends` after it, with the report so far, in which
    `partial` is true until the last case has ended.
    """
    machine = describe_machine(device)
    report: Report = {"machine": machine, "partial": True, "cases": [], "not_measured": {}}
    for position, case in enumerate(cases, start=1):
        starts(case)
        if case.largest_bytes > _LARGEST_BYTES[device.type]:
            gigabytes = case.largest_bytes / 1e9
            report["not_measured"][case.title] = f"naive would make an array of {gigabytes:.0f} GB"
        else:
            report["cases"].append(_run_case(case, device, quick))
        report["partial"] = position < len(cases)
        ends(case, report)
    return report


def _run_case(case: Case, device: torch.device, quick: bool) -> dict[str, Any]:
    inputs = make_inputs(case, device)
    chosen, missing = candidates(case, device)
    limit_name, limit_work, share = limit(case, inputs)
    expected = expected_output(case, inputs)
    measured: dict[str, dict[str, Any]] = {}
    works: dict[str, Work] = {}
    for candidate in chosen:
        try:
            facts = _check(candidate, case, inputs, expected, device)
        except torch.OutOfMemoryError:
            missing[candidate.name] = "out of memory"
            continue
        if not math.isfinite(facts["error"]):
            missing[candidate.name] = "its result is not finite"
            continue
        measured[candidate.name] = facts
        works[candidate.name] = _work(candidate, case, inputs)
    limit_work()  # its first call, unmeasured; the others have had theirs
    times = interleaved({**works, LIMIT: limit_work}, device, _QUICK if quick else _FULL)
    return {
        "title": case.title,
        "task": case.task,
        "shape": case.shape,
        "n_tokens": case.n_tokens,
        "dtype": str(case.dtype).removeprefix("torch."),
        "limit": limit_name,
        "limit_ms": times[LIMIT].median * share * 1e3,
        **_records(measured, times, share),
        "not_measured": missing,
    }


def _records(
    measured: dict[str, dict[str, Any]], times: dict[str, Times], share: float
) -> dict[str, Any]:
    peers = [name for name in measured if name not in (NAIVE, OURS)]
    best = min(peers, key=lambda name: times[name].median)
    records = []
    for name, facts in measured.items():
        first, third = times[name].spread
        records.append(
            {"name": name, **facts}
            | {"median_ms": times[name].median * 1e3, "quartiles_ms": [first * 1e3, third * 1e3]}
            | {"rounds": len(times[name].seconds)}
            | {"times_naive": _ratio(times, name, NAIVE)}
            | {"times_best_peer": times[name].ratio_to(times[best])}
            | {"times_limit": times[name].ratio_to(times[LIMIT]) / share}
        )
    return {"best_peer": best, "records": sorted(records, key=lambda one: one["median_ms"])}


def _ratio(times: dict[str, Times], name: str, other: str) -> float | None:
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
    return {"gives": candidate.gives, "error": float(error), "extra_megabytes": extra / 2**20}


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
    }
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
