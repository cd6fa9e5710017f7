"""Claim EX-1: SFT on chosen and rejected before DPO as a remedy, judged on trajectories.

Roles: "extend" is SFT on both answers, then DPO; "control" SFT on chosen, then the same DPO; "base"
(if there) DPO from the base model.
"""

from __future__ import annotations

import numpy as np

from squeeze.claims.catalogue import claim
from squeeze.claims.curves import Array, change, changes_at_equal_margin
from squeeze.claims.dpo import unmet
from squeeze.claims.runs import SPLITS, Runs
from squeeze.claims.types import Role, Side, Verdict

# name → (kind, metric, the side that an extended SFT is said to move it to)
PARTS: dict[str, tuple[str, str, Side]] = {
    "chosen": ("chosen", "logp", "above"),
    "others": ("others", "logp", "above"),
    "argmax": ("chosen", "argmax_logp", "below"),
}


WORDS = {"chosen": "chosen's", "others": "the others'", "argmax": "argmax's"}


def part(runs: Runs, role: str, name: str, split: str) -> Array:
    """A part's curve over DPO; "others" is the mean of every kind but chosen and rejected."""
    kind, metric, _ = PARTS[name]
    if kind != "others":
        return runs.curve(role, kind, split, metric)
    kinds = [k for k in runs.kinds(role) if k not in ("chosen", "rejected")]
    curves = [runs.curve(role, k, split, metric) for k in kinds]
    there = [curve for curve in curves if np.isfinite(curve).any()]
    if not there:
        return np.full_like(runs.curve(role, "chosen", split), np.nan)
    return np.asarray(np.mean(there, axis=0))


@claim(
    "EX-1",
    sentence="SFT on chosen and rejected before DPO lessens what DPO does, against SFT on chosen "
    "before the same DPO: chosen falls less, so do the other responses, and the argmax rises less.",
    source="Ren & Sutherland, arXiv 2407.10490, §4.3, Fig. 5",
    kind="observation",
    levels=("tiny", "pretrained", "gpu"),
    counterfactual="SFT twice as long on chosen only",
    primary="chosen's change over DPO, less the control's, equal steps, nats",
    math="Δ log π(y_u+) over DPO after SFT on {y+, y−}, less that after SFT on y+, > 0",
    run="squeeze observe pretrained --claims EX-1",
)
def check_extend(runs: Runs) -> list[Verdict]:
    """EX-1: changes over DPO at equal steps (chosen on training prompts decides).

    Premise: the control's chosen or its other responses fall over DPO.
    """
    names = [n for n in PARTS if np.isfinite(part(runs, "control", n, "train")).any()]
    control, updates = runs.arm("control"), runs.updates("extend")
    rows: list[Verdict] = []
    for split in SPLITS:
        for name in names:
            side = PARTS[name][2]

            def gain(r: Runs, name: str = name, split: str = split) -> Array:
                ours, theirs = (part(r, role, name, split) for role in ("extend", "control"))
                return change(ours) - change(theirs)

            decides = (name, split) == ("chosen", "train")
            role: Role = "primary" if decides else "secondary"
            statistic = f"{WORDS[name]} change over DPO, less the control's, equal steps, nats"
            where = f"{name}, against {control}, equal steps, {split}"
            rows.append(runs.row("EX-1", statistic, gain, side, where, role=role, updates=updates))
            if decides:
                rows += runs.contrast("EX-1", statistic, gain, side, where, updates=updates)
    rows += [_equal_margin(runs, name, split) for split in SPLITS for name in names]
    if runs.has("base"):
        rows += [_ends(runs, split) for split in SPLITS]
    return _if_control_falls(runs, rows, names)


def _equal_margin(runs: Runs, name: str, split: str) -> Verdict:
    """The same, both arms up to the margin that both reach."""

    def gain(r: Runs) -> Array:
        curves = part(r, "extend", name, split), part(r, "control", name, split)
        return changes_at_equal_margin(curves, (r.margin("extend"), r.margin("control")))

    statistic = f"{WORDS[name]} change over DPO, less the control's, equal margin, nats"
    where = f"{name}, against {runs.arm('control')}, equal margin, {split}"
    return runs.row("EX-1", statistic, gain, PARTS[name][2], where)


def _ends(runs: Runs, split: str) -> Verdict:
    """Where chosen ends in absolute terms, against DPO from the base model."""

    def gain(r: Runs) -> Array:
        ours, theirs = (r.curve(role, "chosen", split)[..., -1] for role in ("extend", "base"))
        return np.asarray(ours - theirs)

    statistic = "chosen at the end, less that of DPO from the base model, nats"
    return runs.row("EX-1", statistic, gain, "above", f"chosen's end, against base DPO, {split}")


def _if_control_falls(runs: Runs, rows: list[Verdict], names: list[str]) -> list[Verdict]:
    """The rows, or "premise not met" where nothing of the control falls."""
    falls = []
    for name in [n for n in names if n != "argmax"]:

        def fall(r: Runs, name: str = name) -> Array:
            return change(part(r, "control", name, "train"))

        statistic = f"the control's {name}, change over DPO, nats"
        falls.append(runs.row("EX-1", statistic, fall, "below", "premise"))
    if any(row.on_claimed_side or not row.ran for row in falls):
        return rows
    reason = "neither the control's chosen answers nor its others fall over DPO"
    return [unmet(row, reason, falls[0]) for row in rows]
