"""One step's effect on log π, Δ log π(·|x_o) = −η A(x_o) K(x_o, x_u) G(x_u) + O(η²), and its parts.

A = I − 1πᵀ is ∂ log π/∂z at the observed input; K = J_o J_uᵀ the empirical NTK of the logits over
the trained weights; G = ∂L/∂z at the updated input. Prop. 1 by Taylor: the step moves the weights
by −η J_uᵀ G, the logits by −η J_o J_uᵀ G + O(η²), and log π by A times that, again to O(η²).
"""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from squeeze.claims.decomposition import (
    Adjustment,
    Predictions,
    check_adjustment,
    check_first_order,
    check_sum_over_positions,
)
from squeeze.claims.situations import Situation
from squeeze.errors import InputError
from squeeze.theory import decomposition as theory
from squeeze.theory import entk
from tests.examples import examples
from tests.reproduce import reproducible
from tests.theory import systems
from tests.theory.assertions import Ledger
from tests.theory.strategies import situations

pytestmark = pytest.mark.cpu


@pytest.mark.claim("LD-1", "toy")
@pytest.mark.parametrize("name", systems.SYSTEMS)
def test_LD_1_the_prediction_error_falls_as_eta_squared(name: str, ledger: Ledger) -> None:
    (verdict,) = check_first_order(Predictions([systems.SYSTEMS[name](0)]))
    ledger.record(verdict)
    assert verdict.supported


@pytest.mark.claim("LD-2", "toy")
def test_LD_2_rows_of_A_sum_to_zero_and_its_norm_is_the_peakiness(ledger: Ledger) -> None:
    """A 1 = 0 and ‖A‖_F² = V‖π‖² + V − 2.

    Proof. Row i is e_i − π: its sum is 1 − Σπ = 0, its squared norm 1 − 2π_i + ‖π‖². Sum over i.
    """
    tried: list[Tensor] = []

    @settings(max_examples=examples(150), deadline=None)
    @given(situations(largest_vocab=100))
    def search(situation: Situation) -> None:
        logits = situation.logits[0]
        tried.append(logits)
        with reproducible(check_adjustment, Adjustment([logits])):
            assert check_adjustment(Adjustment([logits])).supported

    search()
    ledger.record(check_adjustment(Adjustment(tried)))


@pytest.mark.claim("LD-3", "toy")
@pytest.mark.parametrize("name", ["transformer", "transformer with LoRA"])
def test_LD_3_the_change_sums_over_the_updates_positions(name: str, ledger: Ledger) -> None:
    """Δ log π_m = −η Σ_l A_m K_ml G_l + O(η²), every block formed and added up."""
    (verdict,) = check_sum_over_positions(Predictions([systems.SYSTEMS[name](0)]))
    ledger.record(verdict)
    assert verdict.supported


@pytest.mark.claim("LD-3", "toy")
def test_LD_3_later_observed_tokens_leave_earlier_positions_untouched(ledger: Ledger) -> None:
    """J_o's rows of position m see tokens up to m only, so K_m· and Δ log π_m do, too."""
    later = systems.with_later_tokens_replaced(causal=True)
    (verdict,) = check_sum_over_positions(Predictions(causal=later))
    ledger.record(verdict)
    assert verdict.supported


@pytest.mark.parametrize("name", systems.SYSTEMS)
def test_the_operator_equals_the_dense_product(name: str) -> None:
    """Forward- after reverse-mode gives what A, K and G multiplied out give, term by term."""
    system = systems.SYSTEMS[name](2)
    given = (system.observed, system.terms, system.parameters, 0.1)
    dense = theory.predicted_change_dense(*given)
    assert dense.shape[0] == 2
    # Both sum the same n_weights products in different orders; 1e-11 is 1e4 weights' rounding.
    torch.testing.assert_close(
        theory.predicted_change(*given), dense, rtol=0, atol=1e-11 * dense.abs().max().item()
    )


