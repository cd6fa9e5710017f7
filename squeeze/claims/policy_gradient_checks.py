"""The checks of GE-1, GR-1, EN-1 and SA-1: what policy gradients and their kin do in one step.

Each takes the system under test as an argument, so that its counterfactual runs through the very
same lines. The formulas are in `squeeze.theory`, the claims' entries in `policy_gradient`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.claims.decomposition import slope_verdict
from squeeze.claims.situations import Situation, standard_situations
from squeeze.claims.softmax import pool
from squeeze.claims.types import Outcome, Verdict
from squeeze.losses import PairLogps, get_loss
from squeeze.losses.policy_gradient import policy_loss
from squeeze.theory import softmax
from squeeze.theory.entk import Logits, Parameters
from squeeze.theory.policy_gradient import (
    Rollouts,
    Surrogate,
    expected_step,
    group_advantages,
    policy_entropy_rate,
)
from squeeze.theory.sharpness import sharpness_aware_negative_step, sharpness_aware_relief

GROUP = 8
RADIUS = 0.1


def _on_all(
    claim: str,
    holds: Callable[[Situation], bool | None],
    situations: Iterable[Situation] | None,
) -> Verdict:
    """Try every situation; `holds` returns None where the theorem says nothing."""
    verdicts = []
    for s in standard_situations() if situations is None else situations:
        held = holds(s)
        evidence = {"counterexamples": [repr(s)] if held is False else []}
        outcome: Outcome = "contradicted" if held is False else "supported"
        verdicts.append(Verdict(claim, "toy", outcome, n=int(held is not None), evidence=evidence))
    return pool(verdicts)


# --- GE-1 -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairSystem:
    """A model at a chosen and a rejected response: logits as functions of weights, and tokens."""

    name: str
    chosen: Logits
    chosen_targets: Int[Tensor, " chosen_tokens"]
    rejected: Logits
    rejected_targets: Int[Tensor, " rejected_tokens"]
    parameters: Parameters

    def logps(self, parameters: Parameters) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """s+ and s−, the two log-probs summed over tokens."""
        return (
            _log_prob(self.chosen(parameters), self.chosen_targets),
            _log_prob(self.rejected(parameters), self.rejected_targets),
        )


Entanglement = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(‖∇s+‖², ⟨∇s+, ∇s−⟩, ‖∇s−‖²) → the changes of s+ and s− for a unit of ηβ(1 − a)."""


