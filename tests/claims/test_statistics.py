"""Estimators against scipy and closed forms, and what they do where those break down."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from squeeze.claims.statistics import (
    Estimate,
    crossed_mean,
    mean,
    proportion,
    rank_correlation,
    rank_correlation_gain,
    settle,
    verdict_from_interval,
)
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu

SKEWED = np.random.default_rng(7).exponential(size=60)


def test_the_mean_of_one_seed_has_scipys_t_interval():
    expected = stats.ttest_1samp(SKEWED, 0.0)
    estimate = mean(SKEWED)
    low, high = expected.confidence_interval(0.95)
    assert estimate.effect == pytest.approx(SKEWED.mean())
    assert estimate.interval == pytest.approx((low, high), rel=1e-12)
    assert (estimate.n, estimate.method) == (60, "Student's t")
    assert estimate.p(0.0) == pytest.approx(expected.pvalue)
    assert estimate.p(1.0) == pytest.approx(stats.ttest_1samp(SKEWED, 1.0).pvalue)


def test_two_examples_of_one_sign_do_not_support_a_claim():
    low, _ = mean([1.0, 2.0]).interval
    assert low < 0


def test_seeds_that_disagree_set_the_interval():
    effects = np.random.default_rng(2).normal(size=5)
    estimate = crossed_mean(np.repeat(effects[:, None], 6, axis=1))
    # The examples agree exactly, so only the seeds' spread is left.
    expected = stats.ttest_1samp(effects, 0.0).confidence_interval(0.95)
    assert estimate.interval == pytest.approx(expected)
    assert estimate.seed_means == pytest.approx(tuple(effects))
    assert (estimate.n, estimate.seeds) == (6, 5)


def test_seeds_that_agree_leave_the_interval_of_the_examples():
    expected = stats.ttest_1samp(SKEWED, 0.0).confidence_interval(0.95)
    assert crossed_mean(np.repeat(SKEWED[None], 5, axis=0)).interval == pytest.approx(expected)


def test_the_interval_is_the_widest_of_three():
    x = np.random.default_rng(3).normal(size=(3, 12)) + np.array([[0.5], [-0.4], [0.1]])
    vs, vp = x.mean(1).var(ddof=1) / 3, x.mean(0).var(ddof=1) / 12
    both = (vs + vp) ** 2 / (vs**2 / 2 + vp**2 / 11)
    halves = [
        math.sqrt(v) * stats.t.ppf(0.975, df) for v, df in ((vs, 2), (vp, 11), (vs + vp, both))
    ]
    low, high = crossed_mean(x).interval
    assert (high - low) / 2 == pytest.approx(max(halves))


def test_an_effect_of_the_detectable_size_is_found_in_80_of_100_repetitions():
    rng = np.random.default_rng(0)
    size = (stats.t.ppf(0.975, 23) + stats.t.ppf(0.8, 23)) / math.sqrt(24)
    draws = [mean(rng.normal(size, 1, 24)) for _ in range(1000)]
    found = np.mean([draw.interval[0] > 0 for draw in draws])
    assert found == pytest.approx(0.8, abs=0.04)  # three standard deviations of 1000 trials
    assert np.mean([d.detectable for d in draws]) == pytest.approx(size, rel=0.05)


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
def test_equal_values_give_a_point(n):
    expected = Estimate(2.5, (2.5, 2.5), n, "constant", seed_means=(2.5,))
    assert mean(np.full(n, 2.5)) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean([1.0]), "at least two"),
        (lambda: mean([]), "non-empty"),
        (lambda: mean([1.0, math.nan]), r"values\[1\] is nan"),
        (lambda: crossed_mean([[1.0, 2.0], [1.0, -math.inf]]), r"values\[1, 1\] is -inf"),
        (lambda: crossed_mean([[1.0], [2.0]]), "at least two"),
        (lambda: crossed_mean([1.0, 2.0]), "2 axes"),
        (lambda: rank_correlation([1, 2, 3], [1, 2, 3]), "at least 5 pairs"),
        (lambda: rank_correlation(range(6), range(7)), "must be paired"),
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


SEEDS = (100, 101, 102, 103, 104)


def verdict(interval, **changes):
    estimate = Estimate(sum(interval) / 2, interval, 10, "BCa")
    changes = {"seeds": SEEDS} | changes
    return verdict_from_interval("X-1", "toy", "a number", estimate, **changes)


@pytest.mark.parametrize(
    ("interval", "side", "outcome"),
    [
        ((0.1, 0.9), "above", "supported"),
        ((-0.1, 0.9), "above", "inconclusive"),
        ((0.0, 0.9), "above", "inconclusive"),
        ((-0.9, -0.1), "above", "contradicted"),
        ((-0.9, -0.1), "below", "supported"),
        ((-0.9, 0.0), "below", "inconclusive"),
        ((0.1, 0.9), "below", "contradicted"),
        ((0.0, 0.0), "above", "inconclusive"),
    ],
)
def test_the_whole_interval_must_lie_beyond_the_bound(interval, side, outcome):
    assert verdict(interval, bound=0.0, side=side).outcome == outcome


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [((1.95, 2.05), "supported"), ((1.95, 2.2), "inconclusive"), ((1.8, 1.85), "contradicted")],
)
def test_within_needs_both_ends_inside_the_tolerance(interval, outcome):
    assert verdict(interval, bound=2.0, side="within", tolerance=0.1).outcome == outcome


@pytest.mark.parametrize(
    ("n", "words"), [(0, "no seed"), (1, "one seed"), (3, "three seeds"), (4, "four seeds")]
)
@pytest.mark.parametrize("interval", [(0.1, 0.9), (-0.9, -0.1)])
def test_fewer_than_five_seeds_settle_nothing(n, words, interval):
    row = verdict(interval, seeds=SEEDS[:n])
    assert row.outcome == "inconclusive"
    assert row.reason.startswith(f"{words}: ")


def test_a_theorem_needs_no_five_seeds():
    assert verdict((0.1, 0.9), seeds=(0,), min_seeds=1).outcome == "supported"


@pytest.mark.parametrize(("least", "outcome"), [(0.4, "supported"), (0.6, "inconclusive")])
def test_an_effect_below_the_smallest_of_interest_supports_nothing(least, outcome):
    row = verdict((0.1, 0.9), smallest_effect=least)
    assert row.outcome == outcome
    assert ("smallest effect of interest" in row.reason) == (outcome == "inconclusive")


def rows_of(*p_values, role="secondary"):
    return [
        replace(verdict((0.1, 0.9), comparison=str(i), role=role), evidence={"p value": p})
        for i, p in enumerate(p_values)
    ]


def test_holm_corrects_a_claims_secondary_rows_for_their_number():
    """By hand: 3 · 0.01 = 0.03, 2 · 0.02 = 0.04, and 0.045 alone; then 3 · 0.02 = 0.06 and on."""
    assert [r.outcome for r in settle(rows_of(0.045, 0.01, 0.02))] == ["supported"] * 3
    settled = settle(rows_of(0.045, 0.02, 0.03))
    assert [r.outcome for r in settled] == ["inconclusive"] * 3
    assert [r.evidence["p value, Holm"] for r in settled] == pytest.approx([0.06] * 3)
    assert "Holm" in settled[0].reason


def test_holm_leaves_the_primary_row_alone_and_may_be_asked_twice():
    rows = [*rows_of(0.04, role="primary"), *rows_of(0.04, 0.001)]
    once = settle(rows)
    assert [r.outcome for r in once] == ["supported", "supported", "supported"]
    assert settle(once) == once


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
