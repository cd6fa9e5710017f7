"""One update of a subject's trainer, taken by its own `train`, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from squeeze.verify.scorer import gradient, score_answers, trainable
from squeeze.verify.subject import TrainerSubject
from squeeze.verify.types import DoesNotApply

NATS = 0.005  # that the step is meant to move the answer which moves most


@dataclass(frozen=True)
class Step:
    """The trainer after one step of SGD on a full batch; changes of log-probs in nats."""

    trainer: Any
    learning_rate: float
    update: Float[Tensor, " parameters"]
    predicted: Float[Tensor, " answers"]
    changes: Float[Tensor, " answers"]


_GRADIENTS = "_squeeze_gradient_at_start"
_STEP = "_squeeze_step"


def _kept(subject: TrainerSubject, name: str, make: Any) -> Any:
    """What `make` returns, computed once a subject."""
    if name not in subject.__dict__:
        subject.__dict__[name] = make()
    return subject.__dict__[name]


def gradient_at_start(subject: TrainerSubject) -> Float[Tensor, " parameters"]:
    """The gradient of the full batch's loss at the start."""

    def make() -> Tensor:
        loss, _ = subject.compute(subject.trainer, subject.rows)
        return gradient(loss, subject.trainer.model)

    found: Tensor = _kept(subject, _GRADIENTS, make)
    return found


def weights(model: Any) -> Float[Tensor, " parameters"]:
    """A flat copy of the trainable parameters."""
    return torch.cat([p.detach().flatten().clone() for p in trainable(model)])


def taken(subject: TrainerSubject) -> Step:
    """The step, taken once a subject; `DoesNotApply` for an instance, which has one training."""
    step: Step = _kept(subject, _STEP, lambda: _take(subject))
    return step


def _take(subject: TrainerSubject) -> Step:
    toward = -gradient_at_start(subject)
    answers = subject.answers(subject.all_rows)
    before = score_answers(subject.trainer.model, answers).values
    rates = torch.stack([gradient(s, subject.trainer.model) @ toward for s in before])
    if not rates.abs().max() > 0:
        raise DoesNotApply("the gradient at the start is 0")
    learning_rate = NATS / rates.abs().max().item()
    trainer, moved_by = _train(subject, learning_rate)
    with torch.no_grad():
        after = score_answers(trainer.model, answers).values
    return Step(trainer, learning_rate, moved_by, learning_rate * rates, after - before.detach())


def _train(
    subject: TrainerSubject, learning_rate: float, **options: Any
) -> tuple[Any, Float[Tensor, " parameters"]]:
    trainer = subject.build(learning_rate=learning_rate, **options)
    before = weights(trainer.model)
    trainer.train()
    return trainer, weights(trainer.model) - before


def update(subject: TrainerSubject, **options: Any) -> Float[Tensor, " parameters"]:
    """The change of the weights by one step at the same learning rate, with other options."""
    return _train(subject, taken(subject).learning_rate, **options)[1]
