"""Callbacks that watch a TRL trainer: one probes and records, one shows progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from squeeze.data.encoding import EncodedItem
from squeeze.distributed import score_shared
from squeeze.scoring import ScoredResponse, score_responses

if TYPE_CHECKING:
    import torch
    from transformers import TrainerControl, TrainerState, TrainingArguments

Record = Callable[[int, float, list[ScoredResponse]], None]


class ProbeCallback(TrainerCallback):
    """At the end of epochs, have the trainer save a checkpoint and then score the probe set.

    Probing after the save means that a recorded probe implies a complete checkpoint of the same
    step, which is what makes a killed run resumable. `wanted(epoch)` may leave epochs out. The
    trainer's own `save_strategy` must be "no". `record(step, epoch, responses)` receives what was
    scored; `seconds` is the time spent so far.
    """

    def __init__(
        self,
        items: Sequence[EncodedItem],
        record: Record,
        wanted: Callable[[float], bool] = lambda epoch: True,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.items = items
        self.record = record
        self.wanted = wanted
        self.dtype = dtype
        self.seconds = 0.0

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for a checkpoint if this epoch's end is wanted."""
        control.should_save = self.wanted(_epoch(state))

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Probe the model as it was just saved."""
        start = time.perf_counter()
        responses = score_shared(
            lambda items: score_responses(kwargs["model"], items, dtype=self.dtype), self.items
        )
        self.record(state.global_step, _epoch(state), responses)
        self.seconds += time.perf_counter() - start


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
