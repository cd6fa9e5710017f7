"""Each softmax claim's cause taken away: the very same check must come out "contradicted"."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from squeeze.claims import catalogue
from squeeze.claims.situations import Situation, Softmax, hold_odds_fixed
from squeeze.claims.softmax import pool
from squeeze.claims.types import Verdict
from squeeze.theory.softmax import (
    combined_step,
    log_prob_change,
    negative_step,
    others_mass,
    positive_step,
)

pytestmark = pytest.mark.cpu


def uniform_redistribution(logits: Tensor, labels: Tensor, eta: float) -> Tensor:
    """Lower y as the negative step does, and give what it loses to the others in equal shares."""
    fallen = log_prob_change(logits, negative_step(logits, labels, eta)).gather(-1, labels[:, None])
    lost = logits.softmax(-1).gather(-1, labels[:, None]) * -torch.expm1(fallen)
    probs = logits.softmax(-1)
    shared = torch.log1p(lost / (logits.shape[-1] - 1) / probs)
    return shared.scatter(-1, labels[:, None], fallen)


def threshold_without_pi_of_y(logits: Tensor, labels: Tensor) -> Tensor:
    """‖π‖² alone."""
    return (logits.softmax(-1) ** 2).sum(-1)


def flat_draws(generator: torch.Generator, n: int) -> tuple[Tensor, Tensor]:
    """Logits all 0, which no temperature sharpens."""
    return torch.zeros(n, 50, dtype=torch.float64), torch.randint(0, 50, (n,), generator=generator)


def flatten_as_label_shrinks(others: Tensor, label_probabilities: Tensor) -> Tensor:
    """The others' odds not held fixed: the less likely y, the flatter they are."""
    return torch.cat(
        [hold_odds_fixed(others * p, p[None]) for p in label_probabilities.flatten()],
    )


def different_contexts(logits: Tensor, chosen: Tensor, rejected: Tensor, eta: float) -> Tensor:
    """y+ raised where π is another one (the labels' logits in another order), y− lowered here."""
    elsewhere = logits.roll(1, -1)
    return positive_step(elsewhere, chosen, eta) + negative_step(logits, rejected, eta)


def heavier_rejected(logits: Tensor, chosen: Tensor, rejected: Tensor, eta: float) -> Tensor:
    """One context, but the rejected label is pushed with twice the weight."""
    return combined_step(logits, chosen, rejected, eta, rejected_weight=2.0)


COUNTERFACTUALS: list[tuple[str, dict[str, Any]]] = [
    ("SM-1", {"step": positive_step}),
    ("SM-2", {"step": positive_step}),
    ("SM-3", {"step": uniform_redistribution}),
    ("SM-3", {"step": positive_step}),
    ("SM-4", {"threshold": threshold_without_pi_of_y}),
    ("SM-4", {"step": positive_step}),
    ("SM-5", {"draw": flat_draws}),
    ("SM-6", {"family": flatten_as_label_shrinks}),
    ("SM-7", {"steps": (positive_step, negative_step)}),
    ("SM-8", {"step": negative_step}),
    ("SM-9", {"pair_step": different_contexts}),
    ("SM-9", {"pair_step": heavier_rejected}),
]


def outcomes(claim: str, **system: Any) -> set[str]:
    """Run a claim's check on its own inputs, with these parts of the system replaced."""
    return {verdict.outcome for verdict in catalogue.get(claim).check(Softmax(**system))}


@pytest.mark.parametrize(
    ("claim", "system"),
    [
        pytest.param(claim, system, marks=pytest.mark.counterfactual(claim))
        for claim, system in COUNTERFACTUALS
    ],
)
def test_the_check_refutes_its_counterfactual(claim: str, system: dict[str, Any]) -> None:
    # A trend without its cause has no effect; a theorem has a counterexample.
    expected = "inconclusive" if claim == "SM-5" else "contradicted"
    assert outcomes(claim, **system) == {expected}


@pytest.mark.parametrize("claim", sorted({claim for claim, _ in COUNTERFACTUALS}))
def test_the_same_check_on_the_same_inputs_supports_the_claim(claim: str) -> None:
    assert outcomes(claim) == {"supported"}


def test_uniform_redistribution_conserves_probability() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.0]], dtype=torch.float64)
    label = torch.tensor([1])
    moved = uniform_redistribution(logits, label, 1.0)
    after = (logits.log_softmax(-1) + moved).exp()
    torch.testing.assert_close(after.sum(-1), torch.ones(1, dtype=torch.float64))
    assert others_mass(logits + moved, label) > others_mass(logits, label)


def test_inputs_of_which_a_theorem_says_nothing_are_no_support() -> None:
    (verdict,) = catalogue.get("SM-3").check(Softmax([Situation(vocab=2, rank=0, eta=1.0)]))
    assert verdict.outcome == "not run"
    assert verdict.n == 0


def test_one_counterexample_among_many_inputs_refutes_a_theorem() -> None:
    fine = Verdict("SM-1", "toy", "supported", n=99, evidence={"counterexamples": []})
    bad = Verdict("SM-1", "toy", "contradicted", n=1, evidence={"counterexamples": ["this"]})
    pooled = pool([fine, bad])
    assert pooled.outcome == "contradicted"
    assert (pooled.effect, pooled.n) == (0.99, 100)
