"""LD-1, 2, 3, 5: the very checks that support the claims refute them once the cause is removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from squeeze.claims import catalogue
from squeeze.claims.decomposition import (
    RANKS,
    Adjustment,
    Predictions,
)
from squeeze.theory.decomposition import (
    UpdateTerm,
    adjustment_matrix,
    adjustment_norm_squared,
    apply_adjustment,
    predicted_change,
    predicted_change_dense,
)
from squeeze.theory.entk import Logits, Parameters, pull_back, push_forward
from tests.theory import systems
from tests.theory.digits import EVALUATION_SEEDS, EXPECTED, measure

pytestmark = pytest.mark.cpu

PEAKED = torch.tensor([3.0, 1.0, 0.5, -2.0], dtype=torch.float64)


def _logit_changes(
    observed: Logits, terms: Sequence[UpdateTerm], parameters: Parameters, learning_rate: float
) -> tuple[Tensor, Tensor]:
    """π at the observed positions, and −η K G a term."""
    changes = []
    for term in terms:
        gradient = pull_back(term.logits, parameters, term.residual)
        z, dz = push_forward(observed, parameters, gradient)
        changes.append(-learning_rate * dz)
    return torch.softmax(z, dim=-1), torch.stack(changes)


def without_adjustment(
    observed: Logits, terms: Sequence[UpdateTerm], parameters: Parameters, learning_rate: float
) -> Tensor:
    """A dropped: −η K G."""
    return _logit_changes(observed, terms, parameters, learning_rate)[1]


def kernel_of_the_wrong_pair(
    observed: Logits, terms: Sequence[UpdateTerm], parameters: Parameters, learning_rate: float
) -> Tensor:
    """Each observed position gets its own A and the K of its neighbour."""
    pi, changes = _logit_changes(observed, terms, parameters, learning_rate)
    return apply_adjustment(pi.expand_as(changes), changes.roll(1, dims=1))


def residual_with_flipped_sign(
    observed: Logits, terms: Sequence[UpdateTerm], parameters: Parameters, learning_rate: float
) -> Tensor:
    """−G for G."""
    return -predicted_change(observed, terms, parameters, learning_rate)


@pytest.mark.counterfactual("LD-1")
@pytest.mark.parametrize("name", ["linear model", "MLP", "convolutional net", "transformer"])
@pytest.mark.parametrize(
    "predictor", [without_adjustment, kernel_of_the_wrong_pair, residual_with_flipped_sign]
)
def test_LD_1_a_wrong_prediction_is_off_by_the_order_of_eta(
    name: str, predictor: Callable[..., Tensor]
) -> None:
    (verdict,) = catalogue.get("LD-1").check(Predictions([systems.SYSTEMS[name](0)], predictor))
    assert verdict.outcome == "contradicted"
    assert verdict.effect == pytest.approx(1, abs=0.01)


@pytest.mark.counterfactual("LD-2")
def test_LD_2_the_transpose_of_A_is_refuted_by_its_row_sums() -> None:
    claim = catalogue.get("LD-2")
    assert claim.check(Adjustment([PEAKED]))[0].supported
    transposed = Adjustment([PEAKED], matrix=lambda pi: adjustment_matrix(pi).mT)
    (verdict,) = claim.check(transposed)
    assert verdict.outcome == "contradicted"


@pytest.mark.counterfactual("LD-2")
def test_LD_2_a_norm_without_its_minus_two_is_refuted() -> None:
    off = Adjustment([PEAKED], norm_squared=lambda pi: adjustment_norm_squared(pi) + 2)
    (verdict,) = catalogue.get("LD-2").check(off)
    assert verdict.outcome == "contradicted"


@pytest.mark.counterfactual("LD-3")
def test_LD_3_shuffled_update_positions_are_refuted() -> None:
    def shuffled(
        observed: Logits, terms: Sequence[UpdateTerm], parameters: Parameters, learning_rate: float
    ) -> Tensor:
        moved = [
            replace(term, residual=lambda z, term=term: term.residual(z).roll(1, dims=0))
            for term in terms
        ]
        return predicted_change_dense(observed, moved, parameters, learning_rate)

    evidence = Predictions([systems.SYSTEMS["transformer"](0)], shuffled)
    (verdict,) = catalogue.get("LD-3").check(evidence)
    assert verdict.outcome == "contradicted"
    assert verdict.effect == pytest.approx(1, abs=0.01)


@pytest.mark.counterfactual("LD-3")
def test_LD_3_without_the_causal_mask_later_tokens_reach_earlier_positions() -> None:
    later = systems.with_later_tokens_replaced(causal=False)
    (verdict,) = catalogue.get("LD-3").check(Predictions(causal=later))
    assert verdict.outcome == "contradicted"


@pytest.mark.counterfactual("LD-5")
def test_LD_5_permuted_labels_leave_no_order_among_the_classes() -> None:
    verdicts = catalogue.get("LD-5").check(measure(EVALUATION_SEEDS, permute_labels=True))
    # What ties gain to kernel is no matter of labels: its counterfactual is the next test's.
    supported = {v.comparison for v in verdicts if v.supported and v.comparison != RANKS}
    assert supported == set()


@pytest.mark.counterfactual("LD-5")
def test_LD_5_the_kernel_of_another_image_does_not_order_the_gains() -> None:
    verdicts = catalogue.get("LD-5").check(measure(EVALUATION_SEEDS, permute_kernel=True))
    assert {v.comparison for v in verdicts if "‖K‖" in v.comparison} < set(EXPECTED)
    assert not any(v.supported for v in verdicts if "‖K‖" in v.comparison)
