"""The numbers of a report: mean series with bootstrap bands, and changes with intervals.

Everything is a pure function of a `Trajectory`. Nothing is drawn or written here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from squeeze.claims import statistics
from squeeze.report.style import ARGMAX
from squeeze.trajectory import Trajectory

RESAMPLES = 1000
if TYPE_CHECKING:
    from jaxtyping import Float  # of the extra train

    Floats = pd.Series[float]
else:
    Floats = pd.Series  # before pandas 3 it takes no parameter when the program runs


@dataclass(frozen=True)
class View:
    """How log-probs are shown: per token or per response, as change since the start or as level."""

    per_token: bool = False
    change: bool = True


@dataclass(frozen=True)
class Timeline:
    """When an arm's probes were taken: position on the time axis by probe, with DPO starting at 0.

    `start` is the probe that changes are counted from: the last one before DPO, or the first of
    all when there is no DPO. `unit` names the axis.
    """

    position: dict[int, float]
    start: int
    unit: str
    has_dpo: bool


@dataclass(frozen=True)
class Series:
    """Mean over examples at each probe, with a 95% band (None for fewer than two examples)."""

    x: list[float]
    mean: list[float]
    low: list[float] | None
    high: list[float] | None
    n: int


@dataclass(frozen=True)
class Mean:
    """A mean over `n` examples with its 95% interval (None for fewer than two examples)."""

    value: float
    interval: tuple[float, float] | None
    n: int


@dataclass(frozen=True)
class SplitSummary:
    """What happened from `Timeline.start` to the last probe on one split, in nats per response.

    `drop` is how far chosen ended below the highest point of its mean, which was at `peak`.
    """

    split: str
    chosen: Mean | None
    drop: Mean | None
    peak: float | None
    rejected: Mean | None
    argmax: Mean | None
    margin: Mean | None


class Scores:
    """A trajectory with what every figure asks of it."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory = trajectory
        self._timelines: dict[str, Timeline] = {}
        self._curves: dict[tuple[str, str, str, View], Series | None] = {}
        self.kinds = trajectory.kinds()
        self.splits = trajectory.splits()

    def table(self, arm: str, kind: str, split: str, metric: str) -> pd.DataFrame:
        """`Trajectory.by_example`, in float64; empty for what was not scored."""
        return self.trajectory.by_example(arm, kind, split, metric).astype(np.dtype(float))

    def curve(self, arm: str, kind: str, split: str, view: View) -> Series | None:
        """Mean and band over time of `values`; figures and interactive curves share them."""
        key = (arm, kind, split, view)
        if key not in self._curves:
            self._curves[key] = series(values(self, *key), self.timeline(arm))
        return self._curves[key]

    def timeline(self, arm: str) -> Timeline:
        """The time axis of an arm that has a probe."""
        if arm not in self._timelines:
            self._timelines[arm] = timeline(self.trajectory, arm)
        return self._timelines[arm]


def timeline(trajectory: Trajectory, arm: str) -> Timeline:
    """An arm's time axis, in epochs where they grow within each phase, else in steps or probes."""
    points = trajectory.points(arm)
    phases = [p.phase for p in points]
    for unit in ("epoch", "step"):
        clock = [float(getattr(p, unit)) for p in points]
        if all(
            b > a
            for a, b, before, after in zip(clock, clock[1:], phases, phases[1:], strict=False)
            if before == after
        ):
            break
    else:
        unit, clock, phases = "probe", [float(i) for i in range(len(points))], ["dpo"] * len(points)
    positions: list[float] = []
    offset = 0.0
    for index, value in enumerate(clock):
        if index and phases[index] != phases[index - 1]:
            offset = positions[-1]
        positions.append(offset + value)
    dpo = [index for index, point in enumerate(points) if point.phase == "dpo"]
    start = max(dpo[0] - 1, 0) if dpo else 0
    zero = positions[start]
    return Timeline(
        {p.probe: x - zero for p, x in zip(points, positions, strict=True)},
        points[start].probe,
        f"DPO {unit}" if dpo else unit,
        bool(dpo),
    )


