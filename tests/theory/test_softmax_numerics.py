"""`squeeze.theory.softmax` against arithmetic of 320 digits, shapes, dtypes and vocabularies.

The reference is written from the definitions in mpmath, not from the library's closed forms; the
relative errors allowed are the library's own bound (`relative_rounding`), with stated factors.
"""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from mpmath import mp, mpf

from squeeze.claims.situations import Situation, Softmax
from squeeze.claims.softmax import check_repeated_steps_end_one_hot
from squeeze.theory import softmax as theory
from tests.examples import examples
from tests.reproduce import reproducible
from tests.theory.strategies import small_situations

pytestmark = pytest.mark.cpu

DIGITS = 320  # with logits 300 apart 1 + η(1 − π(y))² differs from 1 in digit 266
SEARCH = settings(max_examples=examples(100), deadline=None)


class Exact:
    """One situation's π, g = π − e_y and step, in arithmetic that is exact for our purposes."""

    def __init__(self, situation: Situation) -> None:
        logits = [mpf(z) for z in situation.logits[0].tolist()]
        grown = [mp.exp(z) for z in logits]
        self.label = int(situation.labels)
        self.eta = mpf(situation.eta)
        self.probs = [x / mp.fsum(grown) for x in grown]
        self.gradient = [p - (i == self.label) for i, p in enumerate(self.probs)]
        self.others = [i for i in range(len(logits)) if i != self.label]
        self.best = max(self.others, key=lambda i: self.probs[i])

    def change(self, sign: int) -> list[mpf]:
        """log π'_i − log π_i under z' = z + sign·η·g."""
        shift = [sign * self.eta * g for g in self.gradient]
        total = mp.fsum(p * mp.exp(d) for p, d in zip(self.probs, shift, strict=True))
        return [d - mp.log(total) for d in shift]

    @property
    def threshold(self) -> mpf:
        """‖π‖² − π(y)."""
        return mp.fsum(p * p for p in self.probs) - self.probs[self.label]


def relative_error(computed: torch.Tensor, exact: mpf) -> float:
    """Return |computed − exact|/|exact|; 0 where both are 0, or both below float64's range."""
    if abs(exact) < 1e-290:
        return 0.0 if abs(float(computed)) < 1e-290 else float("inf")
    return float(abs(mpf(float(computed)) - exact) / abs(exact))


@SEARCH
@given(small_situations())
def test_the_extreme_labels_changes_are_relatively_exact(s: Situation) -> None:
    """y's and y*'s change keep their relative accuracy, from 1e-36 to 10 nats."""
    with mpmath.workdps(DIGITS), reproducible(theory.negative_step, s.logits, s.labels, s.eta):
        exact = Exact(s)
        # exp(d) and the products of π and expm1(d) each inherit the bound: 8 of them, with room,
        # and e^|d| for displacements of many nats, where expm1 magnifies the error of d by |d|.
        allowed = 8 * float(theory.relative_rounding(s.logits)) * (1 + 2 * s.eta)
        moved = theory.negative_step(s.logits, s.labels, s.eta)
        best = theory.most_likely_other(s.logits, s.labels)
        at_label = theory.log_prob_change_at(s.logits, moved, s.labels)
        at_best = theory.log_prob_change_at(s.logits, moved, best)
        change = exact.change(+1)
        assert relative_error(at_label, change[exact.label]) <= allowed
        # The gap π* − π_j is lost where y* is nearly tied and y− has next to no mass: the change
        # is then off by η times the error of that gap, which no formula in π can avoid.
        spread = s.eta * float(
            mp.fsum(exact.probs[i] * exact.probs[exact.best] for i in exact.others)
        )
        assert float(abs(mpf(float(at_best)) - change[exact.best])) <= allowed * (
            float(change[exact.best]) + spread
        )


@SEARCH
@given(small_situations())
def test_every_labels_change_is_within_its_stated_rounding_bound(s: Situation) -> None:
    """`change_rounding` is a bound, and a useful one: below 1e-11 of the largest displacement."""
    with mpmath.workdps(DIGITS), reproducible(theory.change_rounding, s.logits, s.labels, s.eta):
        for sign, step in ((+1, theory.negative_step), (-1, theory.positive_step)):
            moved = step(s.logits, s.labels, s.eta)
            bound = theory.change_rounding(s.logits, moved)[0]
            computed = theory.log_prob_change(s.logits, moved)[0]
            for value, limit, exact in zip(computed, bound, Exact(s).change(sign), strict=True):
                assert abs(mpf(float(value)) - exact) <= float(limit)
            assert float(bound.max()) <= 1e-11 * (float(moved.abs().max()) + 1e-280)


