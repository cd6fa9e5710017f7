"""GE-1, GR-1, EN-1, SA-1 with their cause taken away: the very same checks refute them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from squeeze.claims.policy_gradient_checks import (
    check_entanglement,
    check_entropy_change,
    check_entropy_slope,
    check_group_step,
    check_sharpness_aware_slope,
    check_sharpness_aware_step,
    generic_situations,
)
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


COUNTERFACTUALS: list[tuple[Any, dict[str, Any]]] = [
    (check_group_step, {"advantages": as_given}),
    (check_group_step, {"threshold": peakiness}),
    (check_entropy_change, {"rate": of_natural_gradient}),
    (check_entropy_change, {"rate": sign_flipped}),
    (check_sharpness_aware_step, {"step": downhill}),
    (check_sharpness_aware_step, {"relief": relief_negated}),
]
SLOPES: list[tuple[Any, dict[str, Any]]] = [
    (check_entropy_slope, {"rate": of_natural_gradient}),
    (check_entropy_slope, {"rate": sign_flipped}),
    (check_sharpness_aware_slope, {"step": downhill}),
    (check_sharpness_aware_slope, {"relief": no_relief}),
]


@pytest.mark.parametrize(("check", "system"), COUNTERFACTUALS)
def test_the_check_refutes_its_counterfactual(check: Any, system: dict[str, Any]) -> None:
    assert check(**system).outcome == "contradicted"
    assert check().outcome == "supported"


@pytest.mark.parametrize(("check", "system"), SLOPES)
def test_the_error_falls_no_faster_than_eta_in_the_counterfactual(
    check: Any, system: dict[str, Any]
) -> None:
    assert {v.outcome for v in check(generic_situations(), **system)} == {"contradicted"}


@pytest.mark.parametrize("formula", [without_product, product_added])
def test_entanglement_with_another_formula_is_refuted(formula: Any) -> None:
    pairs = [PAIRS[name](0) for name in ("linear model", "transformer")]
    assert {v.outcome for v in check_entanglement(pairs, formula)} == {"contradicted"}
