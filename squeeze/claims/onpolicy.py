"""Claim ON-1: DPO on pairs of the policy's own answers, against DPO on the data's pairs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from squeeze.claims.catalogue import register
from squeeze.claims.curves import Array, change, cut_at_margin, dpo_values
from squeeze.claims.dpo import SPLITS
from squeeze.claims.runs import Runs
from squeeze.claims.types import Claim, Side, Verdict

Log = Sequence[Mapping[str, float]]

PARTS: tuple[tuple[str, str, Side], ...] = (
    ("chosen", "logp", "above"),
    ("argmax", "argmax_logp", "below"),
)


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


def check_on_policy(
    runs: Runs, arm: str, control: str, margins: Sequence[Mapping[str, Array]]
) -> list[Verdict]:
    """ON-1: at equal margin on its own pairs, `arm` moves chosen down and argmax up less.

    `margins` holds, for each seed, either arm's `own_margins`, at the times of its probes.
    """
    rows = []
    for split in SPLITS:
        for name, metric, side in PARTS:
            values = []
            for trajectory, margin in zip(runs.trajectories, margins, strict=True):
                target = min(float(margin[a].max()) for a in (arm, control))
                curves = [
                    dpo_values(trajectory, a, "chosen", split, metric) for a in (arm, control)
                ]
                ends = [
                    change(cut_at_margin(curve, margin[a], target))
                    for curve, a in zip(curves, (arm, control), strict=True)
                ]
                values.append(ends[0] - ends[1])
            rows.append(
                runs.row(
                    "ON-1",
                    f"change of {name} over DPO, less the off-policy arm's at equal margin, nats",
                    np.stack(values),
                    side,
                    f"{name}, {split}",
                    {"own margin, nats": [{a: float(m[a][-1]) for a in m} for m in margins]},
                )
            )
    return rows


register(
    Claim(
        id="ON-1",
        sentence="On-policy DPO, both answers sampled from the current policy and ranked by a "
        "scorer, squeezes less than off-policy DPO at equal margin.",
        source="Ren & Sutherland, ICLR 2025, §4.2 and App. on on-policy DPO",
        kind="observation",
        levels=("tiny", "pretrained"),
        counterfactual="the same rounds on the data's pairs",
        check=check_on_policy,
        math="at equal mean margin of the trained pairs: Δ log π(y+) higher, Δ Σ max log π lower",
        run="pytest -m pretrained -k ON_1",
    )
)
