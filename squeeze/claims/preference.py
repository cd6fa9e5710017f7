"""Claims DP-1, DP-2, DP-3 and LD-4: what preference losses are worth at the start, how they push.

A check compares numbers it is handed, or computes with functions it is handed; where the numbers
come from (closed form, TRL's trainer, a toy Llama, a perturbed formula) is the caller's. The effect
is always the largest error met, the bound is stated and derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.claims.catalogue import claim, get
from squeeze.claims.types import Level, Verdict
from squeeze.losses.types import LossFunction, ResidualFunction
from squeeze.theory.logps import PairLogps
from squeeze.theory.residuals import logit_residual

TESTS = "pytest tests/losses/test_claims.py -k"

FORMULA_BOUND = 1e-9
FLOAT64_BOUND = 1e-12
# Where a float64 value is subnormal (below 2.2e-308) its relative precision is gone.
SUBNORMAL = 1e-300
# Central differences of step h err by h²L'''/6 + εL/h; with h = 1e-4, losses below 1e4 and third
# derivatives of order 1 both are below 1e-7, relative to 1 + |L|.
DIFFERENCE_STEP = 1e-4
DIFFERENCE_BOUND = 1e-6


@dataclass(frozen=True)
class InitValue:
    """A loss's measured values at policy = reference, any shape, and its closed form."""

    loss: str
    expected: float
    measured: Float[Tensor, "*shape"]


@dataclass(frozen=True)
class ResidualCase:
    """One loss, its residual formula (None: finite differences stand in), and one input."""

    loss: str
    function: LossFunction
    residual: ResidualFunction | None
    logps: PairLogps
    hyper: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LogitCase:
    """A residual case whose sequence log-probs come from logits: one pair of sequences."""

    case: ResidualCase
    chosen_logits: Float[Tensor, "chosen_tokens vocab"]
    chosen_target: Int[Tensor, " chosen_tokens"]
    rejected_logits: Float[Tensor, "rejected_tokens vocab"]
    rejected_target: Int[Tensor, " rejected_tokens"]


@dataclass(frozen=True)
class Measured:
    """A scalar loss and its gradient with respect to some inputs, flattened."""

    value: Float[Tensor, ""]
    gradient: Float[Tensor, " inputs"]


@dataclass(frozen=True)
class Values:
    """Evidence of DP-1: measured values at policy = reference, and the error allowed."""

    values: Iterable[InitValue]
    level: Level = "toy"
    bound: float = FLOAT64_BOUND


@dataclass(frozen=True)
class Residuals:
    """Evidence of LD-4: formulas with inputs, on the sequence log-probs and on the logits."""

    on_logps: Iterable[ResidualCase] | None = None
    on_logits: Iterable[LogitCase] | None = None


@dataclass(frozen=True)
class Gradient:
    """Evidence of DP-2: a loss, and a model's (s+, s−) as functions of its parameters.

    `logits_of(parameters)` returns the policy's (s+, s−), each [batch]; `reference` has the
    reference's beside each of `parameters`.
    """

    loss: LossFunction
    logits_of: Callable[[Tensor], tuple[Tensor, Tensor]]
    parameters: Sequence[Tensor]
    reference: Sequence[tuple[Tensor, Tensor]]
    beta: float


@dataclass(frozen=True)
class PromptConstant:
    """Evidence of DP-2: a loss, inputs, how a prompt-only constant is added to their rewards."""

    loss: LossFunction
    shifted: Callable[[PairLogps], PairLogps]
    cases: Sequence[PairLogps]
    beta: float


@dataclass(frozen=True)
class Agreement:
    """Evidence of DP-3: (loss_type, ours, TRL's) for each loss, and the error allowed.

    For float32 models the caller states the bound.
    """

    pairs: Iterable[tuple[str, Measured, Measured]]
    level: Level = "toy"
    bound: float = FLOAT64_BOUND