@SEARCH
@given(small_situations())
def test_the_threshold_and_the_rates_agree_with_the_definition(s: Situation) -> None:
    """Errors are measured against Σ π_j |π_j − π(y)|, the terms of which the threshold is made."""
    with mpmath.workdps(DIGITS), reproducible(theory.squeezing_threshold, s.logits, s.labels):
        exact = Exact(s)
        unit = float(theory.relative_rounding(s.logits))
        terms = mp.fsum(p * abs(p - exact.probs[exact.label]) for p in exact.probs)
        threshold = theory.squeezing_threshold(s.logits, s.labels)
        assert abs(mpf(float(threshold)) - exact.threshold) <= 8 * unit * terms + mpf("1e-300")
        rates = theory.negative_rates(s.logits, s.labels)[0]
        for i, rate in enumerate(rates):
            defined = exact.gradient[i] - exact.threshold
            allowed = 8 * unit * (exact.probs[i] + terms)
            if i == exact.label:
                allowed = 8 * unit * abs(defined)
            assert abs(mpf(float(rate)) - defined) <= allowed + mpf("1e-300")


@SEARCH
@given(small_situations())
def test_the_finite_threshold_lies_between_the_first_order_one_and_the_peak(s: Situation) -> None:
    """log(Σ π_j exp(ηg_j))/η by its definition."""
    with mpmath.workdps(DIGITS), reproducible(theory.finite_threshold, s.logits, s.labels, s.eta):
        exact = Exact(s)
        defined = exact.gradient[exact.best] - exact.change(+1)[exact.best] / exact.eta
        moved = theory.negative_step(s.logits, s.labels, s.eta)
        allowed = 2 * float(theory.change_rounding(s.logits, moved).max()) / s.eta
        computed = theory.finite_threshold(s.logits, s.labels, s.eta)
        assert abs(mpf(float(computed)) - defined) <= allowed
        assert exact.threshold <= defined <= exact.probs[exact.best]


@SEARCH
@given(small_situations())
def test_the_mass_of_the_others_keeps_its_digits_near_zero(s: Situation) -> None:
    with mpmath.workdps(DIGITS), reproducible(theory.others_mass, s.logits, s.labels):
        exact = Exact(s)
        mass = mp.fsum(exact.probs[i] for i in exact.others)
        computed = theory.others_mass(s.logits, s.labels)
        assert relative_error(computed, mass) <= float(theory.relative_rounding(s.logits))


@SEARCH
@given(small_situations())
def test_the_entropys_error_is_absolute_and_not_relative(s: Situation) -> None:
    """r(1 + H), which near one-hot is more than H itself; SM-7's check asks no more than that."""
    with mpmath.workdps(DIGITS), reproducible(theory.entropy, s.logits):
        exact = -mp.fsum(p * mp.log(p) for p in Exact(s).probs)
        allowed = 4 * float(theory.relative_rounding(s.logits)) * (1 + exact)
        assert abs(mpf(float(theory.entropy(s.logits))) - exact) <= allowed


def test_rounding_near_one_hot_is_no_counterexample_to_the_limit() -> None:
    """A search once took the rounding of 1 − 1e-14 in the entropy for a counterexample to SM-7."""
    situation = Situation(2, rank=0, eta=1e-6, shape="flat", label_probability=1.03663e-14)
    assert check_repeated_steps_end_one_hot(Softmax([situation])).supported


def test_a_flat_distribution_has_threshold_exactly_zero() -> None:
    for vocab in (2, 3, 10, 49_152):
        logits = torch.full((1, vocab), 0.1, dtype=torch.float64)
        assert theory.squeezing_threshold(logits, torch.tensor([1])).item() == 0.0


def test_steps_beyond_the_range_of_exp_stay_finite() -> None:
    """η = 1e4: y* takes everything, and y's log-prob falls by η(1 − π(y)) + ηπ(y*) and a little."""
    logits = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()
    moved = theory.negative_step(logits, torch.tensor([2]), 1e4)
    change = theory.log_prob_change(logits, moved)
    expected = torch.tensor([[0.0, -2e3, -1.3e4]], dtype=torch.float64) - logits[0, 0]
    torch.testing.assert_close(change, expected)
    at = theory.log_prob_change_at(logits, moved, torch.tensor([2]))
    torch.testing.assert_close(at, expected[:, 2])


