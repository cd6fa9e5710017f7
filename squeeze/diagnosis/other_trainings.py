"""Trainings that are not on pairs: what they are called, and what their logs can tell.

GRPO, RLOO and online DPO sample their answers anew, KTO's have no partner; a log of a loss alone is
one of these too.
"""

from __future__ import annotations

from squeeze.diagnosis.series import RunSeries

_METHODS = {
    "kto": "a KTO run on unpaired answers: chosen and rejected are of different prompts, so the "
    "margin is no pair's; chosen alone is judged",
    "online dpo": "an online run: every batch holds answers just sampled, so the curves compare "
    "different texts; watch a fixed probe (SqueezeCallback)",
}
_RL = (
    "a GRPO or RLOO run: its answers are sampled anew at every step, so no curve follows a fixed "
    "one; to see a displacement, log the log-probs of fixed right answers "
    "(SqueezeCallback does)"
)


def of_method(run: RunSeries) -> tuple[str, ...]:
    """What is special about the training that wrote the log."""
    return (_METHODS[run.method],) if run.method in _METHODS else ()


def nothing_to_judge(run: RunSeries) -> str:
    """Why there is no verdict, and what to log."""
    if run.method == "grpo":
        return _RL
    have = ", ".join(dict.fromkeys(s.column for s in run.series))
    return (
        f"the log holds {have} only; a loss falls when the margin grows, whether chosen rises or "
        "falls, so log rewards/chosen and rewards/rejected (or logps/...) too"
    )
