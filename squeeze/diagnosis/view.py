"""The series a verdict looks at on one split: in which unit, against which level, from which start.

Where a log has both log-probs and rewards, the one with less noise is used; β and the reference's
log-probs are recovered from fixed evaluation sets, where both are exact. No verdict is drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from squeeze.diagnosis import series as q
from squeeze.diagnosis.consistency import NOT_REFERENCED, fitted_beta, proportional
from squeeze.diagnosis.series import Array, Finding, RunSeries, Series
from squeeze.diagnosis.trend import Change, Fit, fit

# A change counts only beyond these, however significant it is.
MATERIAL_SHARE = 0.01  # of the level: each token's log-prob changes by one percent
MATERIAL_NATS = 0.5  # of a sequence's log-prob
PER_TOKEN_BELOW = 15.0  # levels nearer 0 may be means over tokens, for which 0.5 nats is a lot
MATERIAL_OF_MOVEMENT = 0.03  # for rewards, which have no level: of the run's largest movement
MATERIAL_REWARD = 0.03
REFERENCE_REWARD = 0.005  # a reward nearer to 0 is the reference's own, up to rounding
MARGIN_REWARD = 0.05  # a margin below it leaves DPO's loss above 0.668, against 0.693 at the start


@dataclass(frozen=True)
class Measured:
    """A series with its unit ("nats" or "reward") and its level in that unit (None for rewards).

    `anchor` is the exact value at step 0 where it is known though not logged: the reference's.
    """

    series: Series
    unit: str
    level: float | None
    anchor: float | None = None

    @cached_property
    def fit(self) -> Fit:
        """The series' trend, from the reference on if its value is known."""
        return fit(self.series, anchor=self.anchor)


@dataclass(frozen=True)
class View:
    """What a verdict on one split is drawn from; `notes` say how the series were derived.

    `phase` is the run's, or "sft" where only an SFT trainer logs what the run has.
    """

    split: str
    chosen: Measured | None
    rejected: Measured | None
    margin: Measured | None
    argmax: Measured | None
    extra: tuple[Measured, ...] = ()
    has_rewards: bool = False
    phase: str = ""
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def movement(self) -> float:
        """The largest movement among chosen, rejected and margin, in their unit."""
        fits = [m.fit for m in (self.chosen, self.rejected, self.margin) if m is not None]
        return max((float(np.ptp(f.level)) for f in fits), default=0.0)

    def threshold(self, measured: Measured) -> float:
        """The smallest change of that series that matters."""
        if measured.unit == "reward" and measured.level is None:
            if measured is self.margin:
                return MARGIN_REWARD
            return max(MATERIAL_REWARD, MATERIAL_OF_MOVEMENT * self.movement)
        level = abs(measured.level or 0.0)
        floor = MATERIAL_NATS if level > PER_TOKEN_BELOW else 0.0
        return max(MATERIAL_SHARE * level, floor)


def view(run: RunSeries, split: str, beta: float | None, findings: Sequence[Finding] = ()) -> View:
    """Gather what the run has on that split; `beta` is the DPO β, where the user gives it.

    Where `findings` say that the reference is not what training started from, curves begin at
    their first line.
    """
    notes: list[str] = []
    own = tuple(f for f in findings if f.split == split)
    mismatch = any(f.kind == "reference" for f in own)
    swapped = any(f.kind == "swapped" for f in own)
    logps = (run.get(q.CHOSEN, split), run.get(q.REJECTED, split))
    rewards = (run.get(q.CHOSEN_REWARD, split), run.get(q.REJECTED_REWARD, split))
    beta = _beta(run, notes) if beta is None else beta
    phase = "sft" if _is_sft(run) else run.phase
    if logps[0] is None and rewards[0] is None and phase != "dpo":
        logps = (_trained(run, split, phase, notes), None)
    if rewards[0] is not None and (logps[0] is None or _quieter(rewards[0], logps[0], beta, split)):
        chosen, rejected = _rewards(run, rewards, logps, beta, mismatch, notes)
        margin = run.get(q.MARGIN, split)
        scale = 1.0 if beta is None else beta
        unit = chosen.unit if chosen else "reward"
        level = None if rejected is None else rejected.level
        measured = (
            Measured(_scaled(margin, scale), unit, level, chosen.anchor if chosen else None)
            if margin is not None and not swapped
            else _difference(chosen, rejected)
        )
    else:
        chosen = _logps(logps[0], rewards[0], beta, mismatch, notes)
        rejected = _logps(logps[1], rewards[1], beta, mismatch, [])
        measured = _difference(chosen, rejected)
        margin = run.get(q.MARGIN, split)
        if measured is None and margin is not None:
            measured = Measured(margin, "reward", None)
    argmax = _argmax(run, split, findings, notes)
    return View(
        split=split,
        chosen=chosen,
        rejected=rejected,
        margin=measured,
        argmax=None if argmax is None else _nats(argmax),
        extra=tuple(Measured(s, "", None) for s in _extra(run, split)),
        has_rewards=any(s.quantity in (q.CHOSEN_REWARD, q.MARGIN) for s in run.series),
        phase=phase,
        findings=own,
        notes=tuple(notes),
    )


