"""Movements of a run's series: where each goes, how sure that is, and the row of evidence on it.

What a movement of which series means is `verdict`'s business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from squeeze.diagnosis.series import Series
from squeeze.diagnosis.trend import Change, Fit
from squeeze.diagnosis.view import Measured, View, both

Direction = Literal["rises", "falls", "level", "unclear", "rose, then fell"]

FALL_P = 0.0025  # of the chosen answers' fall; calibrated in docs/diagnosis.md
# Five evaluations cannot reach so small a p, whatever they show: their noise is known too badly.
FALL_P_SHORT, SHORT = 0.01, 8
MOVE_P = 0.01  # of every other movement, two-sided


@dataclass(frozen=True)
class Evidence:
    """One row of the evidence table, in `unit`.

    `start`, `peak` and `end` are logged values. `change` (from `reference`, the exact value before
    the first line, where it is known) and `fall` (from the peak) are of the trend.
    """

    role: str
    split: str
    column: str
    unit: str
    n: int
    start: float
    peak: float
    peak_step: float
    end: float
    change: Change
    fall: Change
    direction: Direction
    relative: float | None
    reference: float | None = None


def fall_p(n: int) -> float:
    """The p below which chosen's fall over `n` evaluations is no noise."""
    return FALL_P_SHORT if n < SHORT else FALL_P


def direction(v: View, measured: Measured | None, since: float) -> Direction | None:
    """Where a series goes after `since`; "level" needs an interval narrow enough to say so."""
    if measured is None:
        return None
    f = measured.fit
    first = 0 if since == -np.inf else f.index(since)
    ended = moved(f.change(first), v.threshold(measured), f.known_noise)
    if ended == "unclear" and f.known_noise and f.n >= SHORT:
        return moved(f.level_change(first), v.threshold(measured), True)
    return ended


def moved(change: Change, threshold: float, known_noise: bool) -> Direction:
    """Where a change goes, given the smallest that matters."""
    if not known_noise:
        return "unclear"
    if both(change) <= MOVE_P and abs(change.effect) >= threshold:
        return "rises" if change.effect > 0 else "falls"
    return "level" if change.largest <= 3 * threshold else "unclear"


def margin_direction(v: View, since: float) -> Direction | None:
    """The margin over the whole run; a margin that has stopped growing has still grown."""
    whole = direction(v, v.margin, -np.inf)
    if whole in ("rises", None) or since == -np.inf:
        return whole
    return "rises" if direction(v, v.margin, since) == "rises" else whole


def unit(measured: Measured) -> str:
    """The words for a series' unit."""
    return "in reward" if measured.unit == "reward" else "nats"


def evidence(v: View) -> Iterable[Evidence]:
    """A row for each series of a split."""
    roles = {
        "chosen": v.chosen,
        "rejected": v.rejected,
        "margin": v.margin,
        "argmax": v.argmax,
    } | {m.series.quantity: m for m in v.extra}
    for role, measured in roles.items():
        if measured is None:
            continue
        f, series = measured.fit, measured.series
        change, values = f.change(), series.values
        level = measured.level if measured.level is not None else float(np.median(values))
        threshold = v.threshold(measured) if measured.unit else 0.02 * abs(level)
        direction = moved(change, threshold, f.known_noise)
        fall = f.fall()
        if direction != "falls" and fall.p <= fall_p(f.n) and -fall.effect >= threshold:
            direction = "rose, then fell"
        peak = _logged_peak(series, f)
        yield Evidence(
            role=role,
            split=series.split,
            column=series.column,
            unit=measured.unit,
            n=len(series),
            start=float(values[0]),
            peak=float(values[peak]),
            peak_step=float(series.steps[peak]),
            end=float(values[-1]),
            change=change,
            fall=fall,
            direction=direction,
            relative=change.effect / abs(measured.level) if measured.level else None,
            reference=measured.anchor,
        )


def _logged_peak(series: Series, f: Fit) -> int:
    """The largest logged value near the trend's peak."""
    low, high = f.steps[max(f.peak - 1, 0)], f.steps[min(f.peak + 1, f.steps.size - 1)]
    near = np.flatnonzero((series.steps >= low) & (series.steps <= high))
    if near.size == 0:
        near = np.arange(len(series))
    return int(near[np.argmax(series.values[near])])
