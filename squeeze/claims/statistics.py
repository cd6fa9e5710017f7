"""Effects with 95% intervals, and the one rule that turns them into outcomes.

Means have Student's t intervals over seeds and prompts (crossed), correlations a bootstrap's. This
module refuses input that its estimators cannot judge; it knows no claim and no model.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from squeeze.claims.types import Level, Role, Side, Verdict
from squeeze.errors import InputError

CONFIDENCE = 0.95
POWER = 0.8
RESAMPLES = 9999
# An observation on fewer seeds says nothing of others, so it is never supported.
MIN_SEEDS = 5
_ELEMENTS_AT_ONCE = 4_000_000  # of resampled values, about 32 MB
# The smallest sample whose perfect ordering is significant at 5% (two-sided, 2/5!); below it a
# bootstrap interval of a perfect rank correlation would be the point 1 and prove nothing.
MIN_RANKED = 5

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95% interval; `n` counts examples (pairs, trials), `seeds` the seeds.

    `method` says where the interval comes from: "Student's t", "constant" (all values equal: the
    interval is a point), "BCa" or "percentile" (bootstrap), "exact" (binomial). `spreads` are the
    (standard error, degrees of freedom) whose widest t interval it is; `p_values` of tests against
    a bound come from them. `seed_means` is the effect by seed.
    """

    effect: float
    interval: tuple[float, float]
    n: int
    method: str
    seeds: int = 1
    p_value: float | None = None
    seed_means: tuple[float, ...] = ()
    spreads: tuple[tuple[float, float], ...] = ()

    def p(self, bound: float) -> float | None:
        """Two-sided p-value of "the effect is `bound`"; None where the method has none."""
        if not self.spreads:
            return self.p_value
        distance = abs(self.effect - bound)
        return max(
            float(2 * stats.t.sf(distance / se, df)) if se else 0.0 for se, df in self.spreads
        )

    @property
    def detectable(self) -> float | None:
        """The smallest effect that 80% of repetitions of this design would tell from 0.

        (t_0.975 + t_0.8) standard errors, of the spread that sets the interval.
        """
        if not self.spreads:
            return None
        tails = ((1 + CONFIDENCE) / 2, POWER)
        return max(se * float(stats.t.ppf(tails, df).sum()) for se, df in self.spreads)


def mean(values: ArrayLike) -> Estimate:
    """Return the mean of one value an example, shape [examples], with Student's t interval.

    Raises `InputError` for fewer than two values, NaN or infinity.
    """
    return crossed_mean(_finite(values, "values", ndim=1)[None])


def crossed_mean(values: ArrayLike) -> Estimate:
    """Return the mean of values [seeds, examples], every seed having scored the same examples.

    Seeds and examples are both samples. The interval is the widest of three of Student's t: over
    the seeds' means, over the examples' means, and with the sum of both variances and
    Satterthwaite's degrees of freedom. The first two alone miss the other's share, the third is
    too narrow for three seeds; together their one-sided error is below 3% in simulation
    (tests/claims/test_false_support.py). With one seed it is the examples' and says nothing about
    other seeds. Where seeds have examples of their own, give their averages to `mean`.

    Raises `InputError` for fewer than two examples, NaN or infinity.
    """
    x = _finite(values, "values", ndim=2)
    n_seeds, n_examples = x.shape
    if n_examples < 2:
        raise InputError(
            f"an interval over examples needs at least two of them, but there is {n_examples}"
        )
    effect, by_seed = float(x.mean()), x.mean(axis=1)
    seed_means = tuple(by_seed.tolist())
    if np.ptp(x) == 0:
        point = (effect, effect)
        return Estimate(effect, point, n_examples, "constant", n_seeds, seed_means=seed_means)
    errors, freedom = crossed_spreads(x)
    half = float(half_width(errors, freedom))
    spreads = tuple(zip(errors.tolist(), freedom.tolist(), strict=True))
    interval = (effect - half, effect + half)
    name = "Student's t"
    return Estimate(
        effect, interval, n_examples, name, n_seeds, seed_means=seed_means, spreads=spreads
    )


