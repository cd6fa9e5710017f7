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
from squeeze.claims.types import Level, Role, Side, Verdict

LESS_BARE = (
    "change over DPO of chosen's tokens after the edit, less that on pairs in other words, "
    "nats an answer"
)
AFTER = "change over DPO of chosen's tokens after the edit, nats an answer"
AFTER_DPOP = "change over DPOP of chosen's tokens after the edit, nats an answer"
LESS_DPOP = "change over DPO of chosen's tokens after the edit less that over DPOP, nats an answer"
NO_FALL = -0.25  # nats: DPOP's fall counts as none above this


@dataclass(frozen=True)
class OneEdit:
    """Evidence of DP-4: by split, changes over training of log π of chosen's tokens after the edit.

    [seeds, pairs], nats an answer. `dpo` and `dpop` trained on pairs that differ in one edit;
    `bare` is DPO on the same chosen answers against rejected ones in other words, `again` the same
    in yet other words.
    """

    dpo: Mapping[str, Array]
    bare: Mapping[str, Array]
    level: Level
    seeds: Sequence[int]
    dpop: Mapping[str, Array] | None = None
    again: Mapping[str, Array] | None = None
    model: str = ""
    updates: int = 0
    exploratory: bool = False

    def without_cause(self) -> OneEdit:
        """Pairs in other words in the place of those with one edit: one draw less another."""
        assert self.again is not None
        return replace(self, dpo=self.again, dpop=None, again=None)


@claim(
    "DP-4",
    sentence="On pairs whose answers differ in one edit, DPO lowers the chosen answer's tokens "
    "after the edit, more than on pairs in other words; DPOP does not.",
    source="Pal et al. 2024, arXiv 2402.13228 (Smaug), §3 and Fig. 4 (low edit distance; its own "
    "contrast is with DPOP and the reference); read in its abstract and in others' notes on it",
    kind="observation",
    levels=("tiny",),
    counterfactual="the same chosen answers against rejected ones in other words, in both places",
    primary=LESS_BARE,
    math="y+ and y− share all tokens but y_m: Σ_{k>m} Δ log π(y+_k | x, y+_<k) < 0 under DPO, not "
    "under DPOP",
    run="squeeze observe tiny --claims DP-4",
)
def check_one_edit(given: OneEdit) -> list[Verdict]:
    """DP-4: the contrast on training pairs decides; each change and DPOP's are beside it."""
    rows = []
    for split, name in (("train", "trained pairs"), ("held_out", "held-out pairs")):
        dpo, role = given.dpo[split], "primary" if split == "train" else "secondary"
        less = dpo - given.bare[split]
        rows.append(_row(given, LESS_BARE, less, f"{name}, less in other words", role))  # type: ignore[arg-type]
        rows.append(_row(given, AFTER, dpo, name))
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
