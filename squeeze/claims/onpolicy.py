"""Claim ON-1: DPO on pairs of the policy's own answers, against DPO on the data's pairs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from squeeze.claims.catalogue import claim
from squeeze.claims.curves import Array, change, cut_at_margin
from squeeze.claims.runs import Runs
from squeeze.claims.types import Side, Verdict

Log = Sequence[Mapping[str, float]]

Metrics = Mapping[str, float]
ROLES = ("on_policy", "control")
PARTS: dict[str, tuple[Side, Metrics]] = {
    "argmax less chosen's": ("below", {"argmax_logp": 1.0, "logp": -1.0}),
    "chosen": ("above", {"logp": 1.0}),
    "argmax": ("below", {"argmax_logp": 1.0}),
}


def own_margins(phases: Sequence[Log], beta: float, every: int = 1) -> Array:
    """The mean margin of the pairs DPO trained on, summed over rounds, at the probes, [times].

    Probes stand at every `every`th epoch of a phase and at its last. `phases` are TRL's logs, one a
    phase; those without `rewards/margins` (SFT) are passed over.
    The margin (nats) of an epoch is the mean over its logged steps, so it lags by half an epoch in
    every arm alike. The first time is the start of DPO: 0.
    """
    found, before = [0.0], 0.0
    for log in phases:
        epochs: dict[int, list[float]] = defaultdict(list)
        for row in log:
            if "rewards/margins" in row:
                epochs[math.ceil(row["epoch"] - 1e-6)].append(row["rewards/margins"] / beta)
        if epochs:
            probed = [e for e in sorted(epochs) if e % every == 0 or e == max(epochs)]
            found += [before + float(np.mean(epochs[epoch])) for epoch in probed]
            before = found[-1]
    return np.array(found)


@dataclass(frozen=True)
class OnPolicy:
    """Evidence of ON-1: runs with the roles "on_policy" and "control", and their own margins.

    `margins` holds, for each seed, either role's `own_margins`, at the times of its probes.
    """

    runs: Runs
    margins: Sequence[Mapping[str, Array]]


@claim(
    "ON-1",
    sentence="On-policy DPO, both answers sampled from the current policy and ranked by a scorer, "
    "squeezes less than off-policy DPO at equal margin, on held-out prompts.",
    source="Ren & Sutherland, arXiv 2407.10490, §4.2 and App. on on-policy DPO",
    kind="observation",
    levels=("tiny", "pretrained"),
    counterfactual="the same rounds on the data's pairs",
    primary="change of argmax less chosen's over DPO, less the off-policy arm's at equal margin, "
    "nats",
    math="at equal mean margin of the trained pairs: Δ argmax − Δ log π(y+) lower, held out",
    run="squeeze observe pretrained --claims ON-1",
)
def check_on_policy(evidence: OnPolicy) -> list[Verdict]:
    """ON-1: at equal margin on its own pairs, held-out argmax rises less over chosen.

    On training prompts one arm trains y+ and the other does not, so those are secondary.
    """
    runs, margins = evidence.runs, evidence.margins
    own = {"own margin, nats": [{role: float(m[role][-1]) for role in m} for m in margins]}
    rows = []
    for split in ("held_out", "train"):
        for name, (side, metrics) in PARTS.items():

            def gain(r: Runs, split: str = split, metrics: Metrics = metrics) -> Array:
                return _gain(r, margins, split, metrics)

            decides = (name, split) == ("argmax less chosen's", "held_out")
            rows.append(
                runs.row(
                    "ON-1",
                    f"change of {name} over DPO, less the off-policy arm's at equal margin, nats",
                    gain,
                    side,
                    f"{name}, {split}",
                    role="primary" if decides else "secondary",
                    updates=runs.updates("on_policy"),
                    evidence=own,
                )
            )
    return rows


def _gain(
    runs: Runs, margins: Sequence[Mapping[str, Array]], split: str, metrics: Metrics
) -> Array:
    """The change of a sum of metrics (weight by metric) in one role less that in the other."""
    curves = []
    for role in ROLES:
        parts = [w * runs.curve(role, "chosen", split, metric) for metric, w in metrics.items()]
        curves.append(np.sum(parts, axis=0))
    given = []
    for ours, theirs, margin in zip(*curves, margins, strict=True):
        target = min(float(margin[role].max()) for role in ROLES)
        ends = [
            change(cut_at_margin(curve, margin[role], target))
            for curve, role in zip((ours, theirs), ROLES, strict=True)
        ]
        given.append(ends[0] - ends[1])
    return np.stack(given)
