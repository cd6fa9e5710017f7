"""The checks of DP-1, DP-2, DP-3 and LD-4: each takes the system under test and can refute it.

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

from squeeze.claims.types import Level, Verdict
from squeeze.losses.types import LossFunction, ResidualFunction
from squeeze.theory.logps import PairLogps
from squeeze.theory.residuals import logit_residual

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


def check_init_value(
    values: Iterable[InitValue], *, level: Level = "toy", bound: float = FLOAT64_BOUND
) -> Verdict:
    """DP-1: every measured value is the closed form; the effect is the largest relative error.

    The log-ratios are exactly 0 there, so a handful of roundings is all that may differ: 1e-12 in
    float64 leaves room for the conditioning 1/(1 − 2ε) of robust DPO.
    """
    worst: dict[str, float] = {}
    n = 0
    for value in values:
        error = (value.measured.double() - value.expected).abs().max().item() / abs(value.expected)
        _note(worst, value.loss, error)
        n += value.measured.numel()
    return _verdict("DP-1", level, "largest relative error of the value", worst, bound, n)


def check_residuals(cases: Iterable[ResidualCase], *, comparison: str = "") -> Verdict:
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
    return _verdict("LD-4", "toy", statistic, worst, FORMULA_BOUND, n, comparison)


def check_logit_residuals(cases: Iterable[LogitCase]) -> Verdict:
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


def check_gradient_identity(
    loss: LossFunction,
    logits_of: Callable[[Tensor], tuple[Tensor, Tensor]],
    parameters: Sequence[Tensor],
    reference: Sequence[tuple[Tensor, Tensor]],
    *,
    beta: float,
) -> Verdict:
    """DP-2: ∇L = −β(1 − a)(∇s+ − ∇s−) with respect to a model's parameters.

    `logits_of(parameters)` returns the policy's (s+, s−), each [batch]; ∇L comes from autograd
    through `loss(logps, beta=beta)`, the right-hand side from ∇s± alone and a = σ(βm).
    """
    worst: dict[str, float] = {}
    for start, (ref_chosen, ref_rejected) in zip(parameters, reference, strict=True):
        theta = start.detach().clone().requires_grad_()
        chosen, rejected = logits_of(theta)
        logps = PairLogps(chosen, rejected, ref_chosen, ref_rejected)
        losses = loss(logps, beta=beta)
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
        len(parameters),
        "gradient identity",
    )


def check_prompt_constant(
    loss: LossFunction,
    shifted: Callable[[PairLogps], PairLogps],
    cases: Sequence[PairLogps],
    *,
    beta: float,
) -> Verdict:
    """DP-2: adding a constant that depends on the prompt alone to both rewards changes nothing.

    `shifted` adds it. The loss is β-Lipschitz in the margin, and the shift rounds the four
    log-probs and three differences by at most ε/2 of the largest of them each, so a change beyond
    8·β·ε·max|s| is more than rounding; the effect is the change in units of that.
    """
    worst: dict[str, float] = {}
    for logps in cases:
        moved = shifted(logps)
        size = max(
            logp.abs().max().item()
            for each in (logps, moved)
            for logp in (each.chosen, each.rejected, each.ref_chosen, each.ref_rejected)
            if logp is not None
        )
        before, after = loss(logps, beta=beta), loss(moved, beta=beta)
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
        sum(len(logps.chosen) for logps in cases),
        "prompt-only constant",
    )


def check_agreement(
    pairs: Iterable[tuple[str, Measured, Measured]],
    *,
    level: Level = "toy",
    bound: float = FLOAT64_BOUND,
) -> Verdict:
    """DP-3: our loss and TRL's have the same value and the same gradient.

    Each item is (loss_type, ours, TRL's); the effect is the largest relative error, of the value
    against the larger of the two and of the gradient in the Euclidean norm. For float32 models the
    caller states the bound.
    """
    worst: dict[str, float] = {}
    n = 0
    for name, ours, theirs in pairs:
        value = _relative(ours.value[None], theirs.value[None], dim=0).item()
        gradient = _relative(ours.gradient, theirs.gradient, dim=0).item()
        _note(worst, name, value)
        _note(worst, name, gradient)
        n += 1
    statistic = "largest relative error of value and gradient against TRL's"
    return _verdict("DP-3", level, statistic, worst, bound, n)


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
    claim: str,
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
        claim=claim,
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
