"""Claims LD-1, 2, 3 and 5 on the decomposition of one step, Δ log π = −η A K G, and their checks.

LD-4 (the residuals of each loss) is in `preference`. The systems to check are the caller's: models,
data and the predictor itself, so that a counterfactual goes through the very same check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from squeeze.claims.catalogue import claim, get
from squeeze.claims.statistics import (
    CONFIDENCE,
    Estimate,
    crossed_mean,
    mean,
    verdict_from_interval,
)
from squeeze.claims.types import Verdict
from squeeze.theory.decomposition import (
    UpdateTerm,
    adjustment_matrix,
    adjustment_norm_squared,
    measured_change,
    predicted_change,
    predicted_change_dense,
    relative_error,
)
from squeeze.theory.entk import Logits, Parameters

PAPER = "Ren & Sutherland, arXiv 2407.10490"

Predictor = Callable[[Logits, Sequence[UpdateTerm], Parameters, float], Tensor]
"""What is under test: the arguments of `predicted_change`, and its result."""


@dataclass(frozen=True)
class System:
    """A model observed at one input while a step on `terms` moves its weights."""

    name: str
    observed: Logits
    terms: Sequence[UpdateTerm]
    parameters: Parameters
    seed: int = 0


@dataclass(frozen=True)
class Predictions:
    """Evidence of LD-1 and LD-3: systems, and the predictor of a step that is under test.

    With a `learning_rate` the error of real models at that one step size is judged instead of the
    slope. `causal` are LD-3's (system, the same with later tokens replaced, positions before).
    """

    systems: Sequence[System] = ()
    predictor: Predictor | None = None
    learning_rate: float | None = None
    causal: tuple[System, System, int] | None = None


@dataclass(frozen=True)
class Adjustment:
    """Evidence of LD-2: logits, and the matrix A and the norm that are under test."""

    logits: Sequence[Float[Tensor, " _"]]
    matrix: Callable[[Tensor], Tensor] = adjustment_matrix
    norm_squared: Callable[[Tensor], Tensor] = adjustment_norm_squared


# LD-1's window of step sizes, one rule for every system: the largest |Δ log π| of the real step
# runs from 1e-5 to 1e-3 nats. The second-order error, about Δ², then runs from 1e-10 to 1e-6: never
# less than 1e4 times the rounding of a float64 log-prob of a few nats, and the third-order part,
# about Δ of it, bends the slope by less than 0.01.
LARGEST_CHANGE = 1e-3
DECADES = 2
STEPS = 5
SLOPE_TOLERANCE = 0.1

# LD-1 on a real LM, at a step that moves log-probs by tenths of nats: settled on development seeds,
# where the error was 1 to 2%.
MODEL_ERROR_BOUND = 0.1


@claim(
    "LD-1",
    sentence="The error of the first-order prediction of a step's Δ log π falls as η².",
    source=f"{PAPER}, Prop. 1",
    kind="theorem",
    levels=("toy", "pretrained"),
    counterfactual="A dropped; K of the wrong pair; G's sign flipped",
    primary="log-log slope of the error in η; on a real LM the relative error",
    math="Δ log π(·|x_o) = −η A(x_o) K(x_o, x_u) G(x_u) + O(η²); log-log slope 2 ± 0.1",
    run="pytest tests/theory/test_decomposition.py -k LD_1",
)
def check_first_order(evidence: Predictions) -> list[Verdict]:
    """LD-1: fit, for each system, the log-log slope of the prediction's error over two decades.

    "Supported" if the slope's 95% interval lies within 2 ± 0.1.
    """
    predictor = evidence.predictor or predicted_change
    if evidence.learning_rate is not None:
        return [_model_error(evidence.systems, evidence.learning_rate, predictor)]
    return [_slope_verdict("LD-1", s, predictor, s.name) for s in evidence.systems]


def _model_error(systems: Sequence[System], learning_rate: float, predictor: Predictor) -> Verdict:
    """LD-1 on a real LM: the mean of ‖predicted − measured‖/‖measured‖ over systems, at one η.

    "Supported" if its 95% interval lies below `MODEL_ERROR_BOUND`.
    """
    errors = []
    for system in systems:
        given = (system.observed, system.terms, system.parameters, learning_rate)
        errors.append(relative_error(predictor(*given), measured_change(*given)))
    return verdict_from_interval(
        "LD-1",
        "pretrained",
        "relative error of -η A K G for Δ log π",
        mean(errors),
        bound=MODEL_ERROR_BOUND,
        side="below",
        seeds=tuple(sorted({system.seed for system in systems})),
        min_seeds=1,
        evidence={"learning rate": learning_rate, "errors": errors},
    )


@claim(
    "LD-2",
    sentence="A's rows sum to 0 and its norm shows peakiness: ‖A‖_F² = V‖π‖² + V − 2.",
    source=f"{PAPER}, Prop. 1 and §2",
    kind="theorem",
    levels=("toy",),
    counterfactual="A transposed; the norm without its −2",
    primary="largest violation, in units of its rounding bound",
    math="A = I − 1πᵀ, A 1 = 0, ‖A‖_F² = V‖π‖² + V − 2",
    run="pytest tests/theory/test_decomposition.py -k LD_2",
)
def check_adjustment(evidence: Adjustment) -> Verdict:
    """LD-2: the largest violation of A 1 = 0 and ‖A‖_F² = V‖π‖² + V − 2, in rounding bounds.

    The bounds are first-order forward error bounds (Higham 2002, §3–4) with u = eps/2: a row sum
    adds V terms of total size ≤ 2 and Σπ is 1 within (V + 2)u, so 4(V + 2)u; the dense norm adds
    V² squares, the formula V, and 2Σπ stands for 2 while ‖A‖² ≥ V − 1: together (V² + 6V + 16)u.
    """
    worst = 0.0
    for z in evidence.logits:
        pi = torch.softmax(z, dim=-1)
        n_labels, unit = len(z), torch.finfo(z.dtype).eps / 2
        dense = evidence.matrix(pi)
        row_sums = dense.sum(dim=-1).abs().max().item() / (4 * (n_labels + 2) * unit)
        claimed = evidence.norm_squared(pi).item()
        relative = abs(dense.square().sum().item() / claimed - 1)
        worst = max(worst, row_sums, relative / ((n_labels**2 + 6 * n_labels + 16) * unit))
    return Verdict(
        claim="LD-2",
        level="toy",
        outcome="supported" if worst <= 1 else "contradicted",
        statistic=get("LD-2").primary,
        effect=worst,
        bound=1.0,
        n=len(evidence.logits),
    )


@claim(
    "LD-3",
    sentence="For a teacher-forced sequence the change at position m sums over the update's "
    "positions, and later observed tokens leave earlier positions untouched.",
    source=f"{PAPER}, Eq. 5",
    kind="theorem",
    levels=("toy",),
    counterfactual="update positions shuffled; attention without the causal mask",
    primary="log-log slope of the error in η",
    math="Δ log π_m = −η Σ_l A_m K_ml G_l + O(η²)",
    run="pytest tests/theory/test_decomposition.py -k LD_3",
)
def check_sum_over_positions(evidence: Predictions) -> list[Verdict]:
    """LD-3: Σ_l A_m K_ml G_l, formed block by block, predicts a step on sequences to O(η²).

    The statistic and its bound are LD-1's; `causal` adds a row on later observed tokens.
    """
    predictor = evidence.predictor or predicted_change_dense
    rows = [
        _slope_verdict("LD-3", system, predictor, f"sum over positions, {system.name}")
        for system in evidence.systems
    ]
    return rows if evidence.causal is None else [*rows, _causality(*evidence.causal)]


def _causality(system: System, altered: System, n_same: int) -> Verdict:
    """The first `n_same` observed positions change alike whatever tokens follow them.

    `altered` is `system` with later tokens of the observed sequence replaced. The statistic is the
    largest difference of their changes (predicted and measured) at those positions, relative to
    the largest change. Each is a sum over the weights, whose order the later tokens do not alter
    but whose kernels may: hence the bound of n_weights · eps instead of 0.
    """
    worst = 0.0
    for change in (predicted_change, _measured_as_one_term):
        ours, theirs = (
            change(s.observed, s.terms, s.parameters, LARGEST_CHANGE)[:, :n_same]
            for s in (system, altered)
        )
        worst = max(worst, ((ours - theirs).abs().max() / ours.abs().max()).item())
    n_weights = sum(weight.numel() for weight in system.parameters.values())
    dtype = next(iter(system.parameters.values())).dtype
    bound = n_weights * torch.finfo(dtype).eps
    return Verdict(
        claim="LD-3",
        level="toy",
        outcome="supported" if worst <= bound else "contradicted",
        statistic="largest effect of later tokens on earlier positions, relative",
        effect=worst,
        bound=bound,
        n=n_same,
        seeds=(system.seed,),
        comparison=f"causal masking, {system.name}",
    )


FOURS = "probability: 4s above 9s"
RANKS = "rank correlation of ‖K‖ and the gain"


@dataclass(frozen=True)
class DigitInfluence:
    """What updates on 4s did to other images' 4; every seed sees the same updates and images.

    `probability`, `logp` and `kernel` hold, by observed class (4, 9, 0), arrays [seeds, images]:
    the change of the 4's probability and of its log-probability (nats), and ‖K‖_F, as means over
    the updates. Every class has as many images. `rank_correlation` [seeds, updates] is Spearman's
    ρ of ‖K‖_F and the change of probability over all observed images.
    """

    seeds: tuple[int, ...]
    probability: Mapping[int, NDArray[np.float64]]
    logp: Mapping[int, NDArray[np.float64]]
    kernel: Mapping[int, NDArray[np.float64]]
    rank_correlation: NDArray[np.float64]


@claim(
    "LD-5",
    sentence="On digits, one update on a 4 raises the 4-probability of other 4s most, of 9s "
    "more than of 0s, and the ordering follows ‖K‖.",
    source=f"{PAPER}, Fig. 1–2",
    kind="observation",
    levels=("toy",),
    counterfactual="labels permuted; ‖K‖ of another image",
    primary="change of the 4-probability, of 4s less 9s",
    math="Δπ(4|x_o) against ‖K(x_o, x_u)‖_F",
    run="pytest tests/theory/test_digits.py",
)
def check_similarity(influence: DigitInfluence) -> list[Verdict]:
    """LD-5: 4s gain more than 9s, 9s more than 0s, ‖K‖ is ordered so too, and the gain follows ‖K‖.

    One row a contrast, its 95% interval against 0: over seeds and observed
    images (the i-th of one class against the i-th of the other), over seeds and updates for ρ.
    """
    estimates = {
        f"{name}: {more}s above {less}s": crossed_mean(values[more] - values[less])
        for name, values in (("probability", influence.probability), ("‖K‖", influence.kernel))
        for more, less in ((4, 9), (9, 0))
    }
    correlation = influence.rank_correlation
    estimates[RANKS] = crossed_mean(correlation)
    evidence = {
        f"mean {name} by class": {label: float(values[label].mean()) for label in values}
        for name, values in (
            ("gain in probability", influence.probability),
            ("gain in log-probability", influence.logp),
            ("‖K‖", influence.kernel),
        )
    }
    return [
        verdict_from_interval(
            "LD-5",
            "toy",
            "Spearman's ρ" if estimate is estimates[RANKS] else "difference of class means",
            estimate,
            bound=0.0,
            comparison=comparison,
            role="primary" if comparison == FOURS else "secondary",
            seeds=influence.seeds,
            evidence=evidence,
        )
        for comparison, estimate in estimates.items()
    ]


def _slope_verdict(id: str, system: System, predictor: Predictor, comparison: str) -> Verdict:
    given = (system.observed, system.terms, system.parameters)
    return slope_verdict(
        id,
        "log-log slope of the error of -η A K G",
        lambda eta: measured_change(*given, eta),
        lambda eta: predictor(*given, eta).sum(dim=0),
        comparison,
        seeds=(system.seed,),
    )


def slope_verdict(
    id: str,
    statistic: str,
    measured: Callable[[float], Tensor],
    predicted: Callable[[float], Tensor],
    comparison: str,
    *,
    seeds: Sequence[int] = (),
) -> Verdict:
    """Fit the log-log slope, over LD-1's window of steps, of the error of a first-order prediction.

    Both functions take the step size to a change in nats. "Supported" if the slope's 95% interval
    lies within 2 ± 0.1.
    """
    tiny = 1e-8
    rate = measured(tiny).abs().max().item() / tiny
    rates = np.logspace(-DECADES, 0, STEPS) * LARGEST_CHANGE / rate
    errors = []
    for eta in rates.tolist():
        errors.append(torch.linalg.vector_norm(predicted(eta) - measured(eta)).item())
    fit = stats.linregress(np.log(rates), np.log(errors))
    slope = float(fit.slope)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, STEPS - 2) * fit.stderr)
    return verdict_from_interval(
        id,
        "toy",
        statistic,
        Estimate(slope, (slope - half, slope + half), STEPS, "least squares"),
        bound=2.0,
        side="within",
        tolerance=SLOPE_TOLERANCE,
        comparison=comparison,
        seeds=seeds,
        min_seeds=0,
        evidence={"learning rates": rates.tolist(), "errors": errors},
    )


def _measured_as_one_term(
    observed: Logits, terms: Sequence[UpdateTerm], parameters: Parameters, learning_rate: float
) -> Tensor:
    return measured_change(observed, terms, parameters, learning_rate)[None]
