"""Claim CH-1: scores taken before training predict whose chosen answer will lose log-prob.

The check takes what was predicted and what happened, side by side; scoring examples is
`squeeze.scan`'s work, training them `squeeze.training`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from squeeze.claims.catalogue import register
from squeeze.claims.curves import change, dpo_values
from squeeze.claims.statistics import (
    MIN_RANKED,
    Estimate,
    rank_correlation,
    rank_correlation_gain,
    verdict_from_interval,
)
from squeeze.claims.types import Claim, Level, Verdict
from squeeze.errors import InputError
from squeeze.trajectory import Trajectory

if TYPE_CHECKING:
    from squeeze.scan import ScanRow

FORMS = {"ches": "CHES", "normalised_ches": "normalised CHES"}
BASELINE = "edit_distance"
RESAMPLES = 2000


def predicted_and_seen(
    rows: Iterable[ScanRow], trajectory: Trajectory, arm: str, *, seed: int, split: str = "train"
) -> pd.DataFrame:
    """What a scan said and what one run's DPO did, a row an example: the input of `check_ches`.

    `rows` are the scan of the model that DPO started from. Columns: those of `ScanRow`, `seed`,
    and `fall`, the chosen answer's log-prob (nats, summed over tokens) at the start of DPO less
    that at its end, positive where it fell: Razin et al.'s likelihood displacement.
    Raises `InputError` when an example of the run was not scanned.
    """
    examples = trajectory.by_example(arm, "chosen", split).sort_index().index
    falls = -change(dpo_values(trajectory, arm, "chosen", split))
    seen = pd.DataFrame({"example": examples, "fall": falls, "seed": seed})
    predicted = pd.DataFrame([asdict(row) for row in rows])
    missing = sorted(set(examples) - set(predicted.get("example", [])))
    if missing:
        raise InputError(
            f"{len(missing)} examples of the run were not scanned, such as {missing[0]!r}"
        )
    return seen.merge(predicted, on="example", validate="one_to_one")


def check_ches(frame: pd.DataFrame, level: Level, *, comparison: str = "") -> list[Verdict]:
    """CH-1: Spearman's ρ of each form of CHES with the fall of chosen, and its gain on a baseline.

    `frame` has a row an example and seed: `example`, `seed`, `fall` (nats), `ches`,
    `normalised_ches`, `edit_distance` (see `predicted_and_seen`; frames of several seeds go
    through `pandas.concat`); other numeric columns are evidence only. An example that several
    seeds trained on counts once: its falls, each less its seed's mean fall (seeds differ in how far
    they went, which says nothing of examples), are averaged, and so are its scores. Examples are
    resampled; the interval holds for other examples trained with these seeds.

    Four verdicts: ρ > 0 for both forms, and for both ρ − |ρ of edit distance| > 0. "not run" below
    five examples. Raises `InputError` for a column that is missing or not finite.
    """
    pooled = _pooled(frame)
    seeds = tuple(sorted({int(seed) for seed in frame["seed"]}))
    before = f"{comparison}: " if comparison else ""
    alone = {form: f"{before}{name}" for form, name in FORMS.items()}
    against = {form: f"{name} against edit distance" for form, name in alone.items()}
    rho, gain = "Spearman's ρ with the fall of chosen", "ρ less |ρ| of edit distance"
    if len(pooled) < MIN_RANKED:
        reason = f"needs at least {MIN_RANKED} examples, but there are {len(pooled)}; raise --pairs"
        names = [(text, rho) for text in alone.values()] + [(t, gain) for t in against.values()]
        return [
            Verdict("CH-1", level, "not run", what, seeds=seeds, comparison=text, reason=reason)
            for text, what in names
        ]
    fall = pooled["fall"]
    others = {
        name: _rho(pooled[name], fall) for name in pooled.columns if name not in {"fall", *FORMS}
    }
    evidence = {"resampled": "examples", "rows": len(frame), "ρ of other predictors": others}

    def verdict(what: str, estimate: Estimate, comparison: str) -> Verdict:
        return verdict_from_interval(
            *("CH-1", level, what, estimate),
            bound=0.0,
            side="above",
            comparison=comparison,
            seeds=seeds,
            evidence=evidence,
        )

    return [
        *(
            verdict(rho, rank_correlation(pooled[form], fall, resamples=RESAMPLES), alone[form])
            for form in FORMS
        ),
        *(
            verdict(
                gain,
                rank_correlation_gain(pooled[form], pooled[BASELINE], fall, resamples=RESAMPLES),
                against[form],
            )
            for form in FORMS
        ),
    ]


def _rho(x: pd.Series[float], y: pd.Series[float]) -> float:
    """Spearman's ρ without an interval."""
    return float(x.rank().corr(y.rank())) if x.nunique() > 1 and y.nunique() > 1 else 0.0


def _pooled(frame: pd.DataFrame) -> pd.DataFrame:
    """One row an example, averaged over seeds, each seed's mean fall taken off."""
    needed = ["example", "seed", "fall", *FORMS, BASELINE]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputError(f"CH-1 needs the column(s) {', '.join(missing)}; see `predicted_and_seen`")
    if frame.duplicated(["example", "seed"]).any():
        twice = frame[frame.duplicated(["example", "seed"])].iloc[0]
        raise InputError(f"example {twice['example']!r} stands twice under seed {twice['seed']}")
    bad = frame[~np.isfinite(frame.select_dtypes("number")).all(axis=1)]
    if len(bad):  # a mean over seeds would leave it out without a word
        raise InputError(f"example {bad.iloc[0]['example']!r} has a number that is not finite")
    centred = frame.assign(fall=frame["fall"] - frame.groupby("seed")["fall"].transform("mean"))
    numbers = centred.drop(columns="seed")
    return numbers.groupby("example").mean(numeric_only=True)


register(
    Claim(
        id="CH-1",
        sentence="The CHES score of a pair, computed before training, predicts how far its chosen "
        "answer's log-prob will fall, better than the edit distance does.",
        source="Razin et al. 2025, arXiv 2410.08847, Definition 2 and §5",
        kind="observation",
        levels=("tiny", "pretrained"),
        counterfactual="scores permuted",
        check=check_ches,
        math="ρ(⟨Σh+, Σh−⟩ − ‖Σh+‖², log π_start(y+) − log π_end(y+)) > 0",
        run="squeeze scan DATA --model MODEL",
    )
)