def values(scores: Scores, arm: str, kind: str, split: str, view: View) -> pd.DataFrame:
    """A kind's log-probs in a view: a row an example, a column a probe, complete rows only."""
    source, metric = ("chosen", "argmax_logp") if kind == ARGMAX else (kind, "logp")
    table = scores.table(arm, source, split, metric)
    if view.per_token:
        table = table / scores.table(arm, source, split, "n_tokens")
    table = table.dropna()
    if view.change and not table.empty:
        time = scores.timeline(arm)
        start = time.start if time.start in table.columns else table.columns[0]
        table = table.sub(table[start], axis=0)
    return table


def band(
    samples: Float[np.ndarray, "rows examples"],
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]] | None:
    """95% bootstrap interval of each row's mean, examples resampled alike; None below two."""
    n = samples.shape[1]
    if n < 2:
        return None
    low, high = np.percentile(samples @ _counts(n) / n, [2.5, 97.5], axis=1)
    return low, high


@lru_cache(maxsize=8)
def _counts(n: int) -> Float[np.ndarray, "examples resamples"]:
    """How often each example is in each resample, the same at every call."""
    drawn = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn], axis=1).astype(float)


def series(table: pd.DataFrame, time: Timeline) -> Series | None:
    """Mean and band over time of a table of `values`; None when it holds nothing."""
    if table.empty:
        return None
    interval = band(table.to_numpy().T)
    low, high = ([v.tolist() for v in interval]) if interval else (None, None)
    x = [time.position[int(probe)] for probe in table.columns]
    return Series(x, table.mean().tolist(), low, high, len(table))


def estimate(samples: Floats | None) -> Mean | None:
    """Mean and interval (as verdicts have it) of one number an example; None without examples."""
    if samples is None or samples.empty:
        return None
    interval = statistics.mean(samples.to_numpy()).interval if len(samples) > 1 else None
    return Mean(float(samples.mean()), interval, len(samples))


def _last(table: pd.DataFrame) -> Floats | None:
    return None if table.shape[1] < 2 else table.iloc[:, -1]


def split_summary(scores: Scores, arm: str, split: str) -> SplitSummary:
    """What happened to chosen, rejected, argmax and margin; None for what was not measured."""
    time = scores.timeline(arm)
    chosen, rejected, argmax = (
        values(scores, arm, kind, split, View()) for kind in ("chosen", "rejected", ARGMAX)
    )
    drop = peak = None
    during = [probe for probe in chosen.columns.to_list() if int(probe) >= time.start]
    if len(during) > 1 and len(chosen):
        best = during[int(chosen[during].to_numpy().mean(axis=0).argmax())]
        drop, peak = estimate(chosen[during[-1]] - chosen[best]), time.position[int(best)]
    return SplitSummary(
        split,
        estimate(_last(chosen)),
        drop,
        peak,
        estimate(_last(rejected)),
        estimate(_last(argmax)),
        estimate(_last(_margin(chosen, rejected))),
    )


def _margin(chosen: pd.DataFrame, rejected: pd.DataFrame) -> pd.DataFrame:
    """Chosen less rejected, of the examples that have both."""
    return (chosen - rejected).dropna() if len(chosen) and len(rejected) else chosen.iloc[:0]


def metric_series(scores: Scores, arm: str, split: str, metric: str) -> Series | None:
    """`margin` (change of chosen − rejected, nats), or `entropy` / `peakiness` along chosen."""
    time = scores.timeline(arm)
    if metric == "margin":
        chosen, rejected = (
            values(scores, arm, kind, split, View()) for kind in ("chosen", "rejected")
        )
        table = _margin(chosen, rejected)
    else:
        table = scores.table(arm, "chosen", split, metric).dropna()
    return series(table, time)


def final_changes(scores: Scores, arm: str, kind: str, split: str) -> Floats | None:
    """Each example's change from `Timeline.start` to the last probe, nats per response."""
    table = values(scores, arm, kind, split, View())
    return None if table.empty else _last(table)
