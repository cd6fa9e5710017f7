"""Claim DO-5: which tokens fall at a DPO step of a model, against SM-4's threshold rule.

The rule is a theorem about one softmax; in a model, the step also reaches a position through the
network and from other positions. The check asks how much of the rule survives that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from squeeze.claims.catalogue import claim
from squeeze.claims.statistics import (
    crossed_mean,
    verdict_from_interval,
)
from squeeze.claims.types import Level, Verdict
from squeeze.theory.decomposition import UpdateTerm, measured_change, predicted_change
from squeeze.theory.entk import Logits, Parameters
from squeeze.theory.softmax import squeezing_threshold

CHOSEN, REJECTED = "chosen", "rejected"


@dataclass(frozen=True)
class PairStep:
    """A DPO step on one pair, to be seen along its own rejected answer.

    `observed` gives the logits that predict the rejected answer's tokens, `rejected` are those
    tokens; `terms` are the loss's chosen and rejected terms, named so.
    """

    observed: Logits
    rejected: Int[Tensor, " positions"]
    terms: Sequence[UpdateTerm]
    parameters: Parameters


Thresholds = Callable[[Float[Tensor, " positions"]], Float[Tensor, " positions"]]


def _own(thresholds: Float[Tensor, " positions"]) -> Float[Tensor, " positions"]:
    return thresholds


def balanced_agreement(
    rises: Bool[Tensor, "positions vocab"],
    predicted: Bool[Tensor, "positions vocab"],
    counted: Bool[Tensor, "positions vocab"],
) -> Float[Tensor, " positions"]:
    """Balanced accuracy of `predicted` for `rises` at each position, over the `counted` labels.

    The mean of the shares found among the labels that rise and among those that fall, so that a
    rule which says "everything falls" gets ½ however few labels rise. NaN where only one happens.
    """
    up, down = rises & counted, ~rises & counted
    found_up = (predicted & up).sum(-1) / up.sum(-1)
    found_down = (~predicted & down).sum(-1) / down.sum(-1)
    return (found_up + found_down).double() / 2


def pair_agreement(
    step: PairStep, change: Float[Tensor, "positions vocab"], thresholds: Thresholds = _own
) -> tuple[float, float]:
    """Mean balanced agreement of a change of log π with the rule, and with others' thresholds.

    The second number applies to each position the threshold of every other position in turn: what
    a threshold says that knows nothing of this position.
    """
    with torch.no_grad():
        z = step.observed(step.parameters).double()
    pi = torch.softmax(z, dim=-1)
    limit = thresholds(squeezing_threshold(z, step.rejected))
    counted = torch.ones_like(pi, dtype=torch.bool)
    counted[torch.arange(len(pi)), step.rejected] = False
    rises = change > 0

    def agreement(limits: Float[Tensor, " positions"]) -> float:
        return float(balanced_agreement(rises, pi > limits[:, None], counted).nanmean())

    others = [agreement(limit.roll(shift)) for shift in range(1, len(limit))]
    return agreement(limit), float(np.mean(others))


@dataclass(frozen=True)
class TokenSteps:
    """Evidence of DO-5: steps `[seed][pair]`, and the thresholds under test.

    `thresholds` may be replaced by a counterfactual.
    """

    steps: Sequence[Sequence[PairStep]]
    learning_rate: float
    level: Level
    seeds: Sequence[int]
    thresholds: Thresholds = _own


@claim(
    "DO-5",
    sentence="At a DPO step of a real model, SM-4's threshold at each position predicts which "
    "tokens' log-probs fall, better than other positions' thresholds do.",
    source="Ren & Sutherland, arXiv 2407.10490, §3.3; this project's test of it",
    kind="observation",
    levels=("tiny", "pretrained", "gpu"),
    counterfactual="the threshold of another position",
    primary="balanced agreement of the whole step with the threshold rule, less that of other "
    "positions' thresholds",
    math="sign Δ log π_i = sign(π_i − (‖π‖² − π(y−))) for i ≠ y−, beyond a threshold at random",
    run="squeeze observe pretrained --claims DO-5",
)
def check_token_prediction(evidence: TokenSteps) -> list[Verdict]:
    """DO-5: a row for the whole step as measured, one for the rejected term's share by A·K·G.

    The statistic is the balanced agreement of the sign of each token's change of log-prob with the
    threshold rule at its position, less that of other positions' thresholds.
    """
    names = ("the whole step, measured", "the rejected term's share, −ηAKG")
    own: dict[str, list[list[float]]] = {name: [] for name in names}
    gain: dict[str, list[list[float]]] = {name: [] for name in names}
    sizes: dict[str, list[float]] = {CHOSEN: [], REJECTED: []}
    for row in evidence.steps:
        for name in names:
            own[name].append([])
            gain[name].append([])
        for step in row:
            given = (step.observed, step.terms, step.parameters, evidence.learning_rate)
            shares = {
                term.name: share
                for term, share in zip(step.terms, predicted_change(*given), strict=True)
            }
            for part, share in shares.items():
                sizes[part].append(float(share.abs().mean()))
            changes = (measured_change(*given), shares[REJECTED])
            for name, change in zip(names, changes, strict=True):
                right, other = pair_agreement(step, change, evidence.thresholds)
                own[name][-1].append(right)
                gain[name][-1].append(right - other)
    return [
        verdict_from_interval(
            "DO-5",
            evidence.level,
            "balanced agreement with the threshold rule, less that of other positions' thresholds",
            crossed_mean(np.array(gain[name])),
            bound=0.0,
            side="above",
            comparison=name,
            seeds=evidence.seeds,
            role="primary" if name == names[0] else "secondary",
            evidence={
                "balanced agreement": float(np.mean(own[name])),
                "mean |Δ log π| by term, nats": {k: float(np.mean(v)) for k, v in sizes.items()},
            },
        )
        for name in names
    ]