def _nats(series: Series) -> Measured:
    return Measured(series, "nats", float(np.median(series.values)))


def _logps(
    logps: Series | None,
    rewards: Series | None,
    beta: float | None,
    mismatch: bool,
    notes: list[str],
) -> Measured | None:
    """Log-probs, from the reference's on where the rewards of a fixed set give it away."""
    if logps is None:
        return None
    if mismatch or rewards is None or beta is None or len(rewards) != len(logps):
        return _nats(logps)
    if logps.steps[0] <= 0 and abs(float(rewards.values[0])) < REFERENCE_REWARD:
        return _nats(logps)
    reference = logps.values - rewards.values / beta
    level = float(np.median(reference))
    scatter = float(np.ptp(reference))
    if scatter > 0.01 * abs(level) or abs(level) < 0.02 * abs(float(np.median(logps.values))):
        return _nats(logps)  # other prompts at every line, or a loss without reference
    notes.append(
        f"{logps.column}: the reference's value {level:.4g} follows from the rewards (β = "
        f"{beta:.3g}) and stands for step 0"
    )
    return replace(_nats(logps), anchor=level)


def _rewards(
    run: RunSeries,
    rewards: tuple[Series | None, Series | None],
    logps: tuple[Series | None, Series | None],
    beta: float | None,
    mismatch: bool,
    notes: list[str],
) -> tuple[Measured | None, Measured | None]:
    """Rewards as changes against the reference, in nats if β is known.

    Without a reference (ORPO, SimPO) they are log-probs times a number, and have a level instead.
    """
    referenced = run.method not in NOT_REFERENCED and not _proportional(rewards[0], logps[0])
    first = rewards[0]
    if first is not None and referenced and not mismatch and _moved_before(first):
        notes.append(
            f"the first {first.column} is already {first.values[0]:.3g}: that much was learned "
            "before the first line, and counts, as the reference is at 0 exactly; log every step "
            "at first (logging_steps=1, logging_first_step=True) to see it"
        )
    found: list[Measured | None] = []
    for series, same in zip(rewards, logps, strict=True):
        if series is None:
            found.append(None)
            continue
        anchor = _reference(series) if referenced and not mismatch else None
        level = None if same is None else float(np.median(same.values))
        if beta is None or level is None:
            own = None if referenced else float(np.median(np.abs(series.values)))
            found.append(Measured(series, "reward", own, anchor))
        else:
            found.append(Measured(_scaled(series, beta), "nats", level, anchor))
    units = {m.unit for m in found if m is not None}
    if len(units) > 1:  # β known, but only one side has its log-probs
        found = [
            None if s is None else Measured(s, "reward", None, m.anchor if m else None)
            for s, m in zip(rewards, found, strict=True)
        ]
    return found[0], found[1]


def _moved_before(series: Series) -> bool:
    """Whether a good part of the movement lies before the first line."""
    moved = abs(float(series.values[0])) > 0.25 * max(float(np.ptp(series.values)), 1e-12)
    return moved and abs(float(series.values[0])) >= REFERENCE_REWARD


def _reference(series: Series) -> float | None:
    """0 before the first line; None where a first line of a fixed set is the reference itself."""
    itself = not series.batches and abs(float(series.values[0])) < REFERENCE_REWARD
    return None if itself and series.steps[0] <= 0 else 0.0


def _scaled(series: Series, beta: float) -> Series:
    return series if beta == 1.0 else replace(series, values=series.values / beta)