def crossed_spreads(x: Array) -> tuple[Array, Array]:
    """Standard errors and degrees of freedom of the mean of [..., seeds, examples], [3, ...].

    Over the seeds' means, over the examples' means, and of both together (Satterthwaite); with one
    seed [1, ...], the examples' alone. See `crossed_mean`.
    """
    n_seeds, n_examples = x.shape[-2:]
    variances = [x.mean(axis=-2).var(axis=-1, ddof=1) / n_examples]
    freedom = [np.full_like(variances[0], n_examples - 1)]
    if n_seeds > 1:
        variances.append(x.mean(axis=-1).var(axis=-1, ddof=1) / n_seeds)
        freedom.append(np.full_like(variances[1], n_seeds - 1))
        total = variances[0] + variances[1]
        squares = sum(v**2 / df for v, df in zip(variances, freedom, strict=True))
        variances.append(total)
        freedom.append(np.divide(total**2, squares, out=np.ones_like(total), where=squares > 0))
    return np.sqrt(np.stack(variances)), np.stack(freedom)


def half_width(errors: Array, freedom: Array) -> Array:
    """Half the widest of the 95% t intervals of `crossed_spreads`, [...]."""
    return np.asarray((errors * stats.t.ppf((1 + CONFIDENCE) / 2, freedom)).max(axis=0))


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
    return _bootstrap((a, b), _spearman, resamples, seed)


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
    return _bootstrap((a, b, c), gain, resamples, seed)


def proportion(successes: int, n: int) -> Estimate:
    """Return successes / n with its exact (Clopper-Pearson) interval; `p_value` is for 1/2.

    Trials must be independent: where one example gives many, give their shares to `mean`.
    Raises `InputError` unless 0 <= successes <= n and n >= 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"{successes} successes in {n} trials is not a proportion")
    test = stats.binomtest(int(successes), int(n))
    low, high = test.proportion_ci(CONFIDENCE, method="exact")
    return Estimate(
        successes / n, (float(low), float(high)), int(n), "exact", p_value=float(test.pvalue)
    )


def verdict_over_seeds(
    claim: str,
    level: Level,
    statistic: str,
    by_seed: Sequence[float],
    *,
    seeds: Sequence[int],
    bound: float = 0.0,
    side: Side = "above",
    comparison: str = "",
    evidence: Mapping[str, Any] | None = None,
    role: Role = "primary",
) -> Verdict:
    """The row of one number a seed, by Student's t over seeds; not run with fewer than two."""
    if len(by_seed) < 2:
        return Verdict(
            claim, level, "not run", statistic, comparison=comparison, role=role, side=side,
            reason="needs at least two seeds",
        )  # fmt: skip
    means = [float(value) for value in by_seed]
    return verdict_from_interval(
        claim, level, statistic, replace(mean(means), seeds=len(means), seed_means=tuple(means)),
        bound=bound, side=side, comparison=comparison, seeds=seeds, evidence=evidence, role=role,
    )  # fmt: skip


def verdict_from_interval(
    claim: str,
    level: Level,
    statistic: str,
    estimate: Estimate,
    *,
    bound: float = 0.0,
    side: Side = "above",
    tolerance: float | None = None,
    comparison: str = "",
    seeds: Sequence[int] = (),
    evidence: Mapping[str, Any] | None = None,
    role: Role = "primary",
    smallest_effect: float | None = None,
    min_seeds: int = MIN_SEEDS,
) -> Verdict:
    """Return the row of an estimate, with the outcome that `decide` gives it.

    "within" claims that the interval lies in [bound - tolerance, bound + tolerance], ends included.
    Theorems and trends, which hold whatever the seed, pass `min_seeds=1`.
    Raises `InputError` for a NaN in estimate or bound, or if "within" lacks its tolerance.
    """
    low, high = estimate.interval
    if any(math.isnan(x) for x in (low, high, estimate.effect, bound)):
        raise InputError(f"{claim} at level {level}: effect, interval or bound is NaN")
    if (side == "within") != (tolerance is not None):
        raise InputError(f"{claim}: give a tolerance with side='within', and only then")
    p_value = estimate.p(bound)
    facts: dict[str, Any] = {"interval method": estimate.method}
    facts |= {} if tolerance is None else {"tolerance": tolerance}
    facts |= {} if p_value is None else {"p value": p_value}
    row = Verdict(
        claim=claim,
        level=level,
        outcome="inconclusive",
        statistic=statistic,
        effect=estimate.effect,
        interval=estimate.interval,
        bound=bound,
        n=estimate.n,
        seeds=tuple(seeds),
        comparison=comparison,
        evidence=facts | dict(evidence or {}),
        side=side,
        role=role,
        smallest_effect=smallest_effect,
        detectable=estimate.detectable,
        seed_means=estimate.seed_means if estimate.seeds > 1 else (),
    )
    return decide(row, min_seeds)


