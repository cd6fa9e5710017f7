"""Effects with 95% intervals, and the one rule that turns them into verdicts.

Every estimator is scipy's; this module chooses among them, refuses input they cannot judge, and
gives defined answers where their formulas break down. It knows no claim and no model.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from squeeze.claims.types import Level, Verdict
from squeeze.errors import InputError

CONFIDENCE = 0.95
RESAMPLES = 9999
_ELEMENTS_AT_ONCE = 4_000_000  # of resampled values, about 32 MB
# The smallest sample whose perfect ordering is significant at 5% (two-sided, 2/5!); below it a
# bootstrap interval of a perfect rank correlation would be the point 1 and prove nothing.
MIN_RANKED = 5
# Values of one sign give a bootstrap interval on that side whatever their spread; under a symmetric
# null that happens with probability 2^-n a side, which is below 2.5% only from n = 6 on.
MIN_BOOTSTRAPPED = 6

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95% interval; `n` counts examples (pairs, trials), `seeds` the seeds.

    `method` says where the interval comes from: "BCa", "percentile" (where BCa's correction is
    undefined), "constant" (all values equal: the interval is a point), "Student's t" (few
    examples), "exact" (binomial). `p_value` is the exact two-sided one, of proportions only.
    """

    effect: float
    interval: tuple[float, float]
    n: int
    method: str
    seeds: int = 1
    p_value: float | None = None


