"""Claims GR-2 and NS-1, and GR-1 on trained models: what wrong answers do in group-relative steps.

The checks take what was measured, a question or a step a number; sampling and stepping through
TRL's trainer is `squeeze.study.group_relative`'s work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import FiniteFloat
from scipy import stats

from squeeze.claims.catalogue import claim
from squeeze.claims.statistics import verdict_over_seeds
from squeeze.claims.types import CONTRAST, Level, Role, Verdict

LAST = 4  # steps at the end of a training whose entropy is averaged
SHARE = "share of questions whose right answers gain more than by the full step, less 1/2"
RHO = "minus Spearman's rho of a question's GWHES and its right answers' change by the full step"
GAIN = "minus Spearman's rho of GWHES, less |rho| of the number of right answers"
ENTROPY = "entropy at the end, wrong answers alone less right ones alone, nats a token"


@dataclass(frozen=True)
class OneStep:
    """A question's step: the mean change of log π of its sampled right answers, nats an answer.

    `full` for the group's step, `masked` with the wrong answers' advantages 0, `blind` with as
    many answers' advantages 0, drawn without regard to the reward; `score` is the right answers'
    mean GWHES.
    """

    question: int
    n_right: int
    full: FiniteFloat
    masked: FiniteFloat
    blind: FiniteFloat
    score: FiniteFloat


@dataclass(frozen=True)
class GroupSteps:
    """Evidence of GR-1 and GR-2 on a trained model: the steps of each seed's questions.

    Only questions whose group has right and wrong answers are there. `bare` are the same questions
    without the claim's cause: of GR-1 with the blind mask in the mask's place, of GR-2 with the
    scores of other questions.
    """

    steps: Sequence[Sequence[OneStep]]
    level: Level
    seeds: Sequence[int]
    bare: Sequence[Sequence[OneStep]] | None = None
    model: str = ""
    exploratory: bool = False

    def without_cause(self) -> GroupSteps:
        """The counterfactual's steps as evidence of their own."""
        assert self.bare is not None
        return replace(self, steps=self.bare, bare=None)


def blindly(steps: Sequence[OneStep]) -> list[OneStep]:
    """GR-1's counterfactual: the mask falls on as many answers, whatever their reward."""
    return [replace(step, masked=step.blind) for step in steps]


def rescored(steps: Sequence[OneStep], seed: int) -> list[OneStep]:
    """GR-2's counterfactual: every question has the score of another one, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(steps))
    return [replace(step, score=steps[i].score) for step, i in zip(steps, order, strict=True)]


def check_masking(given: GroupSteps) -> list[Verdict]:
    """GR-1's rows on a trained model: the masked step against the full one, and the contrast."""

    def gain(steps: Sequence[OneStep]) -> float:
        return float(np.mean([step.masked > step.full for step in steps])) - 0.5

    falls = [float(np.mean([s.full < 0 for s in steps])) for steps in given.steps]
    evidence = {
        "share of questions whose right answers fall by the full step": float(np.mean(falls)),
        "questions": [len(steps) for steps in given.steps],
    }
    return _rows("GR-1", given, SHARE, gain, "wrong answers masked", evidence)


@claim(
    "GR-2",
    sentence="The group-weighted hidden embedding score, taken before a group's step, tells the "
    "questions whose right answers gain least, above chance.",
    source="Deng et al. 2025, arXiv 2505.18830v1, Eq. 5 and Table 1 (overlap of the first 10 and "
    "15 of 57 and of 47 questions; here the rank correlation of all); read in full but for the "
    "typeset formulas",
    kind="observation",
    levels=("tiny", "pretrained"),
    counterfactual="the scores of other questions",
    primary=RHO,
    math="ρ(GWHES, Δ log π(y+)) < 0, GWHES = p⁻Σ_{wrong}⟨e − π, e' − π'⟩⟨h, h'⟩ − p⁺Σ_{right}…, a "
    "question's mean over its right answers",
    run="squeeze observe tiny --claims GR-2",
)
def check_score(given: GroupSteps) -> list[Verdict]:
    """GR-2: the rank correlation decides; whether it beats the group's make-up is secondary."""

    def gain(steps: Sequence[OneStep]) -> float:
        make_up = _rho([float(step.n_right) for step in steps], steps)
        return _rho([step.score for step in steps], steps) - abs(make_up)

    rows = _rows("GR-2", given, RHO, lambda s: _rho([x.score for x in s], s), "GWHES")
    name = "GWHES against the group's make-up"
    more = _row("GR-2", given, GAIN, [gain(s) for s in given.steps], name, "secondary")
    return [*rows, more]


