"""Private names of TRL and transformers: every one that squeeze touches, and nothing else.

`TOUCHED` lists them with the versions that each was tried on; a test fails when one disappears.
Whoever needs another private name adds it here, with a function that says what it is for. (The
attention of `squeeze.tree_attention`, which stands below this module, is touched there.)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, partial
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor
from transformers import Trainer, TrainerControl, TrainingArguments
from trl import DPOTrainer

from squeeze.errors import InputError


@dataclass(frozen=True)
class Touch:
    """A name that is not public: where it is, why it is touched, and what it was tried on.

    `optional` names may be missing: squeeze then does without, and says at the function how.
    """

    module: str
    name: str
    why: str
    tried: str
    optional: bool = False

    def found(self) -> bool:
        """Whether the installed version has the name."""
        value: Any = import_module(self.module)
        for part in self.name.split("."):
            value = getattr(value, part, None)
        return value is not None


# TRL 1.15 has the same names, but its fused LM head needs triton, and so a GPU, for DPO.
_TRL = "TRL 1.16"
_BOTH = f"{_TRL}; transformers 5.17, 5.23"
TOUCHED = (
    Touch("trl", "DPOTrainer._compute_loss", "another loss on TRL's forward pass", _TRL),
    Touch("trl", "DPOTrainer.log", "overridden by TRL; probes are logged past it", _TRL),
    Touch("trl", "DPOTrainer.create_model_card", "no card beside each checkpoint", _TRL),
    Touch("trl", "GRPOTrainer._prepare_inputs", "rollouts to verify and to watch", _TRL),
    Touch("trl", "RLOOTrainer._prepare_inputs", "rollouts to verify and to watch", _TRL),
    Touch("trl.trainer.utils", "_use_triton", "answers alone on a CPU", _TRL, optional=True),
    Touch("trl.trainer.utils", "selective_log_softmax", "a peer in the benchmark", _TRL),
    Touch("transformers", "Trainer.log", "probes in the trainer's log", _BOTH),
    Touch("transformers", "PreTrainedConfig._attn_implementation", "packed answers", _BOTH),
)


def checkpointing(on: bool) -> dict[str, bool]:
    """The argument of `TrainingArguments` that has activations made again in the backward pass.

    Older versions of transformers call it gradient_checkpointing.
    """
    known = {field.name for field in fields(TrainingArguments)}
    new = "activation_checkpointing"
    return {new if new in known else "gradient_checkpointing": on}


@cache
def restore_on_cpus() -> None:
    """Let torch read a checkpoint "to cpu:0", as transformers 5.17 does in several processes."""
    torch.serialization.register_package(
        15, lambda storage: None, lambda storage, at: storage if at.startswith("cpu:") else None
    )


@contextmanager
def answers_alone() -> Iterator[None]:
    """Let TRL's output head see the tokens of answers alone on a CPU too, as it does on a GPU.

    Elsewhere TRL 1.16 scores prompts and padding as well and masks them afterwards, for compilers
    that want one shape; to a CPU that is a quarter of a training. A TRL without this choice is
    left as it is.
    """
    from trl.trainer import utils

    chosen = getattr(utils, "_use_triton", None)
    if chosen is None or torch.cuda.is_available():
        yield
        return
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = chosen


class PolicyLogpsTrainer(DPOTrainer):  # type: ignore[misc]
    """DPOTrainer whose loss is `loss_of` the log-probs of TRL's own forward pass.

    Metrics stay TRL's. What `_compute_loss` calls the model with returns `.log_probs`, the log-prob
    of every token but the first of each row, since TRL 1.15 (on a CPU 1.16).
    """

    def loss_of(self, token_logps: Tensor, inputs: dict[str, Any]) -> Tensor:
        """The number to differentiate, from log-probs [rows, tokens] and TRL's batch."""
        raise NotImplementedError

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        seen: list[Any] = []

        def policy(**kwargs: Any) -> Any:
            seen.append(model(**kwargs))
            return seen[-1]

        result = super()._compute_loss(policy, inputs, return_outputs)
        length = inputs["completion_mask"].shape[1] - 1
        value = self.loss_of(seen[0].log_probs[:, -length:].float(), inputs)
        return (value, result[1]) if return_outputs else value