def mean(values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Return the mean of one value an example, shape [examples], with its BCa bootstrap interval.

    Below six values, where a bootstrap proves nothing, the interval is Student's t.
    Raises `InputError` for fewer than two values, NaN or infinity.
    Source: Efron 1987, "Better Bootstrap Confidence Intervals"; `scipy.stats.bootstrap`.
    """
    x = _finite(values, "values", ndim=1)
    if 2 <= x.size < MIN_BOOTSTRAPPED and np.ptp(x) > 0:
        low, high = stats.ttest_1samp(x, 0.0).confidence_interval(CONFIDENCE)
        return Estimate(float(x.mean()), (float(low), float(high)), x.size, "Student's t")
    return _bootstrap((x,), lambda x, axis: np.asarray(x.mean(axis=axis)), x, resamples, seed)


def paired_difference(
    before: ArrayLike, after: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Return the mean of `after - before`, each of shape [examples], examples resampled in pairs.

    Raises `InputError` for unequal shapes, fewer than two examples, NaN or infinity.
    """
    return mean(_difference(before, after, ndim=1), resamples=resamples, seed=seed)


def paired_difference_over_seeds(
    before: ArrayLike, after: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Return the mean of `after - before`, each of shape [seeds, examples], over both.

    Seeds and examples are crossed (every seed scores the same examples), so each resample draws
    seeds and, independently, examples: the pigeonhole bootstrap, whose variance is never too small
    on average (Owen 2007, arXiv 0712.1111). With one seed only examples are resampled, and the
    interval says nothing about other seeds; with S seeds the part of the spread that is between
    seeds comes out smaller by (S - 1) / S, as in any bootstrap. Where seeds have examples of their
    own, average each seed's differences and give the averages to `mean`.

    Raises `InputError` as `paired_difference` does.
    """
    d = _difference(before, after, ndim=2)
    n_seeds, n_examples = d.shape
    if n_seeds == 1:
        return mean(d[0], resamples=resamples, seed=seed)
    if n_examples == 1:
        raise InputError("an interval over examples needs at least two of them, but there is 1")

    def crossed(seeds: NDArray[np.int64], examples: NDArray[np.int64], axis: int) -> Array:
        # scipy always resamples along the last axis, which is what `axis` (-1) says.
        cells = d[seeds[..., :, None], examples[..., None, :]]
        return np.asarray(cells.mean(axis=(-2, -1)))

    indices = (np.arange(n_seeds), np.arange(n_examples))
    return _bootstrap(indices, crossed, d, resamples, seed)


def rank_correlation(
    x: ArrayLike, y: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Return Spearman's ρ of two variables of shape [examples], with its BCa bootstrap interval.

    Pairs are resampled. A resample in which one variable is constant shows no association and
    counts as 0, and so does constant data.
    Raises `InputError` for unequal shapes, fewer than five pairs, NaN or infinity.
    """
    a, b = _ranked(x=x, y=y)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return Estimate(0.0, (0.0, 0.0), a.size, "constant")
    return _bootstrap((a, b), _spearman, a, resamples, seed, paired=True)


def rank_correlation_gain(
    x: ArrayLike, baseline: ArrayLike, y: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Return ρ(x, y) − |ρ(baseline, y)|, each of shape [examples], with its BCa interval.

    How much better than the baseline does x rank y? The baseline is given whichever sign suits it,
    x is not. Whole examples are resampled, so both correlations come from the same ones.
    Raises `InputError` as `rank_correlation` does.
    """
    a, b, c = _ranked(x=x, baseline=baseline, y=y)

    def gain(x: Array, baseline: Array, y: Array, axis: int) -> Array:
        return np.asarray(_spearman(x, y, axis) - np.abs(_spearman(baseline, y, axis)))

    if np.ptp(c) == 0:
        return Estimate(0.0, (0.0, 0.0), c.size, "constant")
    return _bootstrap((a, b, c), gain, c, resamples, seed, paired=True)


def proportion(successes: int, n: int, *, chance: float = 0.5) -> Estimate:
    """Return successes / n with its exact (Clopper-Pearson) interval; `p_value` is for `chance`.

    Trials must be independent: where one example gives many, give their shares to `mean`.
    Raises `InputError` unless 0 <= successes <= n and n >= 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"{successes} successes in {n} trials is not a proportion")
    test = stats.binomtest(int(successes), int(n), chance)
    low, high = test.proportion_ci(CONFIDENCE, method="exact")
    return Estimate(
        successes / n, (float(low), float(high)), int(n), "exact", p_value=float(test.pvalue)
    )


def sign_test(differences: ArrayLike) -> Estimate:
    """Return the share of positive values, shape [examples], among those that are not zero.

    Zeros are left out, as is usual for the sign test, and `n` does not count them; compare the
    interval with 0.5. Raises `InputError` for NaN, infinity, or if every value is zero.
    """
    d = _finite(differences, "differences", ndim=1)
    nonzero = int(np.count_nonzero(d))
    if nonzero == 0:
        raise InputError(f"a sign test needs a difference, but all {d.size} values are zero")
    return proportion(int(np.count_nonzero(d > 0)), nonzero)


def verdict_from_interval(
    claim: str,
    level: Level,
    statistic: str,
    estimate: Estimate,
    *,
    bound: float,
    side: Literal["above", "below", "within"] = "above",
    tolerance: float | None = None,
    comparison: str = "",
    seeds: Sequence[int] = (),
    evidence: Mapping[str, Any] | None = None,
) -> Verdict:
    """Return "supported" exactly if the whole interval lies on the claimed side of `bound`.

    An interval that touches the bound is not on its side. "within" claims that it lies in
    [bound - tolerance, bound + tolerance], ends included. Source: rule 4 of CLAIMS.md.
    Raises `InputError` for a NaN in estimate or bound, or if "within" lacks its tolerance.
    """
    low, high = estimate.interval
    if any(math.isnan(x) for x in (low, high, estimate.effect, bound)):
        raise InputError(f"{claim} at level {level}: effect, interval or bound is NaN")
    if (side == "within") != (tolerance is not None):
        raise InputError(f"{claim}: give a tolerance with side='within', and only then")
    if side == "above":
        supported = low > bound
    elif side == "below":
        supported = high < bound
    else:
        assert tolerance is not None  # by the check above
        supported = bound - tolerance <= low and high <= bound + tolerance
    facts: dict[str, Any] = {"side": side, "interval method": estimate.method}
    facts |= {} if tolerance is None else {"tolerance": tolerance}
    facts |= {} if estimate.p_value is None else {"p value": estimate.p_value}
    return Verdict(
        claim=claim,
        level=level,
        status="supported" if supported else "not supported",
        statistic=statistic,
        effect=estimate.effect,
        interval=estimate.interval,
        bound=bound,
        n=estimate.n,
        seeds=tuple(seeds),
        comparison=comparison,
        evidence=facts | dict(evidence or {}),
    )


# --- what scipy needs -----------------------------------------------------------------------------


def _finite(values: ArrayLike, name: str, ndim: int) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != ndim or x.size == 0:
        raise InputError(f"{name} must be a non-empty array of {ndim} axes, not of shape {x.shape}")
    bad = np.argwhere(~np.isfinite(x))
    if bad.size:
        where = tuple(int(i) for i in bad[0])
        raise InputError(
            f"{name}[{', '.join(map(str, where))}] is {x[where]}; "
            "leave the example out or find why its score is not finite"
        )
    return x


def _ranked(**variables: ArrayLike) -> list[Array]:
    """The variables as arrays, checked to be paired and enough for a rank correlation."""
    arrays = [_finite(values, name, ndim=1) for name, values in variables.items()]
    sizes = [array.size for array in arrays]
    if len(set(sizes)) > 1:
        names, counts = (" and ".join(map(str, part)) for part in (variables, sizes))
        raise InputError(f"{names} must be paired, but have {counts} values")
    if sizes[0] < MIN_RANKED:
        raise InputError(
            f"a rank correlation needs at least {MIN_RANKED} pairs, but there are {sizes[0]}"
        )
    return arrays


def _difference(before: ArrayLike, after: ArrayLike, ndim: int) -> Array:
    b, a = _finite(before, "before", ndim), _finite(after, "after", ndim)
    if a.shape != b.shape:
        raise InputError(
            f"before and after must be paired, but have shapes {b.shape} and {a.shape}"
        )
    return a - b


def _spearman(x: Array, y: Array, axis: int) -> Array:
    rx, ry = (stats.rankdata(v, axis=axis) for v in (x, y))
    rx, ry = (r - r.mean(axis=axis, keepdims=True) for r in (rx, ry))
    covariance = (rx * ry).sum(axis=axis)
    scale = np.sqrt((rx**2).sum(axis=axis) * (ry**2).sum(axis=axis))
    # Ranks step by halves, so a scale of 0 means exactly that one variable is constant.
    return np.asarray(np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0))


def _bootstrap(
    data: tuple[NDArray[Any], ...],
    statistic: Callable[..., Array],
    values: Array,
    resamples: int,
    seed: int,
    paired: bool = False,
) -> Estimate:
    """Bootstrap `statistic` of `data`; `values` are the numbers whose spread it measures."""
    n = values.shape[-1]
    n_seeds = values.shape[0] if values.ndim == 2 else 1
    if n < 2:
        raise InputError(f"an interval over examples needs at least two of them, but there is {n}")
    effect = float(statistic(*data, axis=-1))
    if np.ptp(values) == 0:
        return Estimate(effect, (effect, effect), n, "constant", n_seeds)
    # BCa is undefined where the resamples all fall on one side of the effect, or where leaving out
    # any one value changes nothing; scipy then warns and returns NaN, which is handled below.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            data,
            statistic,
            n_resamples=resamples,
            batch=max(1, _ELEMENTS_AT_ONCE // values.size),
            vectorized=True,
            paired=paired,
            axis=-1,
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = (float(end) for end in result.confidence_interval)
    method = "BCa"
    if math.isnan(low) or math.isnan(high):
        method = "percentile"
        tail = 50 * (1 - CONFIDENCE)
        low, high = np.percentile(result.bootstrap_distribution, [tail, 100 - tail]).tolist()
    return Estimate(effect, (low, high), n, method, n_seeds)