def entangled(up: Tensor, both: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """GE-1's formula."""
    return up - both, both - down


def check_entanglement(
    systems: Sequence[PairSystem], formula: Entanglement = entangled, *, beta: float = 0.3
) -> list[Verdict]:
    """GE-1: the error of Δs± ≈ ηβ(1 − a)·formula for a real DPO step falls as η², a model a row.

    The step descends autograd's gradient of the DPO loss, 1 nat off its reference. Window of η and
    bound as in LD-1.
    """
    return [_entanglement(system, formula, beta) for system in systems]


def _entanglement(system: PairSystem, formula: Entanglement, beta: float) -> Verdict:
    leaves = {name: w.clone().requires_grad_() for name, w in system.parameters.items()}
    s = system.logps(leaves)
    weights = list(leaves.values())
    up, down = (torch.autograd.grad(each, weights, retain_graph=True) for each in s)
    logps = PairLogps(s[0][None], s[1][None], s[0].detach()[None] - 1, s[1].detach()[None])
    loss = get_loss("sigmoid")(logps, beta=beta).sum()
    step = torch.autograd.grad(loss, weights)
    pull = beta * torch.sigmoid(-beta * logps.margin.detach())[0]
    products = [_inner(up, up), _inner(up, down), _inner(down, down)]
    rate = torch.stack([pull * change for change in formula(*products)])

    def change(eta: float) -> Tensor:
        moved = {n: w - eta * g for (n, w), g in zip(system.parameters.items(), step, strict=True)}
        with torch.no_grad():
            return torch.stack(system.logps(moved)) - torch.stack(s).detach()

    return slope_verdict(
        "GE-1", "log-log slope of the error of Δs±", change, lambda eta: eta * rate, system.name
    )


def _log_prob(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(-1, targets[:, None]).sum()


def _inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


# --- GR-1 -----------------------------------------------------------------------------------------

Advantages = Callable[[Tensor], Tensor]
Threshold = Callable[[Tensor, Tensor], Tensor]


def zero_sum(rewards: Tensor) -> Tensor:
    """Advantages of a group, less its mean."""
    return group_advantages(rewards, scale="none")


def sampled_group(s: Situation) -> tuple[Int[Tensor, " group"], Float[Tensor, "1 group"]]:
    """Return eight sampled labels and their rewards: some answers are the situation's label, right.

    The others are drawn evenly from the other labels, so that they may be likely or not.
    """
    generator = torch.Generator().manual_seed(s.seed + s.vocab)
    n_right = int(torch.randint(1, GROUP, (1,), generator=generator))
    shift = torch.randint(1, s.vocab, (GROUP,), generator=generator)
    labels = torch.where(torch.arange(GROUP) < n_right, 0, shift) + s.labels
    rewards = (torch.arange(GROUP) < n_right).double()[None]
    return labels % s.vocab, rewards


def check_group_step(
    situations: Iterable[Situation] | None = None,
    *,
    advantages: Advantages = zero_sum,
    threshold: Threshold = softmax.squeezing_threshold,
) -> Verdict:
    """GR-1: a group's step in one context, from autograd, is the sum of SM-1 … SM-9's steps.

    Three things are asked. The loss's gradient is that sum; a label that nobody sampled does not
    move against another one; and the wrong answers' part of the step changes log π of the right one
    by Σ η|w A_j|(π₊ − threshold(y_j)), less a lag of 0 to range(d)²/8 (Jensen, and Hoeffding's
    lemma, as in SM-4).
    """

    def holds(s: Situation) -> bool:
        labels, rewards = sampled_group(s)
        a = advantages(rewards)[0]
        found = s.eta * -_group_gradient(s.logits, labels, a)
        steps = [_signed_step(s, label, value) for label, value in zip(labels, a, strict=True)]
        size = s.eta * a.abs().sum() / GROUP
        rounding = 16 * softmax.relative_rounding(s.logits) * size
        is_sum = bool(((found - sum(steps)).abs() <= rounding).all())

        nobodys = torch.ones(s.vocab, dtype=torch.bool)
        nobodys[labels] = False
        still = bool((found[0, nobodys].abs() <= rounding).all())

        down = [
            (step, label, value)
            for step, label, value in zip(steps, labels, a, strict=True)
            if value < 0
        ]
        return is_sum and still and (not down or _wrong_answers_part(s, down, threshold))

    return _on_all("GR-1", holds, situations)


def _group_gradient(
    logits: Float[Tensor, "1 vocab"], labels: Int[Tensor, " group"], advantages: Tensor
) -> Float[Tensor, "1 vocab"]:
    """Autograd's ∂L/∂z of the on-policy loss of one-token answers given in one context."""
    leaf = logits.clone().requires_grad_()
    logps = leaf.log_softmax(-1)[0, labels][:, None]
    mask = torch.ones_like(logps, dtype=torch.bool)
    loss = policy_loss(Rollouts(logps, mask, advantages[:, None]), Surrogate("token", 0.2, 0.2))
    return torch.autograd.grad(loss, leaf)[0]


def _signed_step(s: Situation, label: Tensor, advantage: Tensor) -> Float[Tensor, "1 vocab"]:
    """The positive or negative step of one sampled label, of size η|A|/G."""
    step = softmax.positive_step if advantage > 0 else softmax.negative_step
    return step(s.logits, label[None], s.eta * float(advantage.abs()) / GROUP)


def _wrong_answers_part(
    s: Situation, down: Sequence[tuple[Tensor, Tensor, Tensor]], threshold: Threshold
) -> bool:
    moved = torch.stack([step for step, _, _ in down]).sum(0)
    pi = s.logits.softmax(-1)[0, s.labels]
    rate = torch.zeros_like(pi)
    for _, label, advantage in down:
        rate = rate + s.eta * advantage.abs() / GROUP * (pi - threshold(s.logits, label[None]))
    change = softmax.log_prob_change(s.logits, moved)[0, s.labels]
    lag = rate - change
    spread = moved.max() - moved.min()
    size = s.eta * sum(float(value.abs()) for _, _, value in down) / GROUP
    slack = softmax.change_rounding(s.logits, moved)[0, s.labels]
    slack = slack + 16 * softmax.relative_rounding(s.logits) * size
    return bool((lag >= -slack).all() and (lag <= spread**2 / 8 + slack).all())


# --- EN-1 -----------------------------------------------------------------------------------------

Rate = Callable[[Tensor, Tensor], Tensor]
"""(logits, displacement) → the change of entropy to first order, nats."""


def _advantages(s: Situation) -> Float[Tensor, "1 vocab"]:
    generator = torch.Generator().manual_seed(s.seed + 1)
    return torch.randn(1, s.vocab, dtype=torch.float64, generator=generator)


def check_entropy_change(
    situations: Iterable[Situation] | None = None, *, rate: Rate = policy_entropy_rate
) -> Verdict:
    """EN-1: |ΔH − rate| ≤ ½·range(d)²(¼ + 2 log V), d the exact policy gradient's step.

    Along π_t ∝ π exp(td), dH/dt = −Cov_t(log π_t, d) and d²H/dt² = −Var_t(d) − E_t[(log π_t + H)
    (d − E_t d)²]. The variance is at most range²/4 (Popoviciu), the rest at most range²·E|log π_t +
    H| ≤ range²·2H ≤ range²·2 log V. Taylor. Rounding: as in SM-7, four times r(1 + H) each.
    """

    def holds(s: Situation) -> bool:
        moved = expected_step(s.logits, _advantages(s), s.eta)
        before, after = softmax.entropy(s.logits), softmax.entropy(s.logits + moved)
        spread = moved.max() - moved.min()
        curvature = spread.square() * (0.25 + 2 * math.log(s.vocab)) / 2
        relative = softmax.relative_rounding(s.logits)
        slack = 8 * relative * (1 + before + after + spread * (1 + s.logits.abs().max()))
        error = (after - before - rate(s.logits, moved)).abs()
        return bool((error <= curvature + slack).all())

    return _on_all("EN-1", holds, situations)


def check_entropy_slope(
    situations: Sequence[Situation], *, rate: Rate = policy_entropy_rate
) -> list[Verdict]:
    """EN-1: the error of −Cov_π(log π, d) falls as the step's square; a situation a row."""
    return [_entropy_slope(s, rate) for s in situations]


def _entropy_slope(s: Situation, rate: Rate) -> Verdict:
    def step(eta: float) -> Tensor:
        return expected_step(s.logits, _advantages(s), eta)

    def change(eta: float) -> Tensor:
        return softmax.entropy(s.logits + step(eta)) - softmax.entropy(s.logits)

    return slope_verdict(
        "EN-1",
        "log-log slope of the error of −η Cov(log π, πA)",
        change,
        lambda eta: rate(s.logits, step(eta)),
        f"slope, {s.shape} of {s.vocab}",
    )


# --- SA-1 -----------------------------------------------------------------------------------------

SharpStep = Callable[[Tensor, Tensor, float, float], Tensor]
Relief = Callable[[Tensor, Tensor], Tensor]


def check_sharpness_aware_step(
    situations: Iterable[Situation] | None = None,
    *,
    step: SharpStep = sharpness_aware_negative_step,
    relief: Relief = sharpness_aware_relief,
) -> Verdict:
    """SA-1: y* gains less than by the plain step, and a falling label's mixed derivative is ≥ 0."""

    def holds(s: Situation) -> bool:
        plain = softmax.negative_step(s.logits, s.labels, s.eta)
        sharp = step(s.logits, s.labels, s.eta, RADIUS)
        best = softmax.most_likely_other(s.logits, s.labels)
        gains = [softmax.log_prob_change_at(s.logits, moved, best) for moved in (plain, sharp)]
        slack = softmax.change_rounding(s.logits, plain)[0, best]
        falls = softmax.falling_set(s.logits, s.labels)
        tiny = 16 * softmax.relative_rounding(s.logits)
        eased = relief(s.logits, s.labels)[falls] >= -tiny
        return bool((gains[1] <= gains[0] + slack).all() and eased.all())

    return _on_all("SA-1", holds, situations)


def check_sharpness_aware_slope(
    situations: Sequence[Situation],
    *,
    step: SharpStep = sharpness_aware_negative_step,
    relief: Relief = sharpness_aware_relief,
) -> list[Verdict]:
    """SA-1: to first order in η the relief of the others is a·relief, its error falling as a²."""
    return [_sharpness_slope(s, step, relief) for s in situations]


def _sharpness_slope(s: Situation, step: SharpStep, relief: Relief) -> Verdict:
    pi = s.logits.softmax(-1)
    length = softmax.positive_step(s.logits, s.labels, 1.0).norm(dim=-1)
    others = torch.arange(s.vocab) != s.labels

    def rates(rho: float) -> Tensor:
        moved = step(s.logits, s.labels, 1.0, rho)
        return (moved - (pi * moved).sum(-1, keepdim=True))[0, others]

    start = rates(0.0)
    slope = (relief(s.logits, s.labels) / length[:, None])[0, others]
    return slope_verdict(
        "SA-1",
        "log-log slope of the error of the relief",
        lambda rho: rates(rho) - start,
        lambda rho: rho * slope,
        f"slope, {s.shape} of {s.vocab}",
    )


def generic_situations() -> list[Situation]:
    """Return situations whose second-order terms are not 0, for slopes: no ties."""
    sizes = (4, 10, 50)
    return [Situation(vocab, vocab // 2, 1.0, "gaussian", i) for i, vocab in enumerate(sizes)]
