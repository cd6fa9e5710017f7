"""Claims CP-1 and CP-2: what LLaMA-Factory's β and `pref_ftx` are said to do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from squeeze.claims.catalogue import claim, get
from squeeze.claims.curves import Array, change
from squeeze.claims.dpo import steps
from squeeze.claims.runs import Runs
from squeeze.claims.types import Role, Side, Verdict

COURSE = "LLaMA-Factory's documentation of β and pref_ftx, as taught by courses on it"


def distance(runs: Runs, role: str, split: str) -> Array:
    """Mean |log π − log π_ref| at the end of DPO over all kinds, nats, [seeds, prompts]."""
    moved = [np.abs(change(runs.curve(role, kind, split))) for kind in runs.kinds(role)]
    return np.asarray(np.mean([kind for kind in moved if np.isfinite(kind).any()], axis=0))


def _in_order(
    runs: Runs, id: str, of: Callable[[Runs, str, str], Array], side: Side
) -> list[Verdict]:
    """A row a split: of all steps from one role to the next, the one nearest to failing."""
    roles: dict[str, Role] = {"held_out": "primary", "train": "secondary"}
    return [
        row
        for split, decides in roles.items()
        for row in steps(
            runs, id, lambda r, role, split=split: of(r, role, split), get(id).primary, side,  # type: ignore[misc]
            id, decides, split,
        )
    ]  # fmt: skip


@claim(
    "CP-1",
    sentence="A larger β of DPO keeps the policy nearer to the reference.",
    source=COURSE,
    kind="observation",
    levels=("tiny",),
    counterfactual="the values of β in another order",
    primary="mean distance from the reference, of one β less that of the one before it, nats",
    math="mean over answers of |log π − log π_ref| after equal steps falls as β grows",
    run="squeeze observe tiny --claims CP-1",
)
def check_beta(runs: Runs) -> list[Verdict]:
    """CP-1: the larger β, the nearer the policy stays to the reference, at equal steps.

    `roles` are the values of β in order; every step to the next larger one has to count.
    """
    return _in_order(runs, "CP-1", distance, "below")


@claim(
    "CP-2",
    sentence="An SFT loss added to DPO's (`pref_ftx`) keeps the chosen answers up.",
    source=COURSE,
    kind="observation",
    levels=("tiny",),
    counterfactual="the weights in another order",
    primary="change of chosen over DPO, of one weight less that of the one before it, nats",
    math="Δ log π(y+) over DPO grows with α in DPO + α·SFT",
    run="squeeze observe tiny --claims CP-2",
)
def check_ftx(runs: Runs) -> list[Verdict]:
    """CP-2: the larger the weight of the added SFT loss, the less chosen falls.

    `roles` are the weights in order; every step to the next larger one has to count.
    """

    def of(r: Runs, role: str, split: str) -> Array:
        return change(r.curve(role, "chosen", split))

    return _in_order(runs, "CP-2", of, "above")
