"""The squeezing lemma, a sentence a test: what one gradient step on one label does to a softmax.

Setting. z ∈ R^V are logits, π = softmax(z), y the label that is pushed, e_y its one-hot vector, and
g = π − e_y. A negative gradient of size η > 0 gives z' = z + ηg, a positive one z' = z − ηg. So for
every label

    log π'_i − log π_i  =  ηg_i − log Σ_j π_j exp(ηg_j)  =  −log Σ_j π_j exp(η(g_j − g_i)).    (∗)

y− is a label pushed down, y+ one pushed up, y* the most likely label other than the pushed one.
Every search below runs over flat, tied and peaky π, V from 2 to 100,000, π(y) from 1e-30 to
1 − 1e-12 and η from 1e-6 to 10; the checks are in `squeeze.claims.softmax`.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from squeeze.claims.situations import Situation, Softmax
from squeeze.claims.softmax import (
    check_most_likely_other_gains,
    check_positive_step_mirrors,
    check_pushed_down_label_falls,
    check_repeated_steps_end_one_hot,
    check_rich_get_richer,
    check_same_context_cancels,
    check_squeezing_threshold,
    check_unlikely_label_squeezes_more,
)
from squeeze.claims.softmax_trend import check_peakier_squeezes_more
from squeeze.theory import softmax as theory
from tests.examples import examples
from tests.reproduce import reproducible
from tests.theory.assertions import Ledger, search_for_counterexample
from tests.theory.strategies import situations

pytestmark = pytest.mark.cpu


@pytest.mark.claim("SM-1", "toy")
def test_the_pushed_down_label_loses(ledger: Ledger) -> None:
    """π'(y−) < π(y−).

    Proof. Put i = y− in (∗). g_{y−} = π(y−) − 1 < 0 ≤ g_j for every other j: the sum exceeds 1.
    """
    search_for_counterexample(check_pushed_down_label_falls, situations(), ledger)


@pytest.mark.claim("SM-2", "toy")
def test_the_most_likely_other_label_gains(ledger: Ledger) -> None:
    """π'(y*) > π(y*), also where several labels tie for y*, or y− was the most likely of all.

    Proof. Put i = y* in (∗). No g_j exceeds g_{y*} = π(y*) and g_{y−} is below it: the sum is
    below 1.
    """
    search_for_counterexample(check_most_likely_other_gains, situations(), ledger)


@pytest.mark.claim("SM-3", "toy")
def test_among_the_others_the_rich_get_richer(ledger: Ledger) -> None:
    """For i, j ≠ y−: π_i > π_j implies π'_i/π_i > π'_j/π_j.

    Proof. By (∗) the logarithms of the two ratios differ by η(g_i − g_j) = η(π_i − π_j).
    """
    search_for_counterexample(check_rich_get_richer, situations(smallest_vocab=3), ledger)


@pytest.mark.claim("SM-4", "toy")
def test_labels_below_the_squeezing_threshold_fall_and_those_above_rise(ledger: Ledger) -> None:
    """d log π_i/dη = π_i − (‖π‖² − π(y−)) at η = 0, for i ≠ y−.

    Proof. Differentiate (∗): g_i − Σ_j π_j g_j, and Σ_j π_j g_j = ‖π‖² − π(y−). At a finite step
    (log π'_i − log π_i)/η is below this rate (Jensen), by at most η(1 − π(y−) + π(y*))²/8
    (Hoeffding's lemma, the range of g being 1 − π(y−) + π(y*)); the search tests both sides.
    """
    search_for_counterexample(check_squeezing_threshold, situations(), ledger)


def test_labels_at_or_below_the_threshold_fall_at_every_step_size() -> None:
    """π_i ≤ ‖π‖² − π(y−) implies π'_i < π_i whatever η: the falling set only grows with η.

    Proof. (1/η) log Σ_j π_j exp(ηg_j) increases in η, from ‖π‖² − π(y−) to π(y*).
    """

    @settings(max_examples=examples(100), deadline=None)
    @given(situations(largest_vocab=1000))
    def search(s: Situation) -> None:
        with reproducible(theory.falling_set, s.logits[:, :50], s.labels, s.eta):
            change = theory.log_prob_change(
                s.logits, theory.negative_step(s.logits, s.labels, s.eta)
            )
            rounding = theory.change_rounding(
                s.logits, theory.negative_step(s.logits, s.labels, s.eta)
            )
            assert (change <= rounding)[theory.falling_set(s.logits, s.labels)].all()

    search()


def test_beyond_first_order_others_may_fall_though_pi_of_y_exceeds_the_peakiness() -> None:
    """That nobody else falls if π(y−) ≥ ‖π‖² is true as η → 0, and false for a large step."""
    logits = torch.tensor([[0.5, 0.49, 0.01]], dtype=torch.float64).log()
    label = torch.tensor([0])
    assert theory.squeezing_threshold(logits, label) < 0
    assert not theory.falling_set(logits, label).any()
    assert theory.falling_set(logits, label, eta=10.0).tolist() == [[False, False, True]]


@pytest.mark.claim("SM-5", "toy")
def test_a_peakier_distribution_squeezes_more_on_average(ledger: Ledger) -> None:
    """Halving the temperature of z ~ N(0, 2²)^50 makes more labels fall and y*'s share larger.

    A trend: y− is drawn among the labels that are not the most likely, η = 0.5, 1,000 draws; the
    95% BCa bootstrap interval of the mean paired difference lies above 0.
    """
    verdicts = check_peakier_squeezes_more(Softmax())
    ledger.record(*verdicts)
    assert [verdict.outcome for verdict in verdicts] == ["supported", "supported"]


def test_sharpening_cannot_add_falling_labels_where_y_is_the_most_likely() -> None:
    """π(y−) = max π implies π(y−) ≥ ‖π‖²: to first order nobody else falls, however sharp π is.

    Proof. ‖π‖² ≤ max π · Σ_j π_j. This is why SM-5 draws y− among the other labels.
    """

    @settings(max_examples=examples(100), deadline=None)
    @given(situations(largest_vocab=1000))
    def search(s: Situation) -> None:
        best = s.logits.argmax(-1)
        with reproducible(theory.squeezing_threshold, s.logits[:, :50], best):
            assert theory.squeezing_threshold(s.logits, best) <= 0
            assert not theory.falling_set(s.logits, best).any()

    search()


@pytest.mark.claim("SM-6", "toy")
def test_a_less_likely_label_squeezes_more(ledger: Ledger) -> None:
    """The others' relative odds q fixed, the set of falling labels only grows as π(y−) shrinks.

    Proof. With p = π(y−), π_i = (1 − p)q_i and ‖π‖² = p² + (1 − p)²‖q‖², so by SM-4 label i falls
    iff q_i < ‖q‖² − p(1 + ‖q‖²), which decreases in p. At a finite step it falls iff
    q_i < log E exp(aX)/a with a = η(1 − p), X = −1 with probability p, else q_j with probability
    (1 − p)q_j: increasing in a, and decreasing in p, which lowers a as well.
    """
    search_for_counterexample(check_unlikely_label_squeezes_more, situations(3), ledger)


@pytest.mark.claim("SM-7", "toy")
def test_repeated_negative_steps_end_one_hot_on_the_most_likely_other(ledger: Ledger) -> None:
    """If y* is unique, π → e_{y*} and the entropy → 0, the odds against y* shrinking geometrically.

    Proof. By (∗) a step lowers log(π_i/π*) by η(π* − π_i) for i ≠ y−, and by η(π* + 1 − π(y−)) for
    y−. π* rises (SM-2) and π_i/π* falls (SM-3), so no step is smaller than the first.
    """
    few = situations(smallest_vocab=2, largest_vocab=1000)
    search_for_counterexample(check_repeated_steps_end_one_hot, few, ledger, usual_examples=100)


def test_tied_most_likely_labels_share_the_limit_and_the_entropy_stays() -> None:
    """Without a unique y* the limit is uniform over the tied, so SM-7 needs its condition."""
    logits = torch.tensor([[2.0, 2.0, 1.0, 0.0]], dtype=torch.float64)
    (*_, last) = theory.iterate_steps(logits, torch.tensor([3]), eta=1.0, n_steps=500)
    torch.testing.assert_close(
        last.softmax(-1), torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=torch.float64)
    )


def test_entropy_may_rise_before_it_vanishes() -> None:
    """Pushing down the peak itself flattens π first: SM-7 is about the limit, not every step."""
    logits = torch.tensor([[3.0, 1.0, 0.0]], dtype=torch.float64)
    path = theory.iterate_steps(logits, torch.tensor([0]), eta=0.5, n_steps=200)
    entropies = torch.cat([theory.entropy(logits), *(theory.entropy(after) for after in path)])
    assert entropies[1] > entropies[0]
    assert entropies[-1] < 1e-6


@pytest.mark.claim("SM-8", "toy")
def test_the_positive_step_is_the_mirror_image(ledger: Ledger) -> None:
    """d log π_i/dη = (‖π‖² − π(y+)) − π_i at η = 0, for i ≠ y+.

    Proof. As SM-4 with −g for g. At a finite step (log π'_i − log π_i)/η lags behind this rate,
    too, by at most η(1 − π(y+) + π(y*))²/8.
    """
    search_for_counterexample(check_positive_step_mirrors, situations(), ledger)


def test_unlikely_labels_rise_under_a_positive_step_if_the_raised_label_is_unlikely() -> None:
    """π(y+) small beside ‖π‖²: the unlikely rise with y+, the likely pay. SFT flattens."""
    logits = torch.tensor([[0.7, 0.2, 0.05, 0.04, 0.01]], dtype=torch.float64).log()
    label = torch.tensor([4])
    change = theory.log_prob_change(logits, theory.positive_step(logits, label, 0.1))
    assert (change > 0).tolist() == [[False, True, True, True, True]]


def test_a_positive_step_draws_the_others_together_unless_it_overshoots() -> None:
    """|log(π'_i/π'_j)| ≤ |log(π_i/π_j)| for i, j ≠ y+ and η ≤ 4/(1 − π(y+)); beyond, odds can flip.

    Proof. log(π_i/π_j) shrinks by η(π_i − π_j), and (π_i − π_j)/log(π_i/π_j), the logarithmic mean,
    is below (π_i + π_j)/2 ≤ (1 − π(y+))/2: the shrinkage is below twice what there was.
    """

    @settings(max_examples=examples(100), deadline=None)
    @given(situations(smallest_vocab=3, largest_vocab=1000))
    def search(s: Situation) -> None:
        moved = theory.positive_step(s.logits, s.labels, min(s.eta, 4.0))
        others = torch.arange(s.logits.shape[-1]) != s.labels
        order = s.logits[0, others].argsort()
        before, shift = s.logits[0, others][order].diff(), moved[0, others][order].diff()
        # A displacement carries its relative error; ties may be parted by that much.
        slack = 2 * theory.relative_rounding(s.logits) * moved.abs().max()
        with reproducible(theory.positive_step, s.logits[:, :50], s.labels, s.eta):
            assert (shift <= slack).all()
            assert (shift >= -2 * before - slack).all()

    search()
    logits = torch.tensor([[0.5, 0.4, 0.1]], dtype=torch.float64).log()
    after = logits + theory.positive_step(logits, torch.tensor([2]), eta=10.0)
    assert after[0, 0] < after[0, 1]


@pytest.mark.claim("SM-9", "toy")
def test_chosen_and_rejected_in_the_same_context_cancel(ledger: Ledger) -> None:
    """z' = z + η(e_{y+} − e_{y−}): the others keep their odds among themselves, no squeeze.

    Proof. η(e_{y+} − π) + η(π − e_{y−}): the π terms cancel. y+ has the largest displacement and y−
    the smallest, so by (∗) y+ gains and y− loses.
    """
    search_for_counterexample(check_same_context_cancels, situations(smallest_vocab=4), ledger)


@pytest.mark.parametrize(("chosen", "rejected", "fall"), [(0, 3, True), (3, 0, False)])
def test_in_the_same_context_the_others_share_one_factor(
    chosen: int, rejected: int, fall: bool
) -> None:
    """The others may all fall or all rise: down iff π(y+)e^η > π(y−). That is no squeeze."""
    logits = torch.tensor([[0.6, 0.2, 0.1, 0.1]], dtype=torch.float64).log()
    moved = theory.combined_step(logits, torch.tensor([chosen]), torch.tensor([rejected]), 0.5)
    change = theory.log_prob_change(logits, moved)[0, 1:3]
    assert change[0] == change[1]
    assert bool(change[0] < 0) is fall


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_unequal_weights_leave_the_rest_of_the_squeeze(weight: float) -> None:
    """η(w₋ − w₊)π stays on the others: a heavier rejected squeezes, a heavier chosen flattens."""
    logits = torch.tensor([[0.6, 0.2, 0.1, 0.1]], dtype=torch.float64).log()
    moved = theory.combined_step(
        logits, torch.tensor([2]), torch.tensor([3]), 0.5, rejected_weight=weight
    )
    expected = 0.5 * (weight - 1) * torch.tensor([0.6, 0.2], dtype=torch.float64)
    torch.testing.assert_close(moved[0, :2], expected)
