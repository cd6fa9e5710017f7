"""Consistency of a log with itself: what its columns imply of each other, and whether they agree.

Each check returns a `Finding`: what is inconsistent, at which step, and what usually causes it. The
verdicts are drawn elsewhere, and know of what was found here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from squeeze.diagnosis import series as q
from squeeze.diagnosis.series import Array, Finding, RunSeries, Series

AT_REFERENCE = math.log(2)  # DPO's loss where policy = reference (claim DP-1)
HINGE = "hinge"
OTHER_STARTS = {1.0: HINGE, 0.5: "KTO"}
USUAL_BETA = 0.1
NOT_REFERENCED = ("orpo", "simpo", "cpo", "sft", "reward model", "reward model?")
FAR_REWARD = 0.5  # of a first line: 5 nats at β = 0.1
FAR_OF_PACE = 3.0  # times what the next lines move or scatter by
STAYING = 0.25  # of the first value: what the second line holds of it, where it was no noise
LATE_STEP = 100  # a first line after it may show what was learned before
ZERO_LOSS = 5e-4  # prints as 0.000
ALL_RIGHT = 0.999  # accuracy
SATURATED_MARGIN = 7.0  # ln(1 + e^-7) = 0.0009
_TREND, _CERTAIN = 10, 1e-4  # lines, and p of their trend, that show it through other batches
# What the axis of a log may call optimizer steps.
_COUNTS_STEPS = {
    *("step", "steps", "global_step", "current_steps", "training_step", "update"),
    *("iter", "iters", "iteration"),
}
_COPIED = 0.9  # of the lines, at which two columns that hold one thing agree exactly
_AGREE = 0.05  # of two numbers that should be one, as trainers round them


def check(run: RunSeries, beta: float | None = None) -> tuple[Finding, ...]:
    """Everything that is certain or inconsistent in the run, leading findings first."""
    found = list(run.findings)
    fitted = fitted_beta(run) if beta is None else None
    for split in dict.fromkeys(s.split for s in run.series):
        columns = _Columns(run, split, fitted[0] if fitted else beta)
        for test in _CHECKS:
            found += [finding for finding in test(columns) if finding is not None]
        found += _drift(columns, beta)
    found += _copied_splits(run)
    rank = {kind: i for i, kind in enumerate(LEADING)}
    return tuple(sorted(found, key=lambda f: rank.get(f.kind, len(LEADING))))


LEADING = ("diverged", "no loss", "saturated", "reference")


@dataclass(frozen=True)
class _Columns:
    """The series of one split, any of them at the steps that they share, and β if it is known."""

    run: RunSeries
    split: str
    beta: float | None = None

    def get(self, quantity: str) -> Series | None:
        return self.run.get(quantity, self.split)

    def together(self, *quantities: str) -> tuple[Array, ...] | None:
        """Steps and values [series, points] at the steps that all of them have; None without."""
        found = [s for name in quantities if (s := self.get(name)) is not None]
        if len(found) < len(quantities):
            return None
        steps = found[0].steps
        for series in found[1:]:
            steps = np.intersect1d(steps, series.steps)
        if steps.size == 0:
            return None
        return steps, *(s.values[np.searchsorted(s.steps, steps)] for s in found)

    def margins(self) -> tuple[Array, ...] | None:
        """Steps, losses and margins where the log has them, or both rewards."""
        sides = self.together(q.LOSS, q.CHOSEN_REWARD, q.REJECTED_REWARD)
        by_sides = None if sides is None else (*sides[:2], sides[2] - sides[3])
        return self.together(q.LOSS, q.MARGIN) or by_sides

    def at(self, step: float) -> str:
        name = f"{self.split} split, " if self.split else ""
        shown = step + 1 if self.run.axis == "line" else step
        return f"{name}{self.run.axis} {shown:.6g}"


def first_step(run: RunSeries, series: Series) -> float | None:
    """The optimizer step of a series' first value, where the log's axis counts them; else None."""
    return float(series.steps[0]) if run.axis in _COUNTS_STEPS else None


# --- what leads ---------------------------------------------------------------------------------


def _saturated(columns: _Columns) -> Iterator[Finding]:
    """The loss is 0 to the end, every pair being told apart: no gradient is left.

    `where` says so if it is 0 from the first line on, and no training line shows how it began.
    """
    margins = columns.margins()
    both = margins or columns.together(q.LOSS, q.ACCURACY)
    if both is None:
        return
    steps, losses, told = both
    apart = told > SATURATED_MARGIN if margins else told >= ALL_RIGHT
    zero = (np.abs(losses) < ZERO_LOSS) & apart
    since = int(np.flatnonzero(~zero)[-1]) + 1 if (~zero).any() else 0
    if steps.size - since < 2:
        return
    training = columns.run.get(q.LOSS, "train")
    unseen = since == 0 and (training is None or training.values[0] < ZERO_LOSS)
    yield Finding(
        "saturated",
        f"saturated since {columns.at(steps[since])}: the loss is {losses[-1]:.2g} at "
        f"{'a margin' if margins else 'an accuracy'} of {told[-1]:.3g}, and nothing is learned any "
        "more once it is 0",
        "from its first line on" if unseen else "",
        "pairs that are told apart by a trait that has nothing to do with the task, too high "
        "a learning rate, or too many epochs; what still moves is noise and weight decay",
        columns.split,
    )


def _no_loss(columns: _Columns) -> Iterator[Finding]:
    """The loss is 0 at every line, at margins at which no loss on pairs is."""
    both = columns.margins()
    if both is None or not _nothing(both):
        return
    steps, _, margins = both
    yield Finding(
        "no loss",
        f"the loss is 0 at every line, though the margin is {margins[0]:.3g}, where DPO's loss is "
        f"{np.logaddexp(0.0, -margins[0]):.3g}",
        columns.at(steps[0]),
        "a loss that is NaN, for which transformers logs 0, or answers none of whose tokens is "
        "trained on (masked, or cut off by max_length)",
        columns.split,
    )


def _nothing(losses_and_margins: tuple[Array, ...]) -> bool:
    """Whether the loss is 0 throughout, at margins below those at which a hinge ends."""
    steps, losses, margins = losses_and_margins
    return steps.size > 1 and bool((np.abs(losses) < ZERO_LOSS).all() and margins.mean() < 1)


def _reference(columns: _Columns) -> Iterator[Finding]:
    """The first rewards are far from 0, so the reference is not what training started from."""
    chosen, rejected = columns.get(q.CHOSEN_REWARD), columns.get(q.REJECTED_REWARD)
    if chosen is None or columns.run.method in NOT_REFERENCED or _proportional(columns):
        return
    first = float(chosen.values[0])
    other = None if rejected is None else float(rejected.values[0])
    if max(abs(first), abs(other or 0.0)) < FAR_REWARD or not stands(chosen.values[:8]):
        return
    why = _not_learned(columns, chosen, first, other)
    if why is None:
        return
    rewards = f"{first:.3g}" + ("" if other is None else f" and {other:.3g} (rejected)")
    yield Finding(
        "reference",
        f"the reference is not the model that training started from: the first reward is {rewards} "
        f"where it must be 0{why}",
        columns.at(float(chosen.steps[0])),
        "an adapter of SFT trained on with the base model as reference (ref_model=None takes the "
        "adapter off), a reference loaded from elsewhere, a log that begins in mid-run, or a loss "
        "without a reference (SimPO, ORPO, CPO); the curve is judged from its first line on",
        columns.split,
    )


def stands(values: Array) -> bool:
    """Whether the first values stand away from 0, rather than move away from it."""
    first, early = abs(float(values[0])), values[:5]
    if values.size < 2:
        return True
    stays = float(values[1] / values[0]) >= STAYING if first else False
    if stays and first >= FAR_OF_PACE * float(np.median(np.abs(np.diff(values)))):
        return True
    mean = abs(float(early.mean()))
    return mean >= FAR_OF_PACE * float(early.std(ddof=1)) and first >= 0.5 * mean


def _not_learned(
    columns: _Columns, chosen: Series, first: float, other: float | None
) -> str | None:
    """Why the first rewards cannot have been learned before the first line; None if they can."""
    step = first_step(columns.run, chosen)
    if step == 0:
        return ", at step 0"
    losses = columns.get(q.LOSS)
    together = losses is not None and losses.steps[0] == chosen.steps[0]
    if losses is not None and together and chosen.batches and columns.run.method != "kto":
        highest = float(losses.values[:3].max())
        if highest > 2 * AT_REFERENCE:
            return f", and the loss begins at up to {highest:.3g}, not at {AT_REFERENCE:.3f}"
        if not step and abs(losses.values[0]) < ZERO_LOSS:
            return (
                f", and the loss is 0 from the first line on, where it begins at {AT_REFERENCE:.3f}"
            )
        # A trainer's line is the mean since the line before, and the first step's loss is ln 2.
        if step and losses.values[0] < 0.95 * AT_REFERENCE / step:
            return (
                f"; the mean loss of the first {step:.0f} steps is {losses.values[0]:.3g}, but its "
                f"first step alone would have brought {AT_REFERENCE / step:.3f}"
            )
    late = step is not None and step > LATE_STEP
    if late or other is None or first * other <= 0 or columns.run.method == "kto":
        return None
    if abs(first - other) < 0.5 * min(abs(first), abs(other)):
        return ", for chosen and rejected alike"
    return ", for rejected too" if first > 0 else None


# --- what disagrees -----------------------------------------------------------------------------


def _margin(columns: _Columns) -> Iterator[Finding]:
    """margin = chosen − rejected."""
    both = columns.together(q.MARGIN, q.CHOSEN_REWARD, q.REJECTED_REWARD)
    if both is None:
        return
    steps, margin, chosen, rejected = both
    allowed = 0.01 + 0.01 * np.maximum(np.abs(chosen), np.abs(rejected))
    off = np.abs(margin - (chosen - rejected)) > allowed
    if off.mean() < 0.2:
        return
    at = int(np.flatnonzero(off)[0])
    turned = np.abs(margin + (chosen - rejected)) <= allowed
    if turned[off].mean() > 0.9 and np.abs(margin).max() > 0.05:
        yield Finding(
            "swapped",
            "the margin is rejected − chosen: two columns are swapped",
            columns.at(steps[at]),
            "a column renamed by hand, or chosen and rejected exchanged in the data",
            columns.split,
        )
        return
    yield Finding(
        "margin",
        f"the margin is {margin[at]:.4g}, but chosen − rejected is {chosen[at] - rejected[at]:.4g}",
        columns.at(steps[at]),
        "the columns are of different batches or processes, or one of them is not times β; "
        "unpaired data (KTO) have no margin of pairs",
        columns.split,
    )


def _accuracy(columns: _Columns) -> Iterator[Finding]:
    """No pair is right and the mean margin positive, or every pair is right and it is negative."""
    both = columns.together(q.ACCURACY, q.MARGIN)
    if both is None or columns.run.method == "kto":
        return
    steps, accuracy, margin = both
    off = ((accuracy >= ALL_RIGHT) & (margin < -0.01)) | ((accuracy <= 0.001) & (margin > 0.01))
    if off.any():
        at = int(np.flatnonzero(off)[0])
        yield Finding(
            "accuracy",
            f"the accuracy is {accuracy[at]:.3g} at a margin of {margin[at]:.3g}, and one excludes "
            "the other",
            columns.at(steps[at]),
            "swapped columns, or an accuracy of something else (tokens)",
            columns.split,
        )


def _jensen(columns: _Columns) -> Iterator[Finding]:
    """DPO's loss and the hinge are convex in the margin: the mean is at least the mean's loss."""
    both = columns.together(q.LOSS, q.MARGIN)
    if both is None or columns.run.method or _proportional(columns):
        return
    other = _other_start(columns)
    if _nothing(both) or other not in ("", HINGE):  # others' losses are not of the margin alone
        return
    steps, loss, margin = both
    bound = np.maximum(0.0, 1 - margin) if other else np.logaddexp(0.0, -margin)
    known = "the hinge" if other else "DPO's (hinge, IPO, a scaled one)"
    off = loss < bound - 0.01 - _AGREE * bound
    if off.sum() < max(2, 0.1 * off.size):
        return
    at = int(np.flatnonzero(off)[0])
    yield Finding(
        "loss bound",
        f"the loss is {loss[at]:.3g}, below the {bound[at]:.3g} that a margin of {margin[at]:.3g} "
        f"allows (Jensen), on {int(off.sum())} of {off.size} lines",
        columns.at(steps[at]),
        f"another loss than {known}, or loss and margin of other batches",
        columns.split,
    )


def _first_loss(columns: _Columns) -> Iterator[Finding]:
    """At rewards of 0 the loss has one value, whatever the data (DP-1)."""
    both = columns.together(q.LOSS, q.CHOSEN_REWARD, q.REJECTED_REWARD)
    if both is None or columns.run.method or _proportional(columns):
        return
    if _nothing((*both[:2], both[2] - both[3])):
        return
    steps, loss, chosen, rejected = (float(v[0]) for v in both)
    if max(abs(chosen), abs(rejected)) > 0.01 or abs(loss - AT_REFERENCE) < _AGREE * AT_REFERENCE:
        return
    known = _other_start(columns)
    times = loss / AT_REFERENCE
    if known:
        cause = f"it is what {known} starts from"
    elif round(times) in range(2, 129) and abs(times / round(times) - 1) < 0.02:
        cause = (
            f"it is {round(times)} times DPO's: the loss is summed over gradient accumulation or "
            "processes, and so may be the gradient (transformers 4.46 did)"
        )
    elif loss > AT_REFERENCE:
        cause = "a further term (an NLL: rpo_alpha, pref_ftx), or another loss"
    else:
        cause = "a weighted or scaled loss, or rewards that were rounded"
    yield Finding(
        "first loss",
        f"the loss is {loss:.4g} at rewards of 0, where DPO's is {AT_REFERENCE:.4f}",
        columns.at(steps),
        cause,
        columns.split,
    )


def _other_start(columns: _Columns) -> str:
    """The loss other than DPO's that has the first loss's value at rewards of 0; "" if none."""
    both = columns.together(q.LOSS, q.CHOSEN_REWARD, q.REJECTED_REWARD)
    if both is None or max(abs(float(side[0])) for side in both[2:]) > 0.01:
        return ""
    beta = columns.beta or USUAL_BETA
    starts = OTHER_STARTS | {
        1 / (4 * beta**2): f"IPO at β = {beta:.3g}",
        1 / (2 * beta**2): f"SPPO at β = {beta:.3g}",
    }
    return next((name for at, name in starts.items() if abs(both[1][0] / at - 1) < 0.02), "")


def _same(columns: _Columns) -> Iterator[Finding]:
    """Two columns that hold the same numbers."""
    for pair in ((q.CHOSEN, q.REJECTED), (q.CHOSEN_REWARD, q.REJECTED_REWARD)):
        both = columns.together(*pair)
        if both is None or both[0].size < 3:
            continue
        told = (both[1] != 0) | (both[2] != 0)  # rounded rewards of the first lines are 0 alike
        alike = int((told & (both[1] == both[2])).sum())
        if alike >= max(3, _COPIED * told.sum()):
            every = "every line" if alike == told.sum() else f"{alike} of {told.sum()} lines"
            yield Finding(
                "copies",
                f"chosen and rejected are the same numbers at {every}",
                columns.at(both[0][0]),
                "one column logged twice, or pairs whose answers are identical",
                columns.split,
            )


def _copied_splits(run: RunSeries) -> Iterator[Finding]:
    by_quantity: dict[str, list[Series]] = {}
    for series in run.series:
        if series.quantity in q.TELLING and len(series) >= 3:
            by_quantity.setdefault(series.quantity, []).append(series)
    for alike in by_quantity.values():
        for a, b in combinations(alike, 2):
            if len(a) == len(b) and np.ptp(a.values) > 0 and np.array_equal(a.values, b.values):
                yield Finding(
                    "copies",
                    f"{a.column} ({a.split or 'unnamed'} split) and {b.column} ({b.split}) are the "
                    "same numbers",
                    cause="one series logged under two names, or an evaluation on the training set",
                )
                return


def _argmax(columns: _Columns) -> Iterator[Finding]:
    """Nothing at a position is likelier than its argmax, so chosen's sum is at most argmax's."""
    both = columns.together(q.ARGMAX, q.CHOSEN)
    series = columns.get(q.ARGMAX), columns.get(q.CHOSEN)
    if both is None or series[0] is None or series[1] is None:
        return
    if any(f.kind == "argmax" for f in columns.run.findings):
        return
    steps, argmax, chosen = both
    below = argmax < chosen - 0.01 - 1e-4 * np.abs(chosen)
    share = float(below.mean())
    each = series[0].examples, series[1].examples
    if each[0] is not None and each[1] is not None and each[0].shape == each[1].shape:
        cells = each[0] < each[1] - 0.01 - 1e-3 * np.abs(each[1])
        share, below = float(cells.mean()), np.asarray(cells.any(axis=0))
    if share < 0.001:
        return
    at = int(np.flatnonzero(below)[0])
    yield Finding(
        "argmax",
        f"the argmax lies below chosen's own log-prob ({argmax[at]:.4g} against {chosen[at]:.4g}; "
        f"{share:.1%} of the values), so it was taken along another text and is not used",
        columns.at(steps[at]),
        "the largest log-prob of every position is at least the chosen token's; compute it on the "
        "chosen answer's own positions",
        columns.split,
    )


def _direction(columns: _Columns) -> Iterator[Finding]:
    """On training batches, chosen's log-prob falls for certain while its reward rises."""
    series, both = columns.get(q.CHOSEN), columns.together(q.CHOSEN, q.CHOSEN_REWARD)
    if series is None or not series.batches or both is None or both[0].size < _TREND:
        return
    steps, logps, rewards = both
    if np.ptp(logps) == 0 or np.ptp(rewards) == 0:
        return
    fall, rise = stats.linregress(steps, logps), stats.linregress(steps, rewards)
    lost = -fall.slope * float(np.ptp(steps))
    certain = fall.pvalue < _CERTAIN and rise.pvalue < _CERTAIN
    if certain and rise.slope > 0 and lost > 0.05 * abs(float(np.median(logps))):
        yield Finding(
            "direction",
            f"chosen's log-prob falls by {lost:.3g} over the log while its reward rises",
            columns.at(float(steps[-1])),
            "a reference that is updated (sync_ref_model, TR-DPO), or batches in an order (by "
            "length, a curriculum)",
            columns.split,
        )


