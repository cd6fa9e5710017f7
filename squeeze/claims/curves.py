"""Statistics of log-prob curves over a phase of training: changes, peaks, equal margin, noise.

Arrays are [seeds, prompts, times], times running from the phase's start to its end; what is made of
them is [seeds, prompts], one number a seed and prompt, for `statistics.crossed_mean`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from squeeze.trajectory import Trajectory

Array = NDArray[np.float64]


def phase_values(
    trajectory: Trajectory, arm: str, phase: str, kind: str, split: str, metric: str = "logp"
) -> Array:
    """One metric of one kind over a phase of an arm, [prompts, times]; prompts sorted by id.

    The prompts are those with a chosen answer; one that lacks the kind is NaN. The first time is
    the start of the phase: the last probe before its first step.
    """
    table = trajectory.by_example(arm, kind, split, metric).sort_index()
    chosen = trajectory.by_example(arm, "chosen", split).index
    points = trajectory.points(arm)
    first = next(i for i, point in enumerate(points) if point.phase == phase)
    last = max(i for i, point in enumerate(points) if point.phase == phase)
    probes = [point.probe for point in points[max(first - 1, 0) : last + 1]]
    prompts = chosen.sort_values() if len(chosen) else table.index
    return table.reindex(index=prompts, columns=probes).to_numpy(dtype=float)


def scored(values: Array) -> Array:
    """[seeds, prompts, ...] of the prompts that lack nothing in any seed."""
    lacking = np.isnan(values).any(axis=tuple(axis for axis in range(values.ndim) if axis != 1))
    return values[:, ~lacking]


def change(values: Array) -> Array:
    """Last minus first, [seeds, prompts]."""
    return np.asarray(values[..., -1] - values[..., 0])


def peaks(values: Array) -> NDArray[np.intp]:
    """When the mean curve of all *other seeds* peaks, [seeds, prompts].

    What one run's probes share, its common noise, cannot choose the time that the run is judged
    at, or any flat curve would seem to rise and then fall. With one seed the other prompts choose,
    which leaves that noise in: such a row decides nothing.
    """
    n_seeds, n_prompts = values.shape[:2]
    if n_seeds == 1:
        others = (np.nansum(values, axis=1, keepdims=True) - values) / max(n_prompts - 1, 1)
        return np.asarray(others.argmax(axis=-1))
    if not (whole := scored(values)).shape[1]:
        return np.zeros((n_seeds, n_prompts), dtype=np.intp)
    means = whole.mean(axis=1)
    others = (means.sum(axis=0, keepdims=True) - means) / (n_seeds - 1)
    return np.repeat(others.argmax(axis=-1)[:, None], n_prompts, axis=1)


def own_peak(values: Array) -> Array:
    """When each prompt's own curve peaks, [seeds, prompts], for comparisons between kinds."""
    lacking = np.isnan(values).any(axis=-1)
    return np.where(lacking, np.nan, values.argmax(axis=-1).astype(float))


def rise_to_peak(values: Array) -> Array:
    """From the start to the peak that others choose, [seeds, prompts]."""
    return _at(values, peaks(values)) - values[..., 0]


def fall_from_peak(values: Array, leader: Array | None = None) -> Array:
    """Change from the peak that others choose to the end, [seeds, prompts]; negative for a fall.

    With a `leader` from the time that *its* curve peaks.
    """
    times = peaks(values if leader is None else leader)
    return np.asarray(values[..., -1] - _at(values, times))


def _at(values: Array, times: NDArray[np.intp]) -> Array:
    return np.asarray(np.take_along_axis(values, times[..., None], axis=-1)[..., 0])


def probe_noise(values: Array) -> float:
    """How far two probes of the mean curve may lie apart by noise alone (two standard deviations).

    Each seed's mean curve less the seeds' common one, differenced in time: 2σ²(1 − 1/S) is the
    variance of that in a flat run. One seed has nothing to compare with; there second differences
    (variance 6σ²) stand in, which a bend in the curve makes larger. 0 below three probes.
    """
    whole = scored(values)
    if values.shape[-1] < 3 or not whole.shape[1]:
        return 0.0
    means = whole.mean(axis=1)
    n_seeds = len(means)
    if n_seeds == 1:
        variance = float((np.diff(means, n=2) ** 2).mean()) / 6
    else:
        own = np.diff(means - means.mean(axis=0), axis=1)
        variance = float((own**2).mean()) / (2 * (1 - 1 / n_seeds))
    return 2 * float(np.sqrt(2 * variance / n_seeds))


def cut_at_margin(values: Array, margin: Array, target: float) -> Array:
    """`values` [prompts, times] up to when the mean margin first reaches `target`, interpolated.

    `margin` is [times]. Where the target is never reached the whole curve is returned.
    """
    reached = np.flatnonzero(margin >= target)
    if not len(reached) or reached[0] == 0:
        return values if not len(reached) else values[:, :1]
    after = int(reached[0])
    share = (target - margin[after - 1]) / (margin[after] - margin[after - 1])
    end = values[:, after - 1] + share * (values[:, after] - values[:, after - 1])
    return np.concatenate([values[:, :after], end[:, None]], axis=1)


def changes_at_equal_margin(curves: tuple[Array, Array], margins: tuple[Array, Array]) -> Array:
    """Change of the first curve less the second's, both up to their common margin, each seed's own.

    `curves` are [seeds, prompts, times], `margins` [seeds, times], from 0. [seeds, prompts].
    """
    differences = []
    for ours, theirs, our_margin, their_margin in zip(*curves, *margins, strict=True):
        target = min(float(our_margin.max()), float(their_margin.max()))
        ends = [
            cut_at_margin(ours, our_margin, target),
            cut_at_margin(theirs, their_margin, target),
        ]
        differences.append(change(ends[0]) - change(ends[1]))
    return np.stack(differences)
