"""Claim EX-1: SFT on chosen and rejected before DPO as a remedy, judged on trajectories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from squeeze.claims.curves import Array, cut_at_margin, dpo_values, fall_from_peak, mean_margin
from squeeze.claims.dpo import SPLITS
from squeeze.claims.runs import Runs
from squeeze.claims.types import Verdict
from squeeze.trajectory import Trajectory

EQUAL = ("steps", "margin")
CONTROLS = ("dpo", "sft-dpo")


def chosen_falls(
    trajectory: Trajectory, arms: tuple[str, str], split: str, equal: str
) -> tuple[Array, Array]:
    """Chosen's change from its peak on in two arms, at equal steps or equal mean margin."""
    margins = [mean_margin(trajectory, arm) for arm in arms]
    curves = [dpo_values(trajectory, arm, "chosen", split) for arm in arms]
    if equal == "margin":
        target = min(float(margin.max()) for margin in margins)
        curves = [cut_at_margin(c, m, target) for c, m in zip(curves, margins, strict=True)]
    return fall_from_peak(curves[0]), fall_from_peak(curves[1])


def check_extend(runs: Runs, arm: str, control: str, split: str, equal: str) -> Verdict:
    """EX-1: chosen falls less from its peak in `arm` than in `control`, at equal `equal`."""
    falls = [chosen_falls(t, (arm, control), split, equal) for t in runs.trajectories]
    verdict = runs.row(
        "EX-1",
        "chosen's fall from its peak, less the control's, nats",
        np.stack([own - other for own, other in falls]),
        "above",
        f"against {control}, equal {equal}, {split}",
    )
    evidence = dict(verdict.evidence) | {
        f"fall in {name}": float(np.mean([fall[i] for fall in falls])) if falls[0][i].size else None
        for i, name in enumerate((arm, control))
    }
    return replace(verdict, evidence=evidence)


def judge_extend(runs: Runs, arm: str = "extend-dpo") -> list[Verdict]:
    """EX-1 against every control that was run, at equal steps and margin, on either split."""
    return [
        check_extend(runs, arm, control, split, equal)
        for control in CONTROLS
        if control in runs.arms()
        for equal in EQUAL
        for split in SPLITS
    ]