def test_falling_set_by_hand() -> None:
    """π = (.5, .3, .15, .05), y the last: ‖π‖² − π(y) = .365 − .05 lies between .3 and .5."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64).log()
    label = torch.tensor([3])
    expected = [[False, True, True, False]]
    assert theory.falling_set(logits, label).tolist() == expected
    assert theory.falling_set(logits, label, eta=1e-3).tolist() == expected
    torch.testing.assert_close(
        theory.negative_rates(logits, label),
        torch.tensor([[0.185, -0.015, -0.165, -1.265]], dtype=torch.float64),
    )


def test_captured_share_by_hand() -> None:
    """Displacements log 2, 0, log ½ on π = (¼, ½, ¼) give (4, 4, 1)/9: gains 7/36 on 0 alone."""
    logits = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()
    moved = torch.tensor([[2.0, 1.0, 0.5]], dtype=torch.float64).log()
    for label, share in ((1, 1.0), (0, 0.0)):
        got = theory.captured_share(logits, moved, torch.tensor([label]))
        torch.testing.assert_close(got, torch.tensor([share], dtype=torch.float64))
    even = torch.tensor([[2.0, 2.0, 0.5]], dtype=torch.float64).log()  # π' = (4, 8, 1)/13
    gains = (4 / 13 - 1 / 4, 8 / 13 - 1 / 2)
    got = theory.captured_share(logits, even, torch.tensor([2]))
    torch.testing.assert_close(got, torch.tensor([gains[1] / sum(gains)], dtype=torch.float64))


def test_combined_step_weights_each_gradient() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()
    moved = theory.combined_step(logits, torch.tensor([0]), torch.tensor([1]), 0.1, 3.0, 2.0)
    expected = [[0.1 * (3 * 0.5 + 2 * 0.5), 0.1 * (-3 * 0.3 - 2 * 0.7), 0.1 * (-3 * 0.2 + 2 * 0.2)]]
    torch.testing.assert_close(moved, torch.tensor(expected, dtype=torch.float64))


def test_steps_alternate_and_each_one_starts_where_the_last_ended() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    label, eta = torch.tensor([1]), 0.3
    up = logits + theory.positive_step(logits, label, eta)
    down = up + theory.negative_step(up, label, eta)
    steps = (theory.positive_step, theory.negative_step)
    path = list(theory.iterate_steps(logits, label, eta, 3, steps))
    again = down + theory.positive_step(down, label, eta)
    assert len(path) == 3
    for got, want in zip(path, (up, down, again), strict=True):
        torch.testing.assert_close(got.softmax(-1), want.softmax(-1))
        assert got.max() == 0


def test_entropy_of_known_distributions() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, -800.0, -800.0, -800.0]])
    torch.testing.assert_close(theory.entropy(logits), torch.tensor([4.0, 1.0]).log())


def all_results(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what every function of the module says of these rows."""
    moved = theory.negative_step(logits, labels, 0.5)
    eps = torch.finfo(logits.dtype).eps
    return {
        "moved": moved,
        "change": theory.log_prob_change(logits, moved),
        "change at": theory.log_prob_change_at(logits, moved, labels),
        "threshold": theory.squeezing_threshold(logits, labels),
        "finite threshold": theory.finite_threshold(logits, labels, 0.5),
        "rates": theory.negative_rates(logits, labels),
        "share": theory.captured_share(logits, moved, labels),
        "entropy": theory.entropy(logits),
        "path": [*theory.iterate_steps(logits, labels, 0.5, 2)][-1],
        "rounding, in eps": theory.change_rounding(logits, moved) / eps,
        "relative rounding, in eps": theory.relative_rounding(logits) / eps,
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_result_has_the_dtype_of_the_logits(dtype: torch.dtype) -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    results = all_results(logits, torch.tensor([0, 3, 6]))
    assert {result.dtype for result in results.values()} == {dtype}


def test_rows_of_a_batch_do_not_touch_each_other() -> None:
    """Rows of unlike spread and size, as many rows as labels so that a wrong axis still fits."""
    logits = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = logits * torch.tensor([[0.1], [1.0], [3.0], [10.0], [30.0]]) + logits[:, :1] * 20
    labels = torch.tensor([0, 3, 2, 4, 1])
    together = all_results(logits, labels)
    for row in range(5):
        alone = all_results(logits[row : row + 1], labels[row : row + 1])
        for name, result in alone.items():
            torch.testing.assert_close(together[name][row : row + 1], result, msg=name)


def test_rounding_bounds_by_hand() -> None:
    """π = (½, ½), d = (log 2, log ½): Z = 1.25, E = 0.6, D = log 2, relative error 20u + 3u."""
    u = 2.0**-53
    spread = torch.tensor([[0.0, 3.0]], dtype=torch.float64)
    assert theory.relative_rounding(spread).item() == (2 * 3 + 2 * 2 + 16) * u
    logits = torch.full((1, 2), 3.0, dtype=torch.float64)
    moved = torch.tensor([[2.0, 0.5]], dtype=torch.float64).log()
    expected = 4 * 23 * u * (math.log(2) + 0.6 + math.log(2) + math.log(1.25))
    # assert_close's default absolute tolerance is far above a bound of 1e-14
    bound = theory.change_rounding(logits, moved)[0].tolist()
    assert bound == pytest.approx([expected, expected], rel=1e-12, abs=0)


def test_a_vocabulary_of_300_000_needs_no_square_matrix() -> None:
    """V × V in float64 would be 720 GB; a batch of four takes a few vectors of 10 MB."""
    logits = 5 * torch.randn(
        4, 300_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    labels = logits.argmin(-1)
    moved = theory.negative_step(logits, labels, 1.0)
    best = theory.most_likely_other(logits, labels)
    assert (theory.log_prob_change_at(logits, moved, best) > 0).all()
    assert theory.falling_set(logits, labels, 1.0).sum(-1).min() > 299_000