def _difference(chosen: Measured | None, rejected: Measured | None) -> Measured | None:
    """chosen − rejected at the steps that both have."""
    if chosen is None or rejected is None or chosen.unit != rejected.unit:
        return None
    a, b = chosen.series, rejected.series
    _, i, j = np.intersect1d(a.steps, b.steps, return_indices=True)
    if i.size == 0:
        return None
    examples: Array | None = None
    if a.examples is not None and b.examples is not None and a.examples.shape == b.examples.shape:
        examples = a.examples[:, i] - b.examples[:, j]
    margin = a.values[i] - b.values[j]
    series = Series(q.MARGIN, a.split, a.steps[i], margin, "chosen − rejected", examples, a.batches)
    known = chosen.anchor is not None and rejected.anchor is not None
    anchor = chosen.anchor - rejected.anchor if known else None  # type: ignore[operator]
    return Measured(series, chosen.unit, rejected.level, anchor)


def _argmax(
    run: RunSeries, split: str, findings: Sequence[Finding], notes: list[str]
) -> Series | None:
    if any(f.kind == "argmax" for f in findings):
        return None  # of another text
    own = run.get(q.ARGMAX, split)
    if own is not None:
        return own
    everywhere = [s for s in run.series if s.quantity == q.ARGMAX]
    if len(everywhere) != 1:
        return None
    if everywhere[0].split:
        notes.append(f"argmax is only known on the {everywhere[0].split} split")
    return everywhere[0]


def _extra(run: RunSeries, split: str) -> list[Series]:
    wanted = (q.ENTROPY, q.REPETITION, q.END_OF_TEXT, q.LENGTH, q.LOSS, q.ACCURACY)
    return [
        s
        for s in run.series
        if s.split == split and (s.quantity in wanted or s.quantity.startswith(q.OTHER))
    ]


def _is_sft(run: RunSeries) -> bool:
    """Whether the run says so, or has what SFT trainers log and no series of preference pairs."""
    quantities = {s.quantity for s in run.series}
    silent = not run.phase and not quantities & set(q.TELLING)
    return run.phase == "sft" or (silent and q.TOKEN_ACCURACY in quantities)


def _trained(run: RunSeries, split: str, phase: str, notes: list[str]) -> Series | None:
    """An SFT trainer's loss, or an NLL, is the mean negative log-prob of the trained answers."""
    nll = run.get(q.NLL, split)
    loss = nll if nll is not None else (run.get(q.LOSS, split) if phase == "sft" else None)
    if loss is None:
        return None
    notes.append(f"chosen is read off {loss.column}: minus the loss is nats per trained token")
    return replace(loss, quantity=q.CHOSEN, values=-loss.values, column=f"−{loss.column}")


# --- β --------------------------------------------------------------------------------------------


def _beta(run: RunSeries, notes: list[str]) -> float | None:
    """β where the log tells it, with a note."""
    fitted = fitted_beta(run)
    if fitted is None:
        return None
    beta, rewards, logps = fitted
    notes.append(f"β = {beta:.3g} follows from {rewards.column} and {logps.column}")
    return beta


def _proportional(rewards: Series | None, logps: Series | None) -> bool:
    """Whether rewards are a multiple of log-probs: a loss without a reference (SimPO, ORPO)."""
    if rewards is None or logps is None or len(rewards) != len(logps):
        return False
    return proportional(rewards.values, logps.values)


def _quieter(rewards: Series, logps: Series, beta: float | None, split: str) -> bool:
    """Whether the rewards show the trend with less noise than the log-probs.

    On training batches the log-probs vary with the batch, and the rewards have that taken out.
    """
    if _proportional(rewards, logps):
        return False
    roughness = [float(np.std(np.diff(s.values))) if len(s) > 2 else 0.0 for s in (rewards, logps)]
    if beta is not None:
        return roughness[0] / beta < 0.5 * roughness[1]
    if not split.startswith("eval"):
        return True
    # Of a fixed set both are one curve, times β; log-probs that are rougher are of other prompts.
    share = [
        r / max(float(np.ptp(s.values)), 1e-12)
        for r, s in zip(roughness, (rewards, logps), strict=True)
    ]
    return 1.5 * share[0] < share[1]


def both(change: Change) -> float:
    """The two-sided p of a change."""
    return min(1.0, 2 * change.p)
