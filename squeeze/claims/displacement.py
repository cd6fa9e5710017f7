"""Claim CH-1: scores taken before training predict whose chosen answer will lose log-prob.

The check takes what was predicted and what happened; scoring examples is
`squeeze.scan`'s work, training them `squeeze.training`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from squeeze.claims.catalogue import claim, get
from squeeze.claims.curves import Array, change, phase_values
from squeeze.claims.statistics import (
    CONFIDENCE,
    MIN_RANKED,
    Estimate,
    mean,
    rank_correlation,
    rank_correlation_gain,
    verdict_from_interval,
)
from squeeze.claims.types import Level, Verdict
from squeeze.errors import InputError
from squeeze.trajectory import Trajectory

if TYPE_CHECKING:
    from squeeze.scan import ScanRow

FORMS = {"ches": "CHES", "normalised_ches": "normalised CHES"}
BASELINE = "edit_distance"
RESAMPLES = 2000
MIN_PAIRS = 85  # a correlation of 0.3 is told from 0 in 80% of samples of this size


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
    falls = -change(phase_values(trajectory, arm, "dpo", "chosen", split))
    seen = pd.DataFrame({"example": examples, "fall": falls, "seed": seed})
    predicted = pd.DataFrame([asdict(row) for row in rows])
    missing = sorted(set(examples) - set(predicted.get("example", [])))
    if missing:
        raise InputError(
            f"{len(missing)} examples of the run were not scanned, such as {missing[0]!r}"
        )
    return seen.merge(predicted, on="example", validate="one_to_one")


@dataclass(frozen=True)
class Displacement:
    """Evidence of CH-1: what scores predicted and what happened, and two runs on extreme subsets.

    `frame` has a row an example and seed: `example`, `seed`, `fall` (nats), `ches`,
    `normalised_ches`, `edit_distance` (see `predicted_and_seen`; frames of several seeds go
    through `pandas.concat`); other numeric columns are evidence only. `high` and `low` are chosen's
    change over DPO in nats, [seeds, pairs], of the pairs that DPO trained on: those of highest and
    those of lowest CHES; `seeds` are theirs.
    """

    level: Level
    frame: pd.DataFrame | None = None
    high: Array | None = None
    low: Array | None = None
    seeds: tuple[int, ...] = ()


@claim(
    "CH-1",
    sentence="DPO on the pairs with the highest CHES score lowers chosen more than DPO on the "
    "pairs with the lowest; within a run the score ranks whose chosen answer falls.",
    source="Razin et al. 2025, arXiv 2410.08847, Definition 2 and §5",
    kind="observation",
    levels=("tiny", "pretrained"),
    counterfactual="scores permuted",
    primary="chosen's change over DPO on the pairs of highest CHES less that on the lowest, nats",
    math="Δ log π(y+ | high) < Δ log π(y+ | low), CHES = ⟨Σh+, Σh−⟩ − ‖Σh+‖²; ρ(CHES, fall) > 0",
    run="squeeze observe pretrained --claims CH-1",
)
def check_ches(evidence: Displacement) -> list[Verdict]:
    """CH-1: the contrast of the two subsets decides; rank correlations are secondary."""
    rows = [_subsets(evidence)]
    return rows if evidence.frame is None else [*rows, *_ranks(evidence.frame, evidence.level)]


def _subsets(evidence: Displacement) -> Verdict:
    """Chosen's change on the high pairs less that on the low: their prompts differ, so a number a
    seed."""
    statistic, name = get("CH-1").primary, "highest against lowest scores"
    high, low = evidence.high, evidence.low
    if high is None or low is None:
        reason = "the arms trained on the pairs of highest and of lowest score were not run"
        return Verdict(
            "CH-1", evidence.level, "not run", statistic, comparison=name, reason=reason,
            side="below",
        )  # fmt: skip
    by_seed = high.mean(axis=1) - low.mean(axis=1)
    n = high.shape[1] + low.shape[1]
    if len(by_seed) > 1:
        estimate = replace(
            mean(by_seed), n=n, seeds=len(by_seed), seed_means=tuple(by_seed.tolist())
        )
    else:  # one seed: Welch's interval over its prompts
        welch = stats.ttest_ind(high[0], low[0], equal_var=False)
        ends = welch.confidence_interval(CONFIDENCE)
        interval = float(ends.low), float(ends.high)
        estimate = Estimate(float(by_seed[0]), interval, n, "Welch's t", p_value=welch.pvalue)
    return verdict_from_interval(
        "CH-1", evidence.level, statistic, estimate, side="below", comparison=name,
        seeds=evidence.seeds,
    )  # fmt: skip


def _ranks(frame: pd.DataFrame, level: Level) -> list[Verdict]:
    """Spearman's ρ of each form of CHES with the fall of chosen, and its gain on edit distance.

    An example that several seeds trained on counts once: its falls, each less its seed's mean fall
    (seeds differ in how far they went, which says nothing of examples), are averaged, and so are
    its scores. Examples are resampled; the interval holds for other examples trained with these
    seeds. Inconclusive below `MIN_PAIRS` examples, "not run" below five. Raises `InputError` for a
    column that is missing or not finite.
    """
    pooled = _pooled(frame)
    seeds = tuple(sorted({int(seed) for seed in frame["seed"]}))
    against = {form: f"{name} against edit distance" for form, name in FORMS.items()}
    rho, gain = "Spearman's ρ with the fall of chosen", "ρ less |ρ| of edit distance"
    if len(pooled) < MIN_RANKED:
        reason = f"needs at least {MIN_RANKED} examples, but there are {len(pooled)}; raise --pairs"
        names = [(text, rho) for text in FORMS.values()] + [(t, gain) for t in against.values()]
        return [
            Verdict("CH-1", level, "not run", what, seeds=seeds, comparison=text, reason=reason,
                    role="secondary", side="above")
            for text, what in names
        ]  # fmt: skip
    fall = pooled["fall"]
    others = {
        name: _rho(pooled[name].to_numpy(), fall.to_numpy())
        for name in pooled.columns
        if name not in {"fall", *FORMS}
    }
    evidence = {"resampled": "examples", "rows": len(frame), "ρ of other predictors": others}

    def row(what: str, estimate: Estimate, comparison: str) -> Verdict:
        made = verdict_from_interval(
            *("CH-1", level, what, estimate),
            comparison=comparison,
            seeds=seeds,
            evidence=evidence,
            role="secondary",
        )
        if made.ran and len(pooled) < MIN_PAIRS:
            reason = f"{len(pooled)} examples: a correlation of 0.3 needs {MIN_PAIRS}"
            return replace(made, outcome="inconclusive", reason=reason)
        return made

    rows = [
        row(rho, rank_correlation(pooled[form], fall, resamples=RESAMPLES), name)
        for form, name in FORMS.items()
    ]
    for form, name in against.items():
        given = (pooled[form], pooled[BASELINE], fall)
        rows.append(row(gain, rank_correlation_gain(*given, resamples=RESAMPLES), name))
    return rows


def _rho(x: Array, y: Array) -> float:
    """Spearman's ρ without an interval."""
    return float(stats.spearmanr(x, y).statistic) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0


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
