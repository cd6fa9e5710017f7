"""Cheap checks: what one can ask of a trainer in the middle of a run without disturbing it.

A few passes on rows of its own, in evaluation mode, so that no random number is drawn and no
counter moves; no weight is touched, nothing is trained and nothing is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from squeeze.errors import InputError
from squeeze.verify.catalogue import CHECKS
from squeeze.verify.families import is_group_relative
from squeeze.verify.runner import ask
from squeeze.verify.subject import InstanceSubject
from squeeze.verify.types import Result

TOKENS = (
    *("not-emptied", "one-bos", "inference-tokens", "answer-tokens", "not-swapped", "distinct"),
    *("prompt-masked", "end-of-text", "whole-answer"),
)
START = ("initial-loss", "initial-rewards")  # to 1e-4: not under 16-bit autocast
N_ROWS = 2
_FOREIGN = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class _Running(InstanceSubject):
    """A trainer at its first step, in evaluation mode, its weights where they are."""

    moved_by = 0.0

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        """The same in evaluation mode."""
        return super().compute(*args, **kwargs | {"training": False})


def cheap_checks(trainer: Any, model: Any = None, inputs: Any = None) -> list[Result]:
    """The cheap checks of a trainer before its first step.

    `model` is the trainer's own, `inputs` are rows as its data set holds them; None takes both
    from the trainer. Raises `InputError`, and nothing else that a foreign collator or loss may
    raise, for a trainer that cannot be asked.
    """
    rows: Sequence[dict[str, Any]] | None = inputs
    if model is not None and model is not trainer.model:
        raise InputError("the model is not the trainer's; leave it out")
    if is_group_relative(trainer):
        raise InputError(
            "a group-relative trainer is not asked during training, as what it samples would "
            "differ; ask it with `squeeze verify my_script:make_trainer`"
        )
    try:
        subject = _Running(trainer, N_ROWS, rows=rows)
        rounded = trainer.args.bf16 or trainer.args.fp16
        ids = TOKENS if rounded else (*TOKENS, *START)
        return ask([CHECKS[id] for id in ids], subject)
    except InputError:
        raise
    except _FOREIGN as error:
        raise InputError(f"{type(trainer).__name__} cannot be asked: {error!r}") from error
