"""Estimators against scipy and closed forms, and what they do where those break down."""

import math

import numpy as np
import pytest
from scipy import stats

from squeeze.claims.statistics import (
    Estimate,
    mean,
    paired_difference,
    paired_difference_over_seeds,
    proportion,
    rank_correlation,
    rank_correlation_gain,
    sign_test,
    verdict_from_interval,
)
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu

SKEWED = np.random.default_rng(7).exponential(size=60)


def test_mean_has_scipys_bca_interval():
    expected = stats.bootstrap(
        (SKEWED,), np.mean, n_resamples=999, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    estimate = mean(SKEWED, resamples=999, seed=3)
    assert estimate.effect == pytest.approx(SKEWED.mean())
    assert estimate.interval == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert (estimate.n, estimate.method) == (60, "BCa")


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    assert mean(SKEWED, seed=1) == mean(SKEWED, seed=1)
    assert mean(SKEWED, seed=1).interval != mean(SKEWED, seed=2).interval


def test_pairing_removes_the_spread_that_both_measurements_share():
    rng = np.random.default_rng(0)
    before = rng.normal(scale=100, size=40)
    after = before + 1 + rng.normal(scale=0.1, size=40)
    low, high = paired_difference(before, after).interval
    assert 0.9 < low < 1 < high < 1.1


def test_an_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(1)
    covered = 0
    for draw in range(200):
        low, high = mean(rng.normal(size=50), resamples=499, seed=draw).interval
        covered += low <= 0 <= high
    # Binomial(200, 0.95) is outside [180, 198] with probability below 0.5%.
    assert 180 <= covered <= 198


def test_few_examples_get_students_interval():
    values = [1.0, 2.0, 4.0]
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
    estimate = mean(values)
    assert estimate.interval == pytest.approx((7 / 3 - half, 7 / 3 + half))
    assert estimate.method == "Student's t"


def test_two_examples_of_one_sign_do_not_support_a_claim():
    low, _ = mean([1.0, 2.0]).interval
    assert low < 0


def test_over_seeds_the_interval_is_wider_than_over_examples_if_seeds_disagree():
    rng = np.random.default_rng(5)
    before = np.zeros((5, 30))
    after = rng.normal(size=(5, 1)) + rng.normal(scale=0.1, size=(5, 30))
    both = paired_difference_over_seeds(before, after)
    pooled = mean((after - before).mean(axis=0))
    assert both.effect == pytest.approx(pooled.effect)
    assert (both.n, both.seeds) == (30, 5)
    assert np.ptp(both.interval) > 5 * np.ptp(pooled.interval)


def test_over_seeds_the_bootstrap_has_the_pigeonhole_variance():
    # Seed effects only: resampling S seeds gives their mean the variance Σ(a - ā)² / S².
    effects = np.random.default_rng(2).normal(size=40)
    after = np.repeat(effects[:, None], 6, axis=1)
    low, high = paired_difference_over_seeds(np.zeros((40, 6)), after).interval
    expected = 2 * 1.96 * effects.std() / math.sqrt(40)
    assert high - low == pytest.approx(expected, rel=0.1)  # 9999 resamples: ends to about 2%


def test_one_seed_is_judged_over_its_examples():
    one = paired_difference_over_seeds(np.zeros((1, 60)), SKEWED[None])
    assert one == mean(SKEWED)


def test_rank_correlation_is_spearmans_and_sees_only_ranks():
    y = SKEWED + np.random.default_rng(4).normal(size=60)
    estimate = rank_correlation(SKEWED, y)
    assert estimate.effect == pytest.approx(stats.spearmanr(SKEWED, y).statistic, rel=1e-12)
    assert estimate.interval[0] < estimate.effect < estimate.interval[1]
    assert rank_correlation(np.exp(SKEWED), y).interval == estimate.interval


def test_rank_correlation_interval_is_scipys_bca_over_pairs():
    x, y = SKEWED[:12], SKEWED[:12] + SKEWED[12:24]
    expected = stats.bootstrap(
        (x, y),
        lambda x, y: stats.spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=499,
        rng=np.random.default_rng(3),
    ).confidence_interval
    # Batches consume the generator differently from one call a resample, so the draws differ:
    # 499 resamples place an end within about 0.1 of another 499.
    interval = rank_correlation(x, y, resamples=499, seed=3).interval
    assert interval == pytest.approx((expected.low, expected.high), abs=0.1)


@pytest.mark.parametrize(
    ("x", "effect"), [(range(8), 1.0), (range(8, 0, -1), -1.0)], ids=["perfect", "reversed"]
)
def test_a_perfect_ordering_gives_a_point(x, effect):
    estimate = rank_correlation(list(x), range(8))
    assert estimate.effect == pytest.approx(effect)
    assert estimate.interval == pytest.approx((effect, effect))


def test_a_constant_variable_has_no_rank_correlation():
    assert rank_correlation([1.0] * 8, range(8)) == Estimate(0.0, (0.0, 0.0), 8, "constant")


def test_resamples_without_variation_do_not_turn_an_interval_into_nan():
    low, high = rank_correlation([1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 2]).interval
    assert -1 <= low <= 0 < high <= 1


@pytest.mark.parametrize("n", [2, 5, 6, 100])
def test_equal_differences_give_a_point(n):
    assert paired_difference(np.zeros(n), np.full(n, 2.5)) == Estimate(
        2.5, (2.5, 2.5), n, "constant"
    )


def test_one_deviating_example_keeps_the_interval_finite():
    low, high = mean([0.0] * 9 + [1.0]).interval
    assert 0 <= low < high <= 1


def test_values_too_large_for_bcas_third_moment_fall_back_to_percentiles():
    estimate = mean([1e300, 2e300, 3e300, 4e300, 5e300, 6e300, 8e300])
    assert estimate.method == "percentile"
    assert 1e300 < estimate.interval[0] < estimate.effect < estimate.interval[1] < 8e300


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([1.0]), "at least two"),
        (lambda: mean([]), "non-empty"),
        (lambda: mean([1.0, math.nan]), r"values\[1\] is nan"),
        (lambda: paired_difference([1.0, -math.inf], [1.0, 2.0]), r"before\[1\] is -inf"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "must be paired"),
        (lambda: paired_difference_over_seeds([[1.0], [2.0]], [[1.0], [3.0]]), "at least two"),
        (lambda: paired_difference_over_seeds([1.0, 2.0], [1.0, 3.0]), "2 axes"),
        (lambda: rank_correlation([1, 2, 3], [1, 2, 3]), "at least 5 pairs"),
        (lambda: rank_correlation(range(6), range(7)), "must be paired"),
        (lambda: sign_test([0.0, 0.0]), "all 2 values are zero"),
        (lambda: proportion(3, 2), "3 successes in 2 trials"),
        (lambda: proportion(0, 0), "0 trials"),
    ],
)
def test_input_that_cannot_be_judged_is_refused_with_the_reason(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_proportion_has_the_clopper_pearson_interval():
    estimate = proportion(20, 20)
    # Closed form for n successes in n trials: the low end is (0.025)^(1/n).
    assert estimate.interval == pytest.approx((0.025 ** (1 / 20), 1.0))
    assert estimate.p_value == pytest.approx(2 * 0.5**20)


def test_sign_test_leaves_out_ties():
    estimate = sign_test([1.0, 2.0, 3.0, -1.0, 0.0, 0.0])
    assert (estimate.effect, estimate.n) == (0.75, 4)
    assert estimate.p_value == pytest.approx(10 / 16)  # two-sided: 2·(4 + 1)/2⁴


def verdict(interval, **changes):
    estimate = Estimate(sum(interval) / 2, interval, 10, "BCa")
    return verdict_from_interval("X-1", "toy", "a number", estimate, **changes)


@pytest.mark.parametrize(
    ("interval", "side", "status"),
    [
        ((0.1, 0.9), "above", "supported"),
        ((-0.1, 0.9), "above", "not supported"),
        ((0.0, 0.9), "above", "not supported"),
        ((-0.9, -0.1), "above", "not supported"),
        ((-0.9, -0.1), "below", "supported"),
        ((-0.9, 0.0), "below", "not supported"),
        ((0.1, 0.9), "below", "not supported"),
        ((0.0, 0.0), "above", "not supported"),
    ],
)
def test_supported_means_that_the_whole_interval_lies_beyond_the_bound(interval, side, status):
    assert verdict(interval, bound=0.0, side=side).status == status


@pytest.mark.parametrize(
    ("interval", "status"),
    [((1.95, 2.05), "supported"), ((1.95, 2.2), "not supported"), ((1.8, 2.0), "not supported")],
)
def test_within_needs_both_ends_inside_the_tolerance(interval, status):
    assert verdict(interval, bound=2.0, side="within", tolerance=0.1).status == status


def test_a_verdict_keeps_what_it_was_judged_on():
    v = verdict((0.1, 0.9), bound=0.0, comparison="held-out", seeds=[100, 101], evidence={"a": 1})
    assert (v.effect, v.interval, v.bound, v.n) == (0.5, (0.1, 0.9), 0.0, 10)
    assert (v.comparison, v.seeds, v.evidence["a"]) == ("held-out", (100, 101), 1)
    assert v.evidence["interval method"] == "BCa"


def test_a_nan_is_no_verdict():
    with pytest.raises(InputError, match="NaN"):
        verdict((math.nan, 1.0), bound=0.0)


def test_a_tolerance_belongs_to_within_alone():
    with pytest.raises(InputError, match="tolerance"):
        verdict((0.1, 0.9), bound=0.0, side="within")


def test_a_gain_in_rank_correlation_gives_the_baseline_the_sign_that_suits_it():
    rng = np.random.default_rng(5)
    y = SKEWED + 0.3 * rng.normal(size=60)
    weak = SKEWED + 3 * rng.normal(size=60)
    rho, baseline = (stats.spearmanr(x, y).statistic for x in (SKEWED, weak))
    estimate = rank_correlation_gain(SKEWED, -weak, y)
    assert estimate.effect == pytest.approx(rho - abs(baseline), rel=1e-12)
    assert 0 < estimate.interval[0] < estimate.effect < estimate.interval[1]
    assert rank_correlation_gain(-SKEWED, weak, y).effect == pytest.approx(-rho - abs(baseline))


def test_a_predictor_gains_nothing_on_itself():
    estimate = rank_correlation_gain(SKEWED, SKEWED, SKEWED + SKEWED[::-1])
    assert estimate.interval[0] <= 0 <= estimate.interval[1]
