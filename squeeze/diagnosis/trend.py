"""Trends of one noisy series: where it peaks, how far it falls from there, and how sure that is.

The series is averaged into at most `MAX_POINTS` points. Where the log has the examples behind each
mean, they are resampled. Otherwise the points are smoothed by a local line and their noise around
it is resampled in blocks (Künsch 1989, "The jackknife and the bootstrap for general stationary
observations"). The start is never smoothed: on a fixed set it is exact, and a smoother would pull
in a true fall at the first step. No verdict is drawn here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from squeeze.diagnosis.series import Array, Series

MAX_POINTS = 40
# Fewer evaluations, without the examples behind them, do not tell their noise: three or four find
# 1 in 100 of the bad runs that `calibration` simulates at up to 1% noise; five find 60.
FEWEST = 5
RESAMPLES = 1999
CONFIDENCE = 0.95
_TRIM = 0.1  # of a bin's values at either end: trainer logs spike
# Evaluations near in time share noise (lag-1 correlation 0.3 or so), which the residuals of a
# smoother hide: by this factor the mean of many points is less sure than their blocks say.
_LONG_RUN = ((1 + 0.3) / (1 - 0.3)) ** 0.5
_OUTLIER = 6.0  # robust standard deviations from its neighbours' median


@dataclass(frozen=True)
class Change:
    """A difference of smoothed values in the series' unit, with its 95% interval.

    `p` is the one-sided probability of so large a change, in its direction, of pure noise; where
    the noise is not known, `interval` is None and `p` is 1.
    """

    start: float
    end: float
    effect: float
    interval: tuple[float, float] | None
    p: float

    @property
    def largest(self) -> float:
        """The largest change, up or down, that the interval does not exclude."""
        return float("inf") if self.interval is None else max(map(abs, self.interval))


@dataclass(frozen=True)
class Fit:
    """A smoothed series: `steps`, `level` [points], and its noise, `draws` [resamples, points].

    `n` counts the logged values before averaging; `known_noise` is False where there are too few
    of them to estimate any (below `FEWEST`, and no examples). `long_run` widens the noise of a mean
    over many points.
    """

    steps: Array
    level: Array
    draws: Array
    n: int
    known_noise: bool
    long_run: float = 1.0

    @property
    def peak(self) -> int:
        """The point of the highest level."""
        return int(np.argmax(self.level))

    def index(self, step: float) -> int:
        """The point at `step`, or the first after it; the last if there is none."""
        return min(int(np.searchsorted(self.steps, step)), self.steps.size - 1)

    def change(self, first: int = 0, last: int = -1) -> Change:
        """The change between two points chosen without looking at this series."""
        effect = float(self.level[last] - self.level[first])
        noise = self.draws[:, last] - self.draws[:, first]
        return self._change(first, last, effect, noise, noise)

    def fall(self) -> Change:
        """The change from the peak to the end (≤ 0); `p` allows for the search for a peak."""
        effect = float(self.level[-1] - self.level[self.peak])
        noise = self.draws[:, -1] - self.draws[:, self.peak]
        searched = self.draws[:, -1] - self.draws.max(axis=1)
        return self._change(self.peak, -1, effect, noise, searched)

    def level_change(self, first: int = 0) -> Change:
        """The change from a point to the mean of the later half of what follows it (a plateau).

        Of many noisy points the mean is known better than the last one is.
        """
        n = self.level.size
        start = first % n
        rest = slice(start + 1 + (n - 1 - start) // 2, n)
        if start == n - 1:
            rest = slice(start, n)
        effect = float(self.level[rest].mean() - self.level[start])
        noise = self.draws[:, rest].mean(axis=1) * self.long_run - self.draws[:, start]
        return self._change(start, -1, effect, noise, noise)

    def detectable(self, p: float) -> float:
        """The smallest fall from a peak that would have been told from noise at that `p`."""
        searched = self.draws[:, -1] - self.draws.max(axis=1)
        return -float(np.percentile(searched, 100 * p)) if self.known_noise else float("inf")

    def rise(self) -> Change:
        """The change from the start to the peak (≥ 0); `p` allows for the search for a peak."""
        effect = float(self.level[self.peak] - self.level[0])
        noise = self.draws[:, self.peak] - self.draws[:, 0]
        searched = self.draws.max(axis=1) - self.draws[:, 0]
        return self._change(0, self.peak, effect, noise, searched)

    def _change(
        self, first: int, last: int, effect: float, noise: Array, under_null: Array
    ) -> Change:
        start, end = float(self.level[first]), float(self.level[last])
        if not self.known_noise:
            return Change(start, end, effect, None, 1.0)
        tail = 50 * (1 - CONFIDENCE)
        low, high = (effect + np.percentile(noise, [tail, 100 - tail])).tolist()
        beyond = under_null <= effect if effect < 0 else under_null >= effect
        p = 1.0 if effect == 0 else (1 + beyond.sum()) / (1 + beyond.size)
        return Change(start, end, effect, (low, high), float(p))


def fit(series: Series, *, anchor: float | None = None, seed: int = 0) -> Fit:
    """Return the smoothed series with its noise, the same for the same seed.

    `anchor` is the exact value before the first point, where it is known. With `examples` the only
    noise is which examples were scored: the same ones are scored exactly at every point, so their
    mean curve is taken as it is. Without, it is the residuals of the evaluations (at least
    `FEWEST` are needed; few make the interval wide, as Student's t does).
    """
    if series.examples is not None and series.examples.shape[0] > 1:
        steps, _, weights = _averaged(series)
        examples = series.examples @ weights.T
        rng = np.random.default_rng(seed)
        return Fit(steps, examples.mean(axis=0), _example_draws(examples, rng), len(series), True)
    exact = not series.batches and series.steps[0] <= 0  # the model that training starts from
    if anchor is None and exact and len(series) > 1:
        rest = _smoothed(series.part(slice(1, None)), len(series), seed, pinned=False)
        return _started(rest, float(series.steps[0]), float(series.values[0]), len(series))
    fitted = _smoothed(series, len(series), seed, pinned=anchor is None)
    if anchor is None:
        return fitted
    first, gap = float(series.steps[0]), float(np.diff(series.steps[:2]).sum()) or 1.0
    return _started(fitted, 0.0 if first > 0 else first - gap, anchor, len(series))


def _started(rest: Fit, step: float, value: float, n: int) -> Fit:
    """A trend with an exact value before it."""
    return Fit(
        np.r_[step, rest.steps],
        np.r_[value, rest.level],
        np.pad(rest.draws, ((0, 0), (1, 0))),
        n,
        rest.known_noise,
        rest.long_run,
    )


def _smoothed(series: Series, logged: int, seed: int, *, pinned: bool) -> Fit:
    """The local line through the binned values; a `pinned` first bin stays as it is, and noisy."""
    steps, values, _ = _averaged(series)
    n = values.size
    smooth = _smoother(n)
    shown = np.vstack([np.eye(n)[:1], smooth[1:]]) if pinned else smooth
    freedom = n - 2 * np.trace(smooth) + np.sum(smooth**2)
    draws = np.zeros((RESAMPLES, n))
    known = logged >= FEWEST and freedom > 0.5
    first = values[0]
    if known:
        values = _without_outliers(values)
        draws += _residual_draws(values - smooth @ values, float(freedom), seed) @ shown.T
    level = shown @ values
    if pinned:
        level[0] = first
    return Fit(steps, level, draws, len(series), known, _LONG_RUN)


def _averaged(series: Series) -> tuple[Array, Array, Array]:
    """Return steps and trimmed means of at most `MAX_POINTS` bins, and the bins as [bins, n]."""
    n = len(series)
    parts = np.array_split(np.arange(n), min(n, MAX_POINTS))
    weights = np.zeros((len(parts), n))
    for i, part in enumerate(parts):
        weights[i, part] = 1 / part.size
    values = np.concatenate(
        [_trimmed_means(series.values[np.stack(list(same))]) for _, same in groupby(parts, key=len)]
    )
    return weights @ series.steps, values, weights


def _trimmed_means(bins: Array) -> Array:
    """The mean of each row of [bins, values] without its extremes, as `scipy.stats.trim_mean`."""
    n = bins.shape[1]
    cut = int(_TRIM * n)
    kept = np.partition(bins, (cut, n - cut - 1), axis=1)[:, cut : n - cut]
    means: Array = kept.mean(axis=1)
    return means


@lru_cache(maxsize=64)
def _smoother(n: int) -> Array:
    """Local linear regression over n equally spaced points as a matrix; a line for n ≤ 4."""
    x = np.arange(n, dtype=np.float64)
    width = np.inf if n <= 4 else max(1.2, 2.2 - n / 10, n / 10)
    rows = np.zeros((n, n))
    if n <= 2:
        return np.eye(n)
    for i in range(n):
        kernel = np.exp(-0.5 * ((x - i) / width) ** 2)
        design = np.stack([np.ones(n), x - i], axis=1)
        weighted = design * kernel[:, None]
        rows[i] = np.linalg.solve(design.T @ weighted, weighted.T)[0]
    return rows


def _without_outliers(values: Array) -> Array:
    """Pull single spikes in to the edge of what their neighbours allow (a Hampel filter)."""
    n = values.size
    if n < 7:
        return values
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, mode="reflect"), 5)
    middle = np.median(windows, axis=1)
    apart = values - middle
    scale = np.median(np.abs(apart - np.median(apart))) / stats.norm.ppf(0.75)
    return np.clip(values, middle - _OUTLIER * scale, middle + _OUTLIER * scale)


def _residual_draws(residuals: Array, freedom: float, seed: int) -> Array:
    """Resample residuals in moving blocks, after taking out how their spread changes with time."""
    n = residuals.size
    spread = np.sqrt(np.mean(residuals**2))
    window = _window(n)
    local = np.sqrt(window @ residuals**2 / window.sum(axis=1))
    local = np.maximum(local, 0.8 * spread)
    if spread == 0:
        return np.zeros((RESAMPLES, n))
    rows, factors = _blocks(n, freedom, seed)
    drawn: Array = (residuals / local * np.sqrt(n / freedom))[rows] * factors * local
    return drawn


@lru_cache(maxsize=64)
def _window(n: int) -> Array:
    """Weights [n, n] of the points near each one.

    A run's noise grows as it moves (rewards start at exactly 0): the end is judged by its own.
    """
    weights: Array = stats.norm.pdf(
        np.subtract.outer(np.arange(n), np.arange(n)), scale=max(2.0, n / 4)
    )
    return weights


@lru_cache(maxsize=16)
def _blocks(n: int, freedom: float, seed: int) -> tuple[NDArray[np.int64], Array]:
    """The residual that each of n points draws, and what it is multiplied with: [resamples, n].

    Each draw's scale is itself drawn from what `freedom` degrees of freedom leave open, which
    gives few points the wide tails of Student's t.
    """
    rng = np.random.default_rng(seed)
    length = max(1, round(n ** (1 / 3)))
    starts = rng.integers(0, n, size=(RESAMPLES, -(-n // length)))
    rows = (starts[:, :, None] + np.arange(length)) % n
    # Random signs: the residuals' third moment is not to be trusted at such n.
    signs = rng.choice([-1.0, 1.0], size=starts.shape).repeat(length, axis=1)[:, :n]
    scale = np.sqrt(freedom / rng.chisquare(freedom, size=(RESAMPLES, 1)))
    return rows.reshape(RESAMPLES, -1)[:, :n], signs * scale


def _example_draws(examples: Array, rng: np.random.Generator) -> Array:
    """Deviations of the mean curve when the examples [examples, points] are resampled."""
    n = examples.shape[0]
    centred = examples - examples.mean(axis=0)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    drawn: Array = counts @ centred / np.sqrt(n * (n - 1))
    return drawn
