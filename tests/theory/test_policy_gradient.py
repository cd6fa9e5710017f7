"""Theorems on policy gradients and their kin, a sentence a test, with the proof in its docstring.

Notation of `test_softmax`: z logits, π their softmax, y the pushed label, g = π − e_y, (∗) the
change of log π_i by a displacement d, d_i − log Σ_j π_j exp(d_j).
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from squeeze.claims.policy_gradient import (
    Pairs,
    PolicyStep,
    entanglement,
    entropy_change,
    group_step,
    sharpness_aware_step,
)
from squeeze.claims.policy_gradient_checks import PairSystem, generic_situations
from squeeze.claims.situations import Situation
from squeeze.theory import softmax
from squeeze.theory.policy_gradient import expected_step, policy_entropy_rate
from squeeze.theory.sharpness import sharpness_aware_negative_step
from tests.examples import examples
from tests.theory.assertions import Ledger, search_for_counterexample
from tests.theory.pair_systems import PAIRS
from tests.theory.strategies import situations

pytestmark = pytest.mark.cpu


@pytest.mark.claim("GE-1", "toy")
@pytest.mark.parametrize("name", PAIRS)
def test_chosen_and_rejected_are_entangled_by_their_gradients_product(
    name: str, ledger: Ledger
) -> None:
    """Δs± = ηβ(1 − a)(±‖∇s±‖² ∓ ⟨∇s+, ∇s−⟩) + O(η²).

    Proof. DP-2: the step is ηβ(1 − a)(∇s+ − ∇s−). Taylor: its product with ∇s+, and with ∇s−.
    """
    (verdict,) = entanglement(Pairs([PAIRS[name](0)]))
    ledger.record(verdict)
    assert verdict.supported


def test_entangled_log_probs_can_rise_together() -> None:
    """Two responses of one context whose first tokens agree: ⟨∇s+, ∇s−⟩ > ‖∇s−‖² lifts both."""
    weight = torch.zeros(3, 2, dtype=torch.float64)
    long, short = torch.tensor([[3.0, 0.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
    target = torch.tensor([0])
    system = PairSystem(
        "read-out",
        lambda p: long @ p["w"].T,
        target,
        lambda p: short @ p["w"].T,
        target,
        {"w": weight},
    )
    gradient = torch.eye(3, dtype=torch.float64)[0] - 1 / 3
    moved = {"w": weight + 1e-3 * torch.outer(gradient, (long - short)[0])}
    before, after = system.logps(system.parameters), system.logps(moved)
    assert after[0] > before[0]
    assert after[1] > before[1]


@pytest.mark.claim("GR-1", "toy")
def test_group_step_is_the_sum_of_positive_and_negative_gradients(ledger: Ledger) -> None:
    """d = Σ_i (ηA_i/G)(e_{y_i} − π), and what follows from it for the right answer.

    Proof. On-policy the ratio is 1 inside the clip, so ∂L/∂log π(y_i) = −A_i/G, and ∂log π(y)/∂z is
    e_y − π: a positive step of SM-8 where A_i > 0, a negative one of SM-4 where A_i < 0. With ΣA_i
    = 0 the π terms cancel, so a label that nobody sampled has d = 0. The wrong answers' part d⁻
    changes log π(y+) by d⁻_+ − log E_π exp(d⁻) = Σ_j (η|A_j|/G)(π_+ − ‖π‖² + π(y_j)) less a lag
    between 0 and range(d⁻)²/8.
    """
    search_for_counterexample(group_step, situations(largest_vocab=1000), ledger, system=PolicyStep)


def test_the_group_step_lifts_an_unlikely_right_answer_less_than_the_masked_step_does() -> None:
    """Right and wrong below the threshold T; and above it the wrong answers' gradients help."""
    pi = torch.tensor([[0.8, 0.1, 0.05, 0.05]], dtype=torch.float64)
    for right, helps in ((3, False), (0, True)):
        wrong = torch.tensor([1])
        part = softmax.negative_step(pi.log(), wrong, 0.1)
        assert (softmax.log_prob_change(pi.log(), part)[0, right] > 0) == helps


