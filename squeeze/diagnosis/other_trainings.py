"""Trainings that are not on pairs: what they are called, and what their logs can tell.

GRPO, RLOO and online DPO sample their answers anew, KTO's have no partner; a log of a loss alone is
one of these too.
"""

from __future__ import annotations

from squeeze.diagnosis import series as q
from squeeze.diagnosis.movements import MOVE_P
from squeeze.diagnosis.series import RunSeries
from squeeze.diagnosis.trend import FEWEST, fit
from squeeze.diagnosis.view import both

_METHODS = {
    "kto": "a KTO run on unpaired answers: chosen and rejected are of different prompts, so the "
    "margin is no pair's; chosen alone is judged",
    "online dpo": "an online run: every batch holds answers just sampled, so the curves compare "
    "different texts; watch a fixed probe (SqueezeCallback)",
}
_RL = (
    "a GRPO or RLOO run: its answers are sampled anew at every step, so no curve follows a fixed "
    "one; to see a displacement, log the log-probs and the argmax of fixed correct answers "
    "(SqueezeCallback(probe=...)), and watch entropy"
)


def of_method(run: RunSeries) -> tuple[str, ...]:
    """What is special about the training that wrote the log."""
    return (_METHODS[run.method],) if run.method in _METHODS else ()


def of_rl(run: RunSeries) -> tuple[str, ...]:
    """What an entropy says of a run without pairs."""
    if run.method != "grpo":
        return of_method(run)
    series = next((s for s in run.series if s.quantity == q.ENTROPY), None)
    if series is None or len(series) < FEWEST:
        return ("entropy is not in the log, or too short: log it at every step",)
    change = fit(series).change()
    if both(change) <= MOVE_P and change.effect < -0.2 * abs(change.start):
        return (
            f"entropy falls from {series.values[0]:.3g} to {series.values[-1]:.3g}: the policy "
            "narrows, as squeezing would have it (claims EN-1, NS-1)",
        )
    return (f"entropy goes from {series.values[0]:.3g} to {series.values[-1]:.3g}: no collapse",)


def nothing_to_judge(run: RunSeries) -> str:
    """Why there is no verdict, and what to log."""
    if run.method == "grpo":
        return _RL
    have = ", ".join(dict.fromkeys(s.column for s in run.series))
    return (
        f"the log holds {have} only; a loss falls when the margin grows, whether chosen rises or "
        "falls, so log rewards/chosen and rewards/rejected (or logps/...) too"
    )
