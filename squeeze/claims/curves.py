"""Statistics of log-prob curves over DPO: rises, falls from the peak, comparisons at equal margin.

Arrays are [examples, times], times running from the start of DPO to its end. Everything returns one
number an example, for the bootstrap in `statistics`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from squeeze.trajectory import Trajectory

Array = NDArray[np.float64]


def phase_values(
    trajectory: Trajectory, arm: str, phase: str, kind: str, split: str, metric: str = "logp"
) -> Array:
    """One metric of one kind over a phase of an arm, [examples, times]; examples sorted by id.

    The first time is the start of the phase: the last probe before its first step.
    """
    table = trajectory.by_example(arm, kind, split, metric).sort_index()
    points = trajectory.points(arm)
    first = next(i for i, point in enumerate(points) if point.phase == phase)
    last = max(i for i, point in enumerate(points) if point.phase == phase)
    probes = [point.probe for point in points[first - 1 : last + 1]]
    return table.reindex(columns=probes).to_numpy(dtype=float)


def dpo_values(
    trajectory: Trajectory, arm: str, kind: str, split: str, metric: str = "logp"
) -> Array:
    """`phase_values` of the DPO phase."""
    return phase_values(trajectory, arm, "dpo", kind, split, metric)


def change(values: Array) -> Array:
    """Last minus first, [examples]."""
    return np.asarray(values[:, -1] - values[:, 0])


def peaks(values: Array) -> NDArray[np.intp]:
    """For each example, when the mean curve of all *other* examples peaks, [examples].

    Leaving the example out keeps its own fluctuations from choosing the time it is judged from,
    which would make any curve seem to rise and then fall.
    """
    others = (values.sum(axis=0, keepdims=True) - values) / max(len(values) - 1, 1)
    return np.asarray(others.argmax(axis=1))


def own_peak(values: Array) -> Array:
    """When each example's own curve peaks, [examples]: a time, for comparisons between kinds."""
    return np.asarray(values.argmax(axis=1), dtype=float)


def rise_to_peak(values: Array) -> Array:
    """From the start to the (left-one-out) peak, [examples]."""
    return np.asarray(values[np.arange(len(values)), peaks(values)] - values[:, 0])


def fall_from_peak(values: Array) -> Array:
    """From the (left-one-out) peak to the end, [examples]; negative where the example falls."""
    return np.asarray(values[:, -1] - values[np.arange(len(values)), peaks(values)])


def from_peak_of(values: Array, leader: Array) -> Array:
    """Change of `values` from the time `leader` peaks to the end, [examples]."""
    return np.asarray(values[:, -1] - values[np.arange(len(values)), peaks(leader)])


def mean_margin(trajectory: Trajectory, arm: str) -> Array:
    """Mean of (chosen − rejected) on training prompts relative to the start of DPO, [times]."""
    gap = dpo_values(trajectory, arm, "chosen", "train") - dpo_values(
        trajectory, arm, "rejected", "train"
    )
    mean = gap.mean(axis=0)
    return np.asarray(mean - mean[0])


def cut_at_margin(values: Array, margin: Array, target: float) -> Array:
    """`values` up to the moment the mean margin first reaches `target`, that moment interpolated.

    `margin` is [times]. Where the target is never reached the whole curve is returned.
    """
    reached = np.flatnonzero(margin >= target)
    if not len(reached) or reached[0] == 0:
        return values if not len(reached) else values[:, :1]
    after = int(reached[0])
    share = (target - margin[after - 1]) / (margin[after] - margin[after - 1])
    end = values[:, after - 1] + share * (values[:, after] - values[:, after - 1])
    return np.concatenate([values[:, :after], end[:, None]], axis=1)
