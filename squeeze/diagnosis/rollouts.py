"""Verdicts of trainings that sample their answers (GRPO, RLOO, online DPO), from what they log.

Entropy collapse, length collapse and repetition collapse are read off the rollouts; lazy
displacement off a fixed probe of right answers. Definitions: docs/diagnosis.md; how often they are
right: docs/diagnosis-calibration.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import FiniteFloat, TypeAdapter

from squeeze.diagnosis import series as q
from squeeze.diagnosis.movements import MOVE_P
from squeeze.diagnosis.names import recognise
from squeeze.diagnosis.series import RunSeries, Series
from squeeze.diagnosis.severity import VERDICTS, Name
from squeeze.diagnosis.trend import FEWEST, fit
from squeeze.diagnosis.view import both
from squeeze.files import having, read_as

SAMPLED = ("grpo", "online dpo")
OF_ROLLOUTS: tuple[Name, ...] = ("entropy collapse", "length collapse", "repetition collapse")
ROLLOUTS = "rollouts"  # the split of what is measured on the answers that a training samples
FILE = "rollouts.json"

ENTROPY_SHARE = 0.25  # of its start: what entropy must fall to
NARROWED_SHARE = 0.8  # of its start: a fall below that is told
LENGTH_SHARE = 0.5  # of its start: what the mean length must fall to
CUT_RISE = 0.5  # of all answers: by how much more are cut at the longest length
REPETITION_RISE = 0.1  # of all n-grams
REWARD_RISE = 0.2  # of the larger of start and end: a smaller rise is none
TIED_SHARE = 0.8  # of all groups
MOST_FIRST = 5  # lines whose mean is the start, at most a tenth of all; the end is the last fifth

_COLUMNS = {
    q.ENTROPY: "entropy",
    q.REWARD: "reward",
    q.LENGTH: "completions/mean_length",
    q.CUT: "completions/clipped_ratio",
    q.TIED: "frac_reward_zero_std",
    q.REPETITION: "repeated 4-grams of sampled answers",
}


@dataclass(frozen=True)
class Rollouts:
    """What the sampled answers say: a verdict, the sentence behind it, what else is to be told."""

    verdict: Name
    reason: str
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Course:
    """Where a quantity starts and ends, as means over lines; `moved` if that is no noise."""

    start: float
    end: float
    moved: bool

    @property
    def share(self) -> float:
        """The end as a share of the start; 1 where the start is none."""
        return self.end / self.start if self.start > 0 else 1.0

    @property
    def rises(self) -> bool:
        """Whether the end is higher by more than a small part of the larger of both."""
        return self.end - self.start > REWARD_RISE * max(abs(self.start), abs(self.end))


def judge_rollouts(run: RunSeries) -> Rollouts:
    """The verdict on what a training logs of its own samples; "undetermined" where it says nothing.

    "healthy" says that nothing that was logged has collapsed, not that right answers gain.
    """
    found = {name: made for name in _COLUMNS if (made := _course(run, name)) is not None}
    rules = ((q.ENTROPY, _entropy), (q.LENGTH, _length), (q.REPETITION, _repetition))
    judged = [rule(found) for name, rule in rules if name in found]
    cautions = tuple(text for one in judged for text in one.cautions) + _tied(found)
    if not judged:
        return Rollouts(
            "undetermined",
            "entropy, length and repetition of the sampled answers are not in the log, or too "
            f"short: log them at every step, {FEWEST} steps at least",
            cautions,
        )
    worst = max(judged, key=lambda one: VERDICTS.index(one.verdict))
    if worst.verdict == "healthy":
        worst = replace(worst, reason="; ".join(one.reason for one in judged))
    return replace(worst, cautions=cautions)


def _course(run: RunSeries, quantity: str) -> Course | None:
    """A quantity of the rollouts; a probe's entropy is along fixed answers, and not one."""
    own = [s for s in run.series if s.quantity == quantity and s.examples is None]
    series = next((s for s in own if not s.split.startswith("probe") and len(s) >= FEWEST), None)
    if series is None:
        return None
    n, values = len(series), series.values
    first, last = min(MOST_FIRST, max(1, n // 10)), max(1, n // 5)
    moved = quantity in (q.ENTROPY, q.LENGTH, q.CUT, q.REPETITION) and _moved(series)
    return Course(float(values[:first].mean()), float(values[-last:].mean()), moved)


def _moved(series: Series) -> bool:
    """Whether the end, or the mean of the later half, is told from the start."""
    trend = fit(series)
    return any(both(change) <= MOVE_P for change in (trend.change(), trend.level_change()))


def _entropy(found: Mapping[str, Course]) -> Rollouts:
    entropy = found[q.ENTROPY]
    said = f"entropy goes from {entropy.start:.3g} to {entropy.end:.3g} nats a token"
    if entropy.moved and entropy.share <= ENTROPY_SHARE:
        return Rollouts("entropy collapse", f"{said}, {entropy.share:.0%} of its start")
    if entropy.moved and entropy.share <= NARROWED_SHARE:
        narrows = f"entropy falls to {entropy.share:.0%} of its start: the policy narrows (EN-1)"
        return Rollouts("healthy", said, (narrows,))
    return Rollouts("healthy", said)


def _length(found: Mapping[str, Course]) -> Rollouts:
    length, cut, reward = found[q.LENGTH], found.get(q.CUT), found.get(q.REWARD)
    said = f"answers' mean length goes from {length.start:.3g} to {length.end:.3g} tokens"
    short = length.moved and length.share <= LENGTH_SHARE
    if cut is not None and cut.moved and cut.end - cut.start >= CUT_RISE:
        said += f", the share of cut ones from {cut.start:.0%} to {cut.end:.0%}"
    elif not short:
        return Rollouts("healthy", said)
    if reward is None:
        return Rollouts("undetermined", f"{said}; whether the reward pays for it is not logged")
    if reward.rises:
        return Rollouts("healthy", said, (f"{said}; the reward rises with it",))
    return Rollouts("length collapse", f"{said}, and the reward does not rise")


def _repetition(found: Mapping[str, Course]) -> Rollouts:
    repeated = found[q.REPETITION]
    said = f"repeated 4-grams go from {repeated.start:.0%} to {repeated.end:.0%} of an answer's"
    collapsed = repeated.moved and repeated.end - repeated.start >= REPETITION_RISE
    return Rollouts("repetition collapse" if collapsed else "healthy", said)


def _tied(found: Mapping[str, Course]) -> tuple[str, ...]:
    if q.TIED not in found or found[q.TIED].end <= TIED_SHARE:
        return ()
    share = found[q.TIED].end
    return (
        f"in {share:.0%} of the groups all answers have one reward: such groups have no gradient",
    )


_ROWS: TypeAdapter[list[dict[str, float]]] = TypeAdapter(
    list[Annotated[dict[str, FiniteFloat], having("step")]]
)


def row_of(step: int, logs: Mapping[str, float]) -> dict[str, float]:
    """What a trainer's log line says of the rollouts, by quantity, at an optimizer step."""
    found: dict[str, float] = {"step": step}
    for column, value in logs.items():
        meaning = recognise(column)
        if (
            meaning is None
            or meaning.quantity not in _COLUMNS
            or meaning.split not in ("", "train")
        ):
            continue  # a probe's, or an evaluation's
        found[meaning.quantity] = float(value)
    return found


def read_rollouts(directory: Path, before: float = np.inf) -> list[dict[str, float]]:
    """The rows that the callback noted in a directory, up to the optimizer step `before`."""
    path = directory / FILE
    rows = read_as(path, _ROWS, "delete it; rollouts are then not judged") if path.is_file() else []
    return [row for row in rows if row["step"] <= before]


def of_directory(directory: Path) -> list[Series]:
    """The series that the callback noted of the rollouts; none where there is no such file."""
    rows = read_rollouts(directory)
    found = []
    for quantity, column in _COLUMNS.items():
        own = [(row["step"], row[quantity]) for row in rows if quantity in row]
        if own:
            steps, values = np.array(own, dtype=np.float64).T
            found.append(Series(quantity, ROLLOUTS, steps, values, column, batches=True))
    return found