@claim(
    "DP-1",
    sentence="When the policy is the reference, every loss has its closed-form value, whatever "
    "β, the data and the model (DPO: ln 2 = 0.6931).",
    source="Rafailov et al. 2023, arXiv 2305.18290, Eq. 7 with π = π_ref",
    kind="theorem",
    levels=("toy", "tiny"),
    counterfactual="the reference perturbed",
    primary="largest relative error of the value",
    math="Δ± = 0 ⇒ DPO, cDPO, robust, SPIN, DPOP, DPO-Shift: ln 2; IPO: 1/(4τ²); hinge: 1; "
    "SPPO: 1/(2β²); Cal-DPO: ln 2 + 1/(2β²); KTO: (λ_D + λ_U)/4",
    run=f"{TESTS} init",
)
def check_init_value(evidence: Values) -> Verdict:
    """DP-1: every measured value is the closed form; the effect is the largest relative error.

    The log-ratios are exactly 0 there, so a handful of roundings is all that may differ: 1e-12 in
    float64 leaves room for the conditioning 1/(1 − 2ε) of robust DPO.
    """
    worst: dict[str, float] = {}
    n = 0
    for value in evidence.values:
        error = (value.measured.double() - value.expected).abs().max().item() / abs(value.expected)
        _note(worst, value.loss, error)
        n += value.measured.numel()
    return _verdict("DP-1", evidence.level, get("DP-1").primary, worst, evidence.bound, n)


@claim(
    "LD-4",
    sentence="Every preference loss's gradient with respect to the sequence log-probs, and to "
    "the logits, is its formula.",
    source="Ren & Sutherland, arXiv 2407.10490, Prop. 1 and appendix B; each loss's own paper",
    kind="theorem",
    levels=("toy",),
    counterfactual="the formula's constants off by 1%",
    primary="largest relative error of ∂L/∂s± and of ∂L/∂z, autograd against formula",
    math="G = ∂L/∂s± · (e_y − π), with ∂L/∂s± as in squeeze.theory.residuals",
    run=f"{TESTS} residual",
)
def check_residuals(evidence: Residuals) -> list[Verdict]:
    """LD-4: autograd's gradient is the formula's, a row on log-probs and one on logits."""
    rows = []
    if evidence.on_logps is not None:
        rows.append(_residuals_of_logps(evidence.on_logps))
    if evidence.on_logits is not None:
        rows.append(_residuals_of_logits(evidence.on_logits))
    return rows


def _residuals_of_logps(cases: Iterable[ResidualCase]) -> Verdict:
    """LD-4: autograd's ∂L/∂s± is the formula's, for every case; the largest relative error.

    Relative to the pair's larger residual. A loss without a formula is compared with central
    differences instead, with their own bound; its error is rescaled to the common one.
    """
    worst: dict[str, float] = {}
    n = 0
    for case in cases:
        automatic = autograd_residual(case)
        if case.residual is None:
            scale = 1 + case.function(case.logps, **case.hyper).abs().max()
            error = (automatic - _differences(case)).abs().max() / scale
            error = error * (FORMULA_BOUND / DIFFERENCE_BOUND)
        else:
            error = _relative(
                automatic, torch.stack(case.residual(case.logps, **case.hyper)), dim=0
            )
        _note(worst, case.loss, error.item())
        n += len(case.logps.chosen)
    statistic = "largest relative error of ∂L/∂s±, autograd against formula"
    return _verdict("LD-4", "toy", statistic, worst, FORMULA_BOUND, n)


def _residuals_of_logits(cases: Iterable[LogitCase]) -> Verdict:
    """LD-4: autograd's ∂L/∂z is ∂L/∂s · (e_y − π) at every response position, both responses."""
    worst: dict[str, float] = {}
    n = 0
    for item in cases:
        case = item.case
        logits = [
            z.detach().clone().requires_grad_() for z in (item.chosen_logits, item.rejected_logits)
        ]
        targets = (item.chosen_target, item.rejected_target)
        sums = [
            z.log_softmax(-1).gather(-1, y[:, None]).sum()[None]
            for z, y in zip(logits, targets, strict=True)
        ]
        logps = replace(case.logps, chosen=sums[0], rejected=sums[1])
        automatic = torch.autograd.grad(
            case.function(logps, **case.hyper).sum(), logits, materialize_grads=True
        )
        weights = (
            autograd_residual(replace(case, logps=logps))
            if case.residual is None
            else torch.stack(case.residual(logps, **case.hyper))
        ).detach()
        for z, y, weight, grad in zip(logits, targets, weights, automatic, strict=True):
            g = logit_residual(z.detach(), y, weight[0])
            error = _relative(grad.flatten(), g.flatten(), dim=0).item()
            _note(worst, case.loss, error)
            n += len(y)
    statistic = "largest relative error of ∂L/∂z, autograd against ∂L/∂s·(e_y − π)"
    return _verdict("LD-4", "toy", statistic, worst, FORMULA_BOUND, n, "on the logits")


