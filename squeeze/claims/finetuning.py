"""Verdicts of one run: every claim about finetuning that the run's arms allow.

What needs more than the run has is returned as "not run" with the reason, or left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from squeeze.claims import catalogue, sft
from squeeze.claims.runs import Runs
from squeeze.claims.types import Level, Verdict
from squeeze.trajectory import Trajectory

EXTENDED, CONTROL, BASE = "extend-dpo", "sft-dpo", "dpo"


def judge_run(trajectory: Trajectory, level: Level, seeds: Sequence[int]) -> list[Verdict]:
    """Return every row that the arms of one run allow; of a claim's arms the first one decides."""
    runs = Runs((trajectory,), level, tuple(seeds))
    rows: list[Verdict] = []
    decided: set[str] = set()
    for claim, evidence in _evidence(runs):
        found = catalogue.get(claim).check(evidence)
        if claim in decided:
            found = [replace(row, role="secondary") for row in found]
        decided.add(claim)
        rows += found
    return rows


def _evidence(runs: Runs) -> Iterator[tuple[str, Any]]:
    """(claim, evidence), DPO after SFT on chosen before the other arms."""
    trajectory = runs.trajectories[0]
    arms = sorted(runs.arms(), key=lambda arm: arm != CONTROL)
    for arm in [arm for arm in arms if arm != EXTENDED]:
        phases = {point.phase for point in trajectory.points(arm)}
        if "sft" in phases:
            yield from _of_sft(replace(runs, roles={"sft": arm}))
        if "dpo" in phases:
            own = replace(runs, roles={"dpo": arm})
            yield "DO-1", own
            yield "DO-2", own
    if runs.has(EXTENDED) and runs.has(CONTROL):
        yield "EX-1", replace(runs, roles={"extend": EXTENDED, "control": CONTROL, "base": BASE})


def _of_sft(runs: Runs) -> Iterator[tuple[str, Any]]:
    """SF-2 needs the time in between and is left out where SFT was probed at its end only."""
    kinds = set(runs.kinds("sft"))
    yield "SF-1", runs
    if "rejected" in kinds:
        yield "SF-3", runs
    if set(sft.SIMILARITY) <= kinds and sft.sft_values(runs, "chosen").shape[-1] > 3:
        yield "SF-2", runs
    if {"other_answer", "unseen_answer"} <= kinds:
        yield "SF-4", sft.Copies(runs)
    yield "SF-5", runs