def sampled_batch(trainer: Any) -> dict[str, Any]:
    """The batch that a group-relative trainer samples from the next of its prompts, on its device.

    Its names are TRL's: prompt_ids, completion_ids, their masks, advantages, and old log-probs
    where the trainer keeps them.
    """
    trainer.model.train()
    # set by transformers' loop, and read by the losses
    trainer.current_gradient_accumulation_steps = 1
    batch: dict[str, Any] = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    return batch


def sampled_method(trainer: Any) -> str:
    """What a trainer that samples its answers is called in a diagnosis; "" for others."""
    kinds = {cls.__name__ for cls in type(trainer).__mro__}
    if kinds & {"GRPOTrainer", "RLOOTrainer"}:
        return "grpo"
    return "online dpo" if "OnlineDPOTrainer" in kinds else ""


def note_rollouts(trainer: Any, note: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """Have `note` called with every batch that a group-relative trainer trains on; how to end it.

    The batch is TRL's, as of `sampled_batch`, and not to be changed.
    """
    prepare = trainer._prepare_inputs

    def noted(*args: Any, **kwargs: Any) -> dict[str, Any]:
        batch: dict[str, Any] = prepare(*args, **kwargs)
        if trainer.model.training:
            note(batch)
        return batch

    trainer._prepare_inputs = noted
    return partial(delattr, trainer, "_prepare_inputs")


@contextmanager
def without_cards(trainer: Any) -> Iterator[None]:
    """Weights saved without model cards: only this run reads them, and a card takes longer."""
    trainer.create_model_card = trainer.model.create_or_update_model_card = lambda *_, **__: None
    try:
        yield
    finally:
        del trainer.create_model_card, trainer.model.create_or_update_model_card


def calling_trainer() -> Any:
    """The trainer whose event a callback handles, for those that were not passed their trainer.

    transformers tells callbacks the model, the data loaders and the optimizer, but not the trainer;
    it is the nearest one on the call stack. Raises `InputError` if there is none.
    """
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Trainer):
            return owner
        frame = frame.f_back
    raise InputError(
        "SqueezeCallback works inside a transformers or TRL Trainer only; pass it in callbacks=, "
        "or trainer.add_callback(SqueezeCallback(trainer=trainer))"
    )


def log_beside(trainer: Any, metrics: dict[str, float], control: TrainerControl) -> None:
    """Log through a trainer without disturbing what it will log itself.

    `Trainer.log` is called past TRL's overrides, which would take the metrics gathered so far out
    of the trainer's next line; and logging clears `should_log`, which is not ours to clear.
    """
    should_log = control.should_log
    Trainer.log(trainer, metrics)
    control.should_log = should_log


@contextmanager
def unheard(trainer: Any) -> Iterator[None]:
    """Within it, no callback hears of what the trainer does."""
    handler = trainer.callback_handler
    callbacks, handler.callbacks = handler.callbacks, []
    try:
        yield
    finally:
        handler.callbacks = callbacks


def model_name(model: Any) -> str:
    """What a model was loaded from; its class where that is not known."""
    return str(getattr(model.config, "_name_or_path", "") or type(model).__name__)


def attention_of(model: Any) -> str:
    """The implementation of a model's attention; `model.set_attn_implementation` changes it."""
    return str(model.config._attn_implementation)


def selective_log_softmax(logits: Tensor, index: Tensor) -> Tensor:
    """TRL's log-probs [rows] of the tokens `index` [rows] under logits [rows, vocab]."""
    from trl.trainer import utils

    return cast(Tensor, utils.selective_log_softmax(logits, index))