def test_terms_add_up_to_the_gradient_of_the_whole_loss() -> None:
    """The chosen term's prediction and the rejected term's sum to that of autograd's gradient."""
    torch.manual_seed(0)
    model = systems.mlp().double().eval()
    images, labels = systems.digits()
    weights = entk.trainable_parameters(model)
    observed = entk.module_logits(model, images[10:14])
    terms = [
        theory.UpdateTerm(
            entk.module_logits(model, images[i : i + 1]), theory.logp_residual(labels[i : i + 1], w)
        )
        for i, w in ((0, -0.7), (1, 0.7))
    ]
    logp = torch.log_softmax(model(images[:2]), dim=-1)
    loss = -0.7 * logp[0, labels[0]] + 0.7 * logp[1, labels[1]]
    gradient = dict(zip(weights, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    z, dz = entk.push_forward(observed, weights, gradient)
    whole = -0.1 * theory.apply_adjustment(torch.softmax(z, dim=-1), dz)
    predicted = theory.predicted_change(observed, terms, weights, 0.1)
    torch.testing.assert_close(predicted.sum(dim=0), whole)


def test_the_measured_step_is_torchs_SGD_step() -> None:
    torch.manual_seed(0)
    model = systems.convolutional().double().eval()
    images, labels = systems.digits()
    term = theory.UpdateTerm(
        entk.module_logits(model, images[:3]), theory.logp_residual(labels[:3], -1.0)
    )
    observed = entk.module_logits(model, images[5:9])
    measured = theory.measured_change(observed, [term], entk.trainable_parameters(model), 0.05)

    stepped = copy.deepcopy(model)
    optimizer = torch.optim.SGD(stepped.parameters(), lr=0.05)
    nn.functional.cross_entropy(stepped(images[:3]), labels[:3], reduction="sum").backward()
    optimizer.step()
    before, after = (torch.log_softmax(m(images[5:9]), dim=-1) for m in (model, stepped))
    torch.testing.assert_close(measured, after - before)


def test_a_perfect_prediction_has_no_error_and_none_has_an_error_of_one() -> None:
    measured = torch.tensor([[3.0, -4.0]])
    assert theory.relative_error(torch.stack([measured / 2, measured / 2]), measured) == 0.0
    assert theory.relative_error(torch.zeros(1, 1, 2), measured) == 1.0


@settings(max_examples=examples(50), deadline=None)
@given(situations())
def test_A_is_applied_without_being_formed(situation: Situation) -> None:
    """A is diagonal plus rank one: A π = π − ‖π‖² 1 and A 1 = 0, up to V = 100,000."""
    pi = torch.softmax(situation.logits, dim=-1)
    rounding = pi.shape[-1] * torch.finfo(pi.dtype).eps
    applied = theory.apply_adjustment(pi, pi)
    assert (applied - (pi - pi.square().sum())).abs().max() <= rounding
    assert theory.apply_adjustment(pi, torch.ones_like(pi)).abs().max() <= rounding


def test_hutchinsons_estimate_covers_the_exact_norm_of_the_kernel() -> None:
    system = systems.SYSTEMS["MLP"](0)
    given = (system.observed, system.terms[0].logits, system.parameters)
    exact = entk.dense_entk(*given).square().sum().item()
    estimate = entk.estimate_entk_norm(*given, n_probes=64)
    # Standard deviations a probe: at most √2 by the bound; four standard errors of 64 probes.
    assert abs(estimate.squared / exact - 1) <= 4 * (2 / 64) ** 0.5
    assert abs(estimate.squared - exact) <= 4 * estimate.squared_standard_error
    assert estimate.norm == pytest.approx(estimate.squared**0.5)
    assert estimate.standard_error == pytest.approx(
        estimate.squared_standard_error / (2 * estimate.norm)
    )


def test_hutchinsons_standard_error_obeys_its_bound_and_its_draws_their_seed() -> None:
    system = systems.SYSTEMS["linear model"](0)
    given = (system.observed, system.terms[0].logits, system.parameters)
    exact = entk.dense_entk(*given).square().sum().item()
    estimate = entk.estimate_entk_norm(*given)
    assert estimate.n_probes == 32
    # √(2/n) of ‖K‖² at most; twice that leaves room for a standard deviation from 32 draws.
    assert 0 < estimate.squared_standard_error <= 2 * exact * (2 / 32) ** 0.5
    assert estimate == entk.estimate_entk_norm(*given, seed=0)
    assert estimate != entk.estimate_entk_norm(*given, seed=1)


def test_two_probes_are_enough_for_a_standard_error() -> None:
    """Half the difference of two draws, which have the sample's mean between them."""
    system = systems.SYSTEMS["linear model"](0)
    given = (system.observed, system.terms[0].logits, system.parameters)
    estimate = entk.estimate_entk_norm(*given, n_probes=2)
    assert 0 < estimate.squared_standard_error < estimate.squared


def test_A_and_its_norm_are_of_one_position_each() -> None:
    pi = torch.tensor([[0.5, 0.5], [1.0, 0.0]])  # ‖A‖² = 2‖π‖² + 0
    assert theory.adjustment_matrix(pi).tolist() == [
        [[0.5, -0.5], [-0.5, 0.5]],
        [[0.0, 0.0], [-1.0, 1.0]],
    ]
    assert theory.adjustment_norm_squared(pi).tolist() == [1.0, 2.0]
    v = torch.tensor([[3.0, 1.0], [3.0, 1.0]])
    assert theory.apply_adjustment(pi, v).tolist() == [[1.0, -1.0], [0.0, -2.0]]


def test_the_kernel_is_applied_without_being_formed() -> None:
    system = systems.SYSTEMS["MLP"](0)
    updated = system.terms[0].logits
    v = torch.randn(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel = entk.dense_entk(system.observed, updated, system.parameters)
    torch.testing.assert_close(
        entk.apply_entk(system.observed, updated, system.parameters, v),
        torch.einsum("malb,lb->ma", kernel, v),
    )


def test_every_position_of_a_sequence_may_be_asked_for_the_first_included() -> None:
    model = systems.transformer(0)
    ids = torch.tensor([1, 2, 3, 4])
    everywhere = entk.sequence_logits(model, ids, torch.arange(4))
    torch.testing.assert_close(everywhere(entk.trainable_parameters(model)), model(ids[None])[0][0])


def test_only_adapter_weights_count_under_lora() -> None:
    adapted = systems.with_lora(systems.transformer(0))
    assert all("lora_" in name for name in entk.trainable_parameters(adapted))


def test_a_response_is_predicted_from_the_prompts_last_position_on() -> None:
    assert entk.response_positions(3, 6).tolist() == [2, 3, 4]


@pytest.mark.parametrize("n_prompt", [0, 6])
def test_a_prompt_must_leave_a_response_and_precede_it(n_prompt: int) -> None:
    with pytest.raises(InputError, match=f"a prompt of {n_prompt} tokens"):
        entk.response_positions(n_prompt, 6)


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(InputError, match=r"\.eval\(\)"):
        entk.module_logits(systems.mlp().train(), torch.zeros(1, 1, 8, 8))


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(InputError, match="no trainable parameters"):
        entk.trainable_parameters(systems.mlp().requires_grad_(False))


@pytest.mark.parametrize("positions", [[], [-1], [5]])
def test_positions_outside_the_sequence_are_refused(positions: list[int]) -> None:
    with pytest.raises(InputError, match="positions must be within"):
        entk.sequence_logits(
            systems.mlp().eval(), torch.arange(5), torch.tensor(positions, dtype=torch.long)
        )


def test_one_probe_gives_no_standard_error_and_is_refused() -> None:
    system = systems.SYSTEMS["linear model"](0)
    with pytest.raises(InputError, match="at least 2"):
        entk.estimate_entk_norm(
            system.observed, system.terms[0].logits, system.parameters, n_probes=1
        )
