"""GE-1, GR-1, EN-1, SA-1 with their cause taken away: the very same checks refute them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from squeeze.claims import catalogue
from squeeze.claims.policy_gradient import Pairs, PolicyStep
from squeeze.claims.policy_gradient_checks import generic_situations
from squeeze.theory.policy_gradient import policy_entropy_rate
from squeeze.theory.sharpness import sharpness_aware_negative_step, sharpness_aware_relief
from tests.theory.pair_systems import PAIRS

pytestmark = pytest.mark.cpu


def without_product(up: Tensor, both: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """Each log-prob on its own."""
    return up, -down


def product_added(up: Tensor, both: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """The rejected term's sign flipped."""
    return up + both, both + down


def as_given(rewards: Tensor) -> Tensor:
    """No baseline: advantages that do not sum to 0."""
    return rewards


def peakiness(logits: Tensor, labels: Tensor) -> Tensor:
    """‖π‖² without the −π(y) term."""
    return logits.softmax(-1).square().sum(-1)


def of_natural_gradient(logits: Tensor, displacement: Tensor) -> Tensor:
    """−η Cov(log π, A): the step's factor π divided out."""
    return policy_entropy_rate(logits, displacement / logits.softmax(-1).clamp(min=1e-12))


def sign_flipped(logits: Tensor, displacement: Tensor) -> Tensor:
    return -policy_entropy_rate(logits, displacement)


def downhill(logits: Tensor, labels: Tensor, eta: float, rho: float) -> Tensor:
    """ρ of the other sign."""
    return sharpness_aware_negative_step(logits, labels, eta, -rho)


def no_relief(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.zeros_like(logits)


def relief_negated(logits: Tensor, labels: Tensor) -> Tensor:
    return -sharpness_aware_relief(logits, labels)


COUNTERFACTUALS: list[tuple[str, dict[str, Any]]] = [
    ("GR-1", {"advantages": as_given}),
    ("GR-1", {"threshold": peakiness}),
    ("EN-1", {"rate": of_natural_gradient}),
    ("EN-1", {"rate": sign_flipped}),
    ("SA-1", {"step": downhill}),
    ("SA-1", {"relief": relief_negated}),
]
SLOPES: list[tuple[str, dict[str, Any]]] = [
    ("EN-1", {"rate": of_natural_gradient}),
    ("EN-1", {"rate": sign_flipped}),
    ("SA-1", {"step": downhill}),
    ("SA-1", {"relief": no_relief}),
]


def outcomes(claim: str, **system: Any) -> set[str]:
    """How the claim's own check comes out with these parts of the system replaced."""
    return {verdict.outcome for verdict in catalogue.get(claim).check(PolicyStep(**system))}


def marked(cases: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """The cases, each marked with the claim whose counterfactual it is."""
    return [
        pytest.param(claim, system, marks=pytest.mark.counterfactual(claim))
        for claim, system in cases
    ]


@pytest.mark.parametrize(("claim", "system"), marked(COUNTERFACTUALS))
def test_the_check_refutes_its_counterfactual(claim: str, system: dict[str, Any]) -> None:
    assert outcomes(claim, **system) == {"contradicted"}
    assert outcomes(claim) == {"supported"}


@pytest.mark.parametrize(("claim", "system"), marked(SLOPES))
def test_the_error_falls_no_faster_than_eta_in_the_counterfactual(
    claim: str, system: dict[str, Any]
) -> None:
    found = outcomes(claim, slopes=generic_situations(), **system)
    assert "supported" not in found


@pytest.mark.counterfactual("GE-1")
@pytest.mark.parametrize("formula", [without_product, product_added])
def test_entanglement_with_another_formula_is_refuted(formula: Any) -> None:
    pairs = [PAIRS[name](0) for name in ("linear model", "transformer")]
    verdicts = catalogue.get("GE-1").check(Pairs(pairs, formula))
    assert not any(verdict.supported for verdict in verdicts)
