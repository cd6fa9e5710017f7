"""Claim VA-1: what each preference loss does to chosen, rejected, the others and argmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from squeeze.claims.catalogue import claim, get
from squeeze.claims.curves import Array, change, cut_at_margin, phase_values, scored
from squeeze.claims.runs import Runs, nearest_to_failing
from squeeze.claims.statistics import Estimate, crossed_mean
from squeeze.claims.types import Verdict
from squeeze.trajectory import Trajectory

# What the Gate-DPO authors publish, as pairs (drops chosen more, drops it less).
ORDER = (
    ("sigmoid", "ipo"),
    ("dpo_shift", "ipo"),
    ("ipo", "cal_dpo"),
    ("sigmoid", "gated_sigmoid"),
    ("dpo_shift", "gated_dpo_shift"),
)
COLUMNS = ("chosen", "rejected", "others", "argmax", "margin")


def arm_of(loss: str) -> str:
    """The arm that trains a loss."""
    return f"loss-{loss}"


@dataclass(frozen=True)
class LossRow:
    """Changes over one loss's phase, nats, by `COLUMNS`; `cut` says how far into it they go.

    `cut` is "end", or the common margin at which all losses are compared; None in `changes` where a
    loss never reaches it.
    """

    loss: str
    split: str
    cut: str
    changes: dict[str, Estimate | None]


def _columns(trajectory: Trajectory, arm: str, split: str) -> dict[str, Array]:
    """Each column's curve, [examples, times]."""
    kinds = trajectory.where(arm=arm).kinds()
    curves = {kind: phase_values(trajectory, arm, "dpo", kind, split) for kind in kinds}
    others = [
        curve
        for kind, curve in curves.items()
        if kind not in ("chosen", "rejected") and np.isfinite(curve).any()
    ]
    return {
        "chosen": curves["chosen"],
        "rejected": curves["rejected"],
        "others": np.mean(others, axis=0) if others else np.full_like(curves["chosen"], np.nan),
        "argmax": phase_values(trajectory, arm, "dpo", "chosen", split, "argmax_logp"),
        "margin": curves["chosen"] - curves["rejected"],
    }


def _margin(columns: dict[str, Array]) -> Array:
    mean = columns["margin"].mean(axis=0)
    return np.asarray(mean - mean[0])


def common_margin(runs: Runs, losses: Sequence[str], split: str) -> list[float | None]:
    """For each seed the largest mean margin that every loss which raises its margin reaches, nats.

    A loss whose margin never rises above its start, or that diverged, is left out: one such loss
    would put the cut at the start for all. None where no loss raises it.
    """
    common: list[float | None] = []
    for t in runs.trajectories:
        tops = [float(_margin(_columns(t, arm_of(loss), split)).max()) for loss in losses]
        raised = [top for top in tops if np.isfinite(top) and top > 0]
        common.append(min(raised) if raised else None)
    return common


def _cut(columns: dict[str, Array], target: float | None) -> dict[str, Array]:
    """The columns up to the common margin; NaN where this loss never reaches it."""
    margin = _margin(columns)
    if target is None or not (margin >= target).any():
        return {name: np.full_like(values, np.nan) for name, values in columns.items()}
    return {name: cut_at_margin(values, margin, target) for name, values in columns.items()}


def loss_rows(runs: Runs, losses: Sequence[str], split: str = "held_out") -> list[LossRow]:
    """The table: every loss at the end of training, then every loss at the common margin."""
    rows = []
    targets = common_margin(runs, losses, split)
    for cut in ("end", "equal margin"):
        for loss in losses:
            found = [_columns(t, arm_of(loss), split) for t in runs.trajectories]
            if cut != "end":
                found = [_cut(c, target) for c, target in zip(found, targets, strict=True)]
            changes = {
                name: _estimate(np.stack([change(columns[name]) for columns in found]))
                for name in COLUMNS
            }
            rows.append(LossRow(loss, split, cut, changes))
    return rows


def _estimate(values: Array) -> Estimate | None:
    values = scored(values)
    if not np.isfinite(values).all() or values.shape[-1] < 2:
        return None
    return crossed_mean(values)


@claim(
    "VA-1",
    sentence="Plain DPO and DPO-Shift drop the chosen answers most, IPO less, Cal-DPO and the "
    "gated losses least.",
    source="the order published with Gate-DPO, Mouiche 2026, arXiv 2605.02626",
    kind="observation",
    levels=("tiny", "pretrained"),
    counterfactual="every arm trained with the same loss",
    primary="change of chosen over training, less that of the loss said to drop it more, nats",
    math="Δ log π(y+): {sigmoid, dpo_shift} < ipo < cal_dpo, NAME < gated_NAME",
    run="squeeze compare-losses",
)
def check_order(runs: Runs) -> list[Verdict]:
    """VA-1: the published order of the losses by what they do to chosen, held out.

    `roles` maps losses to arms. The pair of `ORDER` nearest to failing decides; each pair is a
    secondary row, on either split. Only pairs of which both losses were trained are judged.
    """
    statistic = get("VA-1").primary
    rows: list[Verdict] = []
    held_out: list[tuple[str, Verdict]] = []
    for split in ("held_out", "train"):
        for more, less in [pair for pair in ORDER if set(pair) <= set(runs.roles)]:

            def gain(r: Runs, less: str = less, more: str = more, split: str = split) -> Array:
                ours, theirs = (r.curve(loss, "chosen", split) for loss in (less, more))
                return change(ours) - change(theirs)

            name = f"{less} above {more}"
            row = runs.row("VA-1", statistic, gain, "above", f"{name}, {split}")
            rows.append(row)
            held_out += [(name, row)] if split == "held_out" else []
    if not held_out:
        return rows
    whole = replace(nearest_to_failing(held_out, "above"), role="primary", comparison="the order")
    return [whole, *rows]
