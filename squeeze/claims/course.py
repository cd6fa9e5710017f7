"""What a course page tells of LLaMA-Factory's β and `pref_ftx`, as claims that can fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import numpy as np

from squeeze.claims.catalogue import register
from squeeze.claims.curves import Array, change, dpo_values
from squeeze.claims.dpo import SPLITS
from squeeze.claims.runs import Runs, nearest_to_failing
from squeeze.claims.types import Claim, Side, Verdict
from squeeze.trajectory import Trajectory

Measure = Callable[[Trajectory, str, str], Array]
COURSE = "self-llm's chapter on DPO with LLaMA-Factory"


def distance(trajectory: Trajectory, arm: str, split: str) -> Array:
    """Mean |log π − log π_ref| at the end of DPO over all kinds of answers, nats, [examples]."""
    kinds = trajectory.where(arm=arm).kinds()
    moved = [np.abs(change(dpo_values(trajectory, arm, kind, split))) for kind in kinds]
    return np.asarray(np.mean(moved, axis=0))


def _gain(t: Trajectory, less: str, more: str, of: Measure, split: str) -> Array:
    return np.asarray(of(t, more, split) - of(t, less, split))


def _neighbours(
    runs: Runs,
    claim: str,
    arms: Mapping[float, str],
    of: Measure,
    statistic: str,
    side: Side,
) -> list[Verdict]:
    """A row a split: of all steps from one arm to the next, the one nearest to failing."""
    ordered = [arms[value] for value in sorted(arms)]
    rows = []
    for split in SPLITS:
        steps = []
        for less, more in pairwise(ordered):
            gain = partial(_gain, less=less, more=more, of=of, split=split)
            steps.append((f"{less} to {more}", runs.row(claim, statistic, gain, side, split)))
        rows.append(nearest_to_failing(steps, side))
    return rows


def check_beta(runs: Runs, arms: Mapping[float, str]) -> list[Verdict]:
    """CP-1: the larger β, the nearer the policy stays to the reference, at equal steps.

    `arms` maps each β to its arm; every step to the next larger β has to count.
    """
    statistic = "mean distance from the reference, of one β less that of the one before it, nats"
    return _neighbours(runs, "CP-1", arms, distance, statistic, "below")


def chosen_change(trajectory: Trajectory, arm: str, split: str) -> Array:
    """Chosen's change over DPO, nats, [examples]."""
    return change(dpo_values(trajectory, arm, "chosen", split))


def check_ftx(runs: Runs, arms: Mapping[float, str]) -> list[Verdict]:
    """CP-2: the larger the weight of the added SFT loss, the less chosen falls.

    `arms` maps each weight to its arm; every step to the next larger weight has to count.
    """
    statistic = "change of chosen over DPO, of one weight less that of the one before it, nats"
    return _neighbours(runs, "CP-2", arms, chosen_change, statistic, "above")


register(
    Claim(
        id="CP-1",
        sentence="A larger β of DPO keeps the policy nearer to the reference.",
        source=COURSE,
        kind="observation",
        levels=("tiny",),
        counterfactual="the values of β in another order",
        check=check_beta,
        math="mean over answers of |log π − log π_ref| after equal steps falls as β grows",
        run="squeeze observe tiny --claims CP-1",
    )
)
register(
    Claim(
        id="CP-2",
        sentence="An SFT loss added to DPO's (`pref_ftx`) keeps the chosen answers up.",
        source=COURSE,
        kind="observation",
        levels=("tiny",),
        counterfactual="the weights in another order",
        check=check_ftx,
        math="Δ log π(y+) over DPO grows with α in DPO + α·SFT",
        run="squeeze observe tiny --claims CP-2",
    )
)