@claim(
    "DP-2",
    sentence="DPO's gradient is −β(1 − a)(∇s+ − ∇s−), and a reward that depends on the prompt "
    "alone changes nothing.",
    source="Rafailov et al. 2023, arXiv 2305.18290, §4 and Lemma 1",
    kind="theorem",
    levels=("toy",),
    counterfactual="β off by 1% in the loss; the constant added to the chosen reward only",
    primary="largest relative error of ∇L; largest change of L under a prompt-only constant",
    math="∇L = −β(1 − a)(∇s+ − ∇s−), a = σ(βm); r(x, y) + c(x) gives the same L",
    run=f"{TESTS} gradient",
)
def check_gradient(evidence: Gradient | PromptConstant) -> Verdict:
    """DP-2: ∇L is its closed form, or a prompt-only constant in the rewards changes nothing."""
    if isinstance(evidence, Gradient):
        return _gradient_identity(evidence)
    return _prompt_constant(evidence)


def _gradient_identity(evidence: Gradient) -> Verdict:
    """∇L = −β(1 − a)(∇s+ − ∇s−) with respect to a model's parameters.

    ∇L comes from autograd through the loss, the right-hand side from ∇s± alone and a = σ(βm).
    """
    beta = evidence.beta
    worst: dict[str, float] = {}
    for start, (ref_chosen, ref_rejected) in zip(
        evidence.parameters, evidence.reference, strict=True
    ):
        theta = start.detach().clone().requires_grad_()
        chosen, rejected = evidence.logits_of(theta)
        logps = PairLogps(chosen, rejected, ref_chosen, ref_rejected)
        losses = evidence.loss(logps, beta=beta)
        (left,) = torch.autograd.grad(losses.sum(), theta, retain_graph=True)
        weight = beta * torch.sigmoid(-beta * logps.margin).detach()
        terms = [
            torch.autograd.grad(s, theta, grad_outputs=weight, retain_graph=True)[0]
            for s in (chosen, rejected)
        ]
        right = -(terms[0] - terms[1])
        _note(worst, "sigmoid", _relative(left.flatten(), right.flatten(), dim=0).item())
    return _verdict(
        "DP-2",
        "toy",
        "largest relative error of ∇L against −β(1 − a)(∇s+ − ∇s−)",
        worst,
        FORMULA_BOUND,
        len(evidence.parameters),
        "gradient identity",
    )


def _prompt_constant(evidence: PromptConstant) -> Verdict:
    """Adding a constant that depends on the prompt alone to both rewards changes nothing.

    The loss is β-Lipschitz in the margin, and the shift rounds the four
    log-probs and three differences by at most ε/2 of the largest of them each, so a change beyond
    8·β·ε·max|s| is more than rounding; the effect is the change in units of that.
    """
    worst: dict[str, float] = {}
    beta = evidence.beta
    for logps in evidence.cases:
        moved = evidence.shifted(logps)
        size = max(
            logp.abs().max().item()
            for each in (logps, moved)
            for logp in (each.chosen, each.rejected, each.ref_chosen, each.ref_rejected)
            if logp is not None
        )
        before, after = (evidence.loss(each, beta=beta) for each in (logps, moved))
        # and the rounding of the loss itself
        epsilon = torch.finfo(before.dtype).eps
        allowed = 8 * epsilon * (beta * size + before.abs().max().item())
        _note(worst, "sigmoid", (after - before).abs().max().item() / allowed)
    return _verdict(
        "DP-2",
        "toy",
        "largest change of the loss, in units of its rounding bound",
        worst,
        1.0,
        sum(len(logps.chosen) for logps in evidence.cases),
        "prompt-only constant",
    )