def _rho(predictor: Sequence[float], steps: Sequence[OneStep]) -> float:
    """−ρ of a predictor and the change by the full step."""
    changes = [step.full for step in steps]
    if len(set(predictor)) < 2 or len(set(changes)) < 2:  # a constant shows no association
        return 0.0
    return -float(stats.spearmanr(predictor, changes).statistic)


@dataclass(frozen=True)
class SignedTrainings:
    """Evidence of NS-1: entropy of the policy's own answers, nats a token, [seed][step] by sign.

    `entropy` of trainings on wrong answers alone ("negative") and on right ones alone ("positive"),
    `bare` of the same with the advantages of other answers, `reward` the mean reward by step.
    """

    entropy: Mapping[str, Sequence[Sequence[float]]]
    level: Level
    seeds: Sequence[int]
    bare: Mapping[str, Sequence[Sequence[float]]] | None = None
    reward: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    model: str = ""
    exploratory: bool = False

    def without_cause(self) -> SignedTrainings:
        """The counterfactual's trainings as evidence of their own."""
        assert self.bare is not None
        return replace(self, entropy=self.bare, bare=None, reward={})


@claim(
    "NS-1",
    sentence="On-policy training on the wrong answers alone keeps the policy's entropy higher than "
    "training on the right ones alone.",
    source="Zhu et al. 2025, arXiv 2506.01347v2, Fig. 5 (entropy on held-out questions, rewards of "
    "±1 without a group's mean; here of the rollouts, with it); read in its abstract and in "
    "others' notes on it",
    kind="observation",
    levels=("tiny",),
    counterfactual="advantages permuted among the answers of a batch",
    primary=ENTROPY,
    math="H(π after min(A, 0)) − H(π after max(A, 0)) > 0, equal steps; ΣA = 0 in each group, so "
    "that both signs have the same weight",
    run="squeeze observe tiny --claims NS-1",
)
def check_negative_samples(given: SignedTrainings) -> list[Verdict]:
    """NS-1: the mean entropy over the last steps, one sign less the other, and the contrast."""

    def end(series: Sequence[float]) -> float:
        return float(np.mean(series[-LAST:]))

    def gaps(entropy: Mapping[str, Sequence[Sequence[float]]]) -> list[float]:
        pairs = zip(entropy["negative"], entropy["positive"], strict=True)
        return [end(negative) - end(positive) for negative, positive in pairs]

    evidence: dict[str, Any] = {
        f"entropy at the {place}, {sign}": float(np.mean([values[i] for values in rows]))
        for sign, rows in given.entropy.items()
        for place, i in (("start", 0), ("end", -1))
    }
    evidence |= {
        f"reward at the end, {sign}": float(np.mean([end(values) for values in rows]))
        for sign, rows in given.reward.items()
    }
    own, name = gaps(given.entropy), "wrong against right answers"
    rows = [_row("NS-1", given, ENTROPY, own, name, "primary", evidence)]
    if given.bare is not None:
        less = [a - b for a, b in zip(own, gaps(given.bare), strict=True)]
        name += ", less after permuted advantages"
        rows.append(_row("NS-1", given, ENTROPY + CONTRAST, less, name, "secondary"))
    return rows


def _rows(
    claim: str,
    given: GroupSteps,
    statistic: str,
    of: Callable[[Sequence[OneStep]], float],
    name: str,
    evidence: Mapping[str, Any] | None = None,
) -> list[Verdict]:
    """The primary row, and where there is a counterfactual the contrast with it."""
    own = [of(steps) for steps in given.steps]
    rows = [_row(claim, given, statistic, own, name, "primary", evidence)]
    if given.bare is not None:
        less = [a - of(bare) for a, bare in zip(own, given.bare, strict=True)]
        name += ", less the counterfactual"
        rows.append(_row(claim, given, statistic + CONTRAST, less, name, "secondary"))
    return rows


def _row(
    claim: str,
    given: GroupSteps | SignedTrainings,
    statistic: str,
    by_seed: Sequence[float],
    name: str,
    role: Role,
    evidence: Mapping[str, Any] | None = None,
) -> Verdict:
    """One number a seed, all said to lie above 0: Student's t over seeds."""
    row = verdict_over_seeds(
        claim, given.level, statistic, by_seed, seeds=given.seeds, comparison=name, role=role,
        evidence=evidence,
    )  # fmt: skip
    if not row.ran:
        return row
    n = sum(map(len, given.steps)) if isinstance(given, GroupSteps) else row.n
    return replace(row, n=n, model=given.model, exploratory=given.exploratory)
