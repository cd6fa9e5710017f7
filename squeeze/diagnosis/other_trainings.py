"""Trainings that are not on pairs: what they are called, and what their logs can tell.

GRPO, RLOO and online DPO sample their answers anew, KTO's have no partner; a log of a loss alone is
one of these too.
"""

from __future__ import annotations

from squeeze.diagnosis.series import REWARD_MODEL, RunSeries

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
_SCORES = (
    "a reward model's training: its rewards of chosen and rejected are scores that it learns, not "
    "β times a change of log-probs, so nothing here tells where the likelihood of an answer goes"
)
_GUESSED = (
    ". That is told by the rewards, which begin at one value away from 0; of a DPO run they begin "
    'at 0: if it is one (begun earlier, or with another reference), put "dpo" into the file\'s name'
)
_SHARED = (
    "OpenRLHF logs a reward model's scores under these names too; this is judged as DPO, and says "
    "nothing of a reward model"
)


def of_method(run: RunSeries) -> tuple[str, ...]:
    """What is special about the training that wrote the log."""
    if run.method in _METHODS:
        return (_METHODS[run.method],)
    shared = any(s.column.endswith("reject_reward") and s.values[0] != 0 for s in run.series)
    return (_SHARED,) if shared and not run.method else ()


def nothing_to_judge(run: RunSeries) -> str:
    """Why there is no verdict, and what to log."""
    if run.method == "grpo":
        return _RL
    if run.method.startswith(REWARD_MODEL):
        return _SCORES + (_GUESSED if run.method.endswith("?") else "")
    have = ", ".join(dict.fromkeys(s.column for s in run.series))
    return (
        f"the log holds {have} only; a loss falls when the margin grows, whether chosen rises or "
        "falls, so log rewards/chosen and rewards/rejected (or logps/...) too"
    )