@pytest.mark.claim("EN-1", "toy")
def test_entropy_changes_by_minus_the_covariance_of_log_pi_and_the_step(ledger: Ledger) -> None:
    """ΔH = −Cov_π(log π, d) + R, |R| ≤ ½ range(d)²(¼ + 2 log V); here d = ηπ(A − E_π A).

    Proof. H = −Σ π log π and ∂π_i/∂z_j = π_i(1[i = j] − π_j), so ∂H/∂z_j = −π_j(log π_j + H):
    the product with d is −Cov_π(log π, d). Remainder: `check_entropy_change`.
    """
    search_for_counterexample(
        entropy_change, situations(largest_vocab=1000), ledger, system=PolicyStep
    )


@pytest.mark.claim("EN-1", "toy")
def test_the_error_of_the_entropys_first_order_change_falls_as_eta_squared(ledger: Ledger) -> None:
    verdicts = entropy_change(PolicyStep(slopes=generic_situations()))
    ledger.record(*verdicts)
    assert all(verdict.supported for verdict in verdicts), verdicts


def test_entropy_falls_where_likely_labels_are_the_good_ones_and_rises_where_rare_ones_are() -> (
    None
):
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
    for advantages, sign in (([1.0, 0.0, 0.0], -1), ([0.0, 0.0, 1.0], 1)):
        step = expected_step(logits, torch.tensor([advantages]).double(), 1e-3)
        assert policy_entropy_rate(logits, step).sign() == sign
        assert (softmax.entropy(logits + step) - softmax.entropy(logits)).sign() == sign


@pytest.mark.claim("SA-1", "toy")
def test_sharpness_aware_step_gives_the_most_likely_other_label_less(ledger: Ledger) -> None:
    """π'_sam(y*) < π'(y*) for every η and ρ, and falling labels fall less, to first order.

    Proof. Put π̃ for π in g: g̃ = π̃ − e_y, and by (∗) at y* it is enough that g̃_j − g̃_* ≥ g_j − g_*
    for all j, once strictly. π̃ is a positive step of SM-8 from π: π̃_j = π_j r_j, r_j = exp(−aπ_j)/Z
    for j ≠ y, decreasing in π_j; r_* < 1 < r_y since Z is a mean of terms of which that of y* is
    least. For j = y: π̃_y > π_y and π̃_* < π_*. For the others: π_*(1 − r_*) ≥ π_j(1 − r_j), for
    both factors of the left side are the larger ones, and the left is positive.
    Second part: at η → 0 the rate of i is π̃_i − Σ_j π_j π̃_j. At a = 0 π̃_i has slope δ_i = π_i(d_i +
    T), d = e_y − π, E d = −T. So δ_i = π_i(T − π_i), and −Σ_j π_j δ_j = Σπ³ − π_y² − T‖π‖²; with
    ‖π‖² = T + π_y that is Σπ³ − ‖π‖⁴ + π_y T. Σπ³ − ‖π‖⁴ is the variance of π under π.
    """
    search_for_counterexample(
        sharpness_aware_step,
        situations(smallest_vocab=3, largest_vocab=1000),
        ledger,
        system=PolicyStep,
    )


@pytest.mark.claim("SA-1", "toy")
def test_the_error_of_sharpness_awares_relief_falls_as_rho_squared(ledger: Ledger) -> None:
    verdicts = sharpness_aware_step(PolicyStep(slopes=generic_situations()))
    ledger.record(*verdicts)
    assert all(verdict.supported for verdict in verdicts), verdicts


def test_a_sharpness_aware_step_of_radius_0_is_the_plain_one() -> None:
    @settings(max_examples=examples(50), deadline=None)
    @given(situations(largest_vocab=100))
    def search(s: Situation) -> None:
        plain = softmax.negative_step(s.logits, s.labels, s.eta)
        assert torch.equal(sharpness_aware_negative_step(s.logits, s.labels, s.eta, 0.0), plain)

    search()


def test_at_large_steps_and_radii_sharpness_awareness_can_lower_a_falling_label_further() -> None:
    """So SA-1's second part holds to first order only."""
    logits = torch.tensor([[-22.75, 1.09, 10.3, 11.14]], dtype=torch.float64)
    label = torch.tensor([0])
    assert softmax.falling_set(logits, label)[0, 1]
    radius = 7.74 * float(softmax.positive_step(logits, label, 1.0).norm())
    plain, sharp = (
        softmax.log_prob_change(logits, sharpness_aware_negative_step(logits, label, 7.94, rho))
        for rho in (0.0, radius)
    )
    assert sharp[0, 1] < plain[0, 1]