_CHECKS = (
    _no_loss,
    _saturated,
    _reference,
    _margin,
    _accuracy,
    _jensen,
    _first_loss,
    _same,
    _direction,
    _argmax,
)


def fitted_beta(run: RunSeries) -> tuple[float, Series, Series] | None:
    """β from a fixed set, on which rewards = β · log-probs + constant exactly, and both series."""
    for split in run.splits():
        rewards, logps = run.get(q.CHOSEN_REWARD, split), run.get(q.CHOSEN, split)
        if rewards is None or logps is None or len(rewards) != len(logps) or len(logps) < 3:
            continue
        if np.ptp(logps.values) == 0 or np.ptp(rewards.values) == 0:
            continue
        line = stats.linregress(logps.values, rewards.values)
        if line.rvalue > 0.9995 and line.slope > 0:
            return float(line.slope), rewards, logps
    return None


def _drift(columns: _Columns, beta: float | None) -> Iterator[Finding]:
    """On a fixed set, log-prob − reward/β is the reference's log-prob: one number for the run."""
    series = columns.get(q.CHOSEN)
    both = columns.together(q.CHOSEN, q.CHOSEN_REWARD)
    if both is None or series is None or series.batches or both[0].size < 5:
        return
    steps, logps, rewards = both
    if np.ptp(logps) == 0 or np.ptp(rewards) == 0 or _proportional(columns):
        return
    line = stats.linregress(logps, rewards)
    if line.rvalue > 0.9995 and line.slope > 0:
        if beta is not None and abs(line.slope / beta - 1) > _AGREE:
            yield Finding(
                "drift",
                f"--beta is {beta:g}, but log-probs and rewards of the log give {line.slope:.3g}",
                columns.at(steps[0]),
                "another β than the run's",
                columns.split,
            )
        return
    step = np.median(np.diff(rewards) / np.where(np.diff(logps) == 0, np.inf, np.diff(logps)))
    used = beta if beta is not None else float(step)
    if used <= 0:
        return
    reference = logps - rewards / used
    moved = np.abs(reference - reference[0])
    if moved.max() > max(0.05 * abs(float(np.median(reference))), 0.5 * np.ptp(logps)):
        at = int(np.argmax(moved > 0.5 * moved.max()))
        yield Finding(
            "drift",
            f"the reference drifts: log-prob − reward/β of chosen is {reference[0]:.4g} at first "
            f"and {reference[at]:.4g} here (β = {used:.3g})",
            columns.at(steps[at]),
            "a reference that is updated (sync_ref_model, TR-DPO), dropout in it, or an "
            "evaluation set that changes",
            columns.split,
        )


def _proportional(columns: _Columns) -> bool:
    """Whether rewards are a multiple of log-probs: a loss without a reference (SimPO, ORPO)."""
    both = columns.together(q.CHOSEN, q.CHOSEN_REWARD)
    return both is not None and proportional(both[2], both[1])


def proportional(rewards: Array, logps: Array) -> bool:
    """Whether rewards are a positive multiple of log-probs, within 2% of their largest."""
    if rewards.size < 2 or not np.any(logps) or not np.any(rewards):
        return False
    factor = float(rewards @ logps / (logps @ logps))
    return factor > 0 and bool(
        np.abs(rewards - factor * logps).max() < 0.02 * np.abs(rewards).max()
    )
