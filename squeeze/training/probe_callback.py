"""Callbacks that watch a TRL trainer: one core scores the probe set, others say when and record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from squeeze import interrupt
from squeeze.data.encoding import EncodedItem
from squeeze.distributed import score_shared
from squeeze.scoring import ScoredResponse, score_responses

if TYPE_CHECKING:
    import torch
    from transformers import TrainerControl, TrainerState, TrainingArguments


class Prober:
    """Scores a probe set, every process its share; `seconds` is the time spent so far.

    `dtype` is autocast's, None for the model's own.
    """

    def __init__(self, items: Sequence[EncodedItem], dtype: torch.dtype | None = None) -> None:
        self.items, self.dtype, self.seconds = items, dtype, 0.0

    def __call__(self, model: Any) -> list[ScoredResponse]:
        """All responses' scores, on every process.

        Raises `InputError`, on every process, if a log-prob is not finite on one of them.
        """
        start = time.perf_counter()
        try:
            return score_shared(
                lambda items: score_responses(model, items, dtype=self.dtype), self.items
            )
        finally:
            self.seconds += time.perf_counter() - start


class ProbeCallback(TrainerCallback):
    """At the end of epochs, have the trainer save a checkpoint and then probe the model.

    Probing after the save means that a recorded probe implies a complete checkpoint of the same
    step, which is what makes a killed run resumable. `wanted(epoch)` may leave epochs out. The
    trainer's own `save_strategy` must be "no". `record(step, epoch, found)` receives what
    `prober(model)` returns: a `Prober`'s scores, or what else is asked of the model.

    Where a signal asks the run to stop, the step in hand is saved and the training ends;
    `between(step)` is told of a checkpoint that lies between probes.
    """

    def __init__(
        self,
        prober: Callable[[Any], Any],
        record: Callable[[int, float, Any], None],
        wanted: Callable[[float], bool] = lambda epoch: True,
        between: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.prober, self.record, self.wanted, self.between = prober, record, wanted, between
        self._due = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and end the training if a signal asks for it."""
        if interrupt.requested():
            control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint if this epoch's end is wanted."""
        whole = abs(_epoch(state) - round(_epoch(state))) < 1e-6
        if whole and self.wanted(_epoch(state)):
            control.should_save = self._due = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Probe the model as it was just saved."""
        if not self._due:
            self.between(state.global_step)
            return
        self._due = False
        self.record(state.global_step, _epoch(state), self.prober(kwargs["model"]))


def _epoch(state: TrainerState) -> float:
    return round(state.epoch or 0.0, 6)


class StepCallback(TrainerCallback):
    """Call `advance()` after every optimizer step (a progress bar's tick)."""

    def __init__(self, advance: Callable[[], None]) -> None:
        self.advance = advance

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tick."""
        self.advance()