@claim(
    "DP-3",
    sentence="Our losses are TRL's wherever TRL has the same one, in value and gradient.",
    source="TRL 1.16, DPOTrainer, KTOTrainer, experimental CPO and ORPO trainers",
    kind="theorem",
    levels=("toy", "tiny"),
    counterfactual="β off by 1%",
    primary="largest relative error of value and gradient against TRL's",
    math="L_ours(s; β) = L_TRL(s; β) and ∇L_ours = ∇L_TRL",
    run=f"{TESTS} trl",
)
def check_agreement(evidence: Agreement) -> Verdict:
    """DP-3: our loss and TRL's have the same value and the same gradient.

    Each item is (loss_type, ours, TRL's); the effect is the largest relative error, of the value
    against the larger of the two and of the gradient in the Euclidean norm.
    """
    worst: dict[str, float] = {}
    n = 0
    for name, ours, theirs in evidence.pairs:
        value = _relative(ours.value[None], theirs.value[None], dim=0).item()
        gradient = _relative(ours.gradient, theirs.gradient, dim=0).item()
        _note(worst, name, value)
        _note(worst, name, gradient)
        n += 1
    return _verdict("DP-3", evidence.level, get("DP-3").primary, worst, evidence.bound, n)


def autograd_residual(case: ResidualCase) -> Float[Tensor, "2 batch"]:
    """Return autograd's (∂L/∂s+, ∂L/∂s−) of the sum of the case's losses; 0 where L ignores s."""
    chosen = case.logps.chosen.detach().clone().requires_grad_()
    rejected = case.logps.rejected.detach().clone().requires_grad_()
    losses = case.function(replace(case.logps, chosen=chosen, rejected=rejected), **case.hyper)
    return torch.stack(
        torch.autograd.grad(losses.sum(), (chosen, rejected), materialize_grads=True)
    )


def _differences(case: ResidualCase) -> Float[Tensor, "2 batch"]:
    """Return central differences of the summed loss, one sequence at a time."""
    rows = []
    for side in ("chosen", "rejected"):
        s = getattr(case.logps, side).detach()
        row = torch.empty_like(s)
        for i in range(len(s)):
            step = torch.zeros_like(s)
            step[i] = DIFFERENCE_STEP
            up = case.function(replace(case.logps, **{side: s + step}), **case.hyper).sum()
            down = case.function(replace(case.logps, **{side: s - step}), **case.hyper).sum()
            row[i] = (up - down) / (2 * DIFFERENCE_STEP)
        rows.append(row)
    return torch.stack(rows)


def _relative(
    one: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"], *, dim: int
) -> Float[Tensor, ""]:
    """Return the largest ‖a − b‖/max(‖a‖, ‖b‖), norms along `dim`."""
    scale = torch.maximum(one.norm(dim=dim), other.norm(dim=dim)).clamp(min=SUBNORMAL)
    largest: Tensor = ((one - other).norm(dim=dim) / scale).max()
    return largest


def _note(worst: dict[str, float], name: str, error: float) -> None:
    """Keep the larger error; NaN counts as larger than anything (Python's `max` may drop it)."""
    known = worst.get(name, 0.0)
    worst[name] = math.inf if math.isnan(error) else max(known, error)


def _verdict(
    id: str,
    level: Level,
    statistic: str,
    worst: Mapping[str, float],
    bound: float,
    n: int,
    comparison: str = "",
) -> Verdict:
    """Return the verdict of a theorem: supported if something was tried and nothing exceeds."""
    finite = all(math.isfinite(error) for error in worst.values())
    effect = max(worst.values()) if worst and finite else None
    held = effect is not None and effect <= bound
    return Verdict(
        claim=id,
        level=level,
        outcome="supported" if held else "contradicted",
        statistic=statistic,
        effect=effect,
        bound=bound,
        n=n,
        comparison=comparison,
        reason="" if finite else "an error is not a finite number",
        evidence={
            "largest error by loss": {k: v if math.isfinite(v) else None for k, v in worst.items()}
        },
    )
