"""Claim DP-4: on pairs that differ in one edit, what DPO does to chosen's tokens after it.

The check takes changes of log-probs; training and scoring are `squeeze.study.one_edit`'s work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from squeeze.claims.catalogue import claim
from squeeze.claims.curves import Array
from squeeze.claims.statistics import verdict_over_seeds
from squeeze.claims.types import CONTRAST, Level, Role, Side, Verdict

AFTER = "change over DPO of chosen's tokens after the edit, nats an answer"
AFTER_DPOP = "change over DPOP of chosen's tokens after the edit, nats an answer"
LESS_DPOP = "change over DPO of chosen's tokens after the edit less that over DPOP, nats an answer"
NO_FALL = -0.25  # nats: DPOP's fall counts as none above this


@dataclass(frozen=True)
class OneEdit:
    """Evidence of DP-4: by split, changes over training of log π of chosen's tokens after the edit.

    [seeds, pairs], nats an answer. `dpo` and `dpop` trained on pairs that differ in one edit;
    `bare` is DPO on the same chosen answers against rejected ones in other words.
    """

    dpo: Mapping[str, Array]
    level: Level
    seeds: Sequence[int]
    dpop: Mapping[str, Array] | None = None
    bare: Mapping[str, Array] | None = None
    model: str = ""
    updates: int = 0
    exploratory: bool = False

    def without_cause(self) -> OneEdit:
        """The counterfactual's training as evidence of its own."""
        assert self.bare is not None
        return replace(self, dpo=self.bare, dpop=None, bare=None)


@claim(
    "DP-4",
    sentence="On pairs whose answers differ in one edit, DPO lowers the chosen answer's tokens "
    "after the edit; DPOP does not.",
    source="Pal et al. 2024, arXiv 2402.13228 (Smaug); read in its abstract and in summaries of "
    "its token analysis",
    kind="observation",
    levels=("tiny",),
    counterfactual="the same chosen answers against rejected ones in other words",
    primary=AFTER,
    math="y+ and y− share all tokens but y_m: Σ_{k>m} Δ log π(y+_k | x, y+_<k) < 0 under DPO, not "
    "under DPOP",
    run="squeeze observe tiny --claims DP-4",
)
def check_one_edit(given: OneEdit) -> list[Verdict]:
    """DP-4: DPO's change on training pairs decides; DPOP's and the contrasts are beside it."""
    rows = []
    for split, name in (("train", "trained pairs"), ("held_out", "held-out pairs")):
        dpo, role = given.dpo[split], "primary" if split == "train" else "secondary"
        rows.append(_row(given, AFTER, dpo, name, role))  # type: ignore[arg-type]
        if given.bare is not None:
            other = f"{name}, less on pairs in other words"
            rows.append(_row(given, AFTER + CONTRAST, dpo - given.bare[split], other))
        if given.dpop is not None:
            dpop = given.dpop[split]
            rows.append(_row(given, LESS_DPOP, dpo - dpop, f"{name}, DPO against DPOP"))
            rows.append(_row(given, AFTER_DPOP, dpop, f"{name}, DPOP", side="above", bound=NO_FALL))
    return rows


def _row(
    given: OneEdit,
    statistic: str,
    values: Array,
    name: str,
    role: Role = "secondary",
    side: Side = "below",
    bound: float = 0.0,
) -> Verdict:
    """Pairs are each seed's own, so a number a seed."""
    row = verdict_over_seeds(
        "DP-4", given.level, statistic, values.mean(axis=1).tolist(), seeds=given.seeds,
        bound=bound, side=side, comparison=name, role=role,
        evidence={"share of pairs below 0": float(np.mean(values < 0))},
    )  # fmt: skip
    if not row.ran:
        return row
    return replace(
        row, n=values.size, model=given.model, updates=given.updates, exploratory=given.exploratory
    )
