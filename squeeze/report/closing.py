"""Closing lines of a run: in words what was trained, what each arm did, and whether EX-1 showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from squeeze.claims.types import Verdict
from squeeze.report.content import interval, number
from squeeze.report.summary import Mean, Scores, split_summary
from squeeze.trajectory import Trajectory


def closing_lines(
    config: Mapping[str, Any], trajectory: Trajectory, verdicts: Sequence[Verdict]
) -> list[str]:
    """What a run comes to on its training prompts, a line a thing said; nats per response."""
    scores, arms = Scores(trajectory), trajectory.arms()
    trained = f"{config['model']} on {config['pairs']} pairs of {config['data']}"
    several = f"{len(arms)} arms" if len(arms) > 1 else "one arm"
    lines = [f"Trained {trained}, {several}, seed {config['seed']}. From the start of DPO:"]
    lines += [f"{arm}: {_course(scores, arm)}" for arm in arms]
    extended = next((v for v in verdicts if v.claim == "EX-1" and v.role == "primary"), None)
    return lines if extended is None else [*lines, _extended(extended)]


def _course(scores: Scores, arm: str) -> str:
    found = split_summary(scores, arm, "train")
    parts = [
        f"{name} {number(mean.value)} {interval(mean)}".strip()
        for name, mean in (
            ("chosen", found.chosen),
            ("rejected", found.rejected),
            ("argmax along chosen", found.argmax),
        )
        if mean is not None
    ]
    fell = _fell(found.drop)
    return ", ".join(parts) + (f"; chosen ends {fell} below its best" if fell else "")


def _fell(drop: Mean | None) -> str:
    return "" if drop is None or drop.value >= 0 else number(-drop.value, signed=False)


def _extended(row: Verdict) -> str:
    """EX-1's primary row as a sentence."""
    if row.effect is None:
        return f"SFT on both answers against SFT on chosen: {row.outcome} ({row.reason})."
    less = f"{number(abs(row.effect), signed=False)} nats {'less' if row.effect > 0 else 'more'}"
    sure = f"{row.outcome}: {row.reason}" if row.reason else row.outcome
    return (
        f"SFT on both answers first, against SFT on chosen: chosen falls {less} over DPO, "
        f"difference {interval(row)} (EX-1 {sure})."
    )