def decide(row: Verdict, min_seeds: int = MIN_SEEDS) -> Verdict:
    """Return the row with the outcome that its own numbers give it, and the reason in words.

    Supported: the whole interval lies on the claimed side of the bound (one that touches it does
    not), the effect is no smaller than the registered smallest effect of interest, and there are
    `min_seeds` seeds. Contradicted: the whole interval lies on the other side, on as many seeds.
    Otherwise inconclusive. Rows that were not run, or whose premise was not met, stay as they are.
    """
    if row.outcome in ("not run", "premise not met"):
        return row
    settled = row.on_claimed_side or row.on_other_side
    if not settled:
        return replace(row, outcome="inconclusive", reason="")
    if len(row.seeds) < min_seeds:
        where = "claimed" if row.on_claimed_side else "other"
        number = {0: "no seed", 1: "one seed", 2: "two seeds", 3: "three seeds", 4: "four seeds"}
        seeds = number.get(len(row.seeds), f"{len(row.seeds)} seeds")
        reason = f"{seeds}: on the {where} side here, which says nothing of other seeds"
        return replace(row, outcome="inconclusive", reason=reason)
    if row.on_other_side:
        return replace(row, outcome="contradicted", reason="")
    least, effect = row.smallest_effect, row.effect
    if least is not None and effect is not None and abs(effect - (row.bound or 0.0)) < least:
        reason = f"smaller than the smallest effect of interest, {least:g}"
        return replace(row, outcome="inconclusive", reason=reason)
    return replace(row, outcome="supported", reason="")


def settle(rows: Sequence[Verdict]) -> list[Verdict]:
    """Correct a claim's secondary rows at a level for their number, by Holm's method.

    A row whose adjusted p-value exceeds 5% becomes inconclusive; primary rows stay as they are.
    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    at = [i for i, row in enumerate(rows) if row.role == "secondary" and "p value" in row.evidence]
    settled, worst = list(rows), 0.0
    for place, i in enumerate(sorted(at, key=lambda i: float(rows[i].evidence["p value"]))):
        row = rows[i]
        worst = max(worst, min(1.0, (len(at) - place) * float(row.evidence["p value"])))
        row = replace(row, evidence={**row.evidence, "p value, Holm": worst})
        if row.outcome in ("supported", "contradicted") and worst > 1 - CONFIDENCE:
            reason = f"Holm's correction for {len(at)} secondary rows: p = {worst:.2g}"
            row = replace(row, outcome="inconclusive", reason=reason)
        settled[i] = row
    return settled


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


def _spearman(x: Array, y: Array, axis: int) -> Array:
    rx, ry = (stats.rankdata(v, axis=axis) for v in (x, y))
    rx, ry = (r - r.mean(axis=axis, keepdims=True) for r in (rx, ry))
    covariance = (rx * ry).sum(axis=axis)
    scale = np.sqrt((rx**2).sum(axis=axis) * (ry**2).sum(axis=axis))
    # Ranks step by halves, so a scale of 0 means exactly that one variable is constant.
    return np.asarray(np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0))


def _bootstrap(
    data: tuple[Array, ...], statistic: Callable[..., Array], resamples: int, seed: int
) -> Estimate:
    """BCa interval of a `statistic` of paired variables, each [examples]."""
    n = data[0].size
    effect = float(statistic(*data, axis=-1))
    # BCa is undefined where the resamples all fall on one side of the effect, or where leaving out
    # any one value changes nothing; scipy then warns and returns NaN, which is handled below.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            data,
            statistic,
            n_resamples=resamples,
            batch=max(1, _ELEMENTS_AT_ONCE // n),
            vectorized=True,
            paired=True,
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
    below = float(np.mean(result.bootstrap_distribution <= 0))
    p_value = min(1.0, 2 * max(min(below, 1 - below), 1 / resamples))
    return Estimate(effect, (low, high), n, method, p_value=p_value)
