"""Checks of the reference over a training: it stays what it was, in whatever mode it is asked."""

from __future__ import annotations

from typing import Any

import torch

from squeeze.errors import InputError
from squeeze.verify.families import REWARDS, Metrics
from squeeze.verify.scorer import Scores, moved
from squeeze.verify.steps import taken
from squeeze.verify.subject import MOVED, TrainerSubject, adapter
from squeeze.verify.types import DoesNotApply, Measured, check


def _implied_off(subject: TrainerSubject, logged: Metrics, policy: Scores) -> tuple[float, float]:
    """Nats between the reference that logged rewards imply and the model before training; and the
    mean log-ratio's size."""
    should = subject.family.logged(
        policy, subject.reference(subject.all_rows), subject.args, subject.rows
    )
    names = [name for name in REWARDS if name in logged]
    if not names:
        raise DoesNotApply("the trainer logs no rewards")
    off = max(abs(logged[name] - should[name]) for name in names) / subject.args.beta
    size = max(abs(should[name]) for name in names) / subject.args.beta
    return off, size


def _after(subject: TrainerSubject) -> tuple[Any, Scores]:
    """The trainer after its step, and the scorer's log-probs under it."""
    if not subject.family.has_reference:
        raise DoesNotApply("there is no reference")
    trainer = taken(subject).trainer
    with torch.no_grad():
        return trainer, subject.scores(trainer.model, subject.all_rows)


def _measured(off: float, size: float, when: str) -> Measured:
    return Measured(
        off, f"{when}: mean log-ratio {size:.3g} nats, that to the reference off by {off:.2g}"
    )


@check(
    "reference-constant",
    TrainerSubject,
    standard="the reference after a step is the reference before it",
    cure="the reference shares weights with the policy or is synchronised with it: give it its "
    "own copy, or switch sync_ref_model off",
    tolerance=1e-3,
    needs=("reference-logps", "logged-metrics", "first-order"),
)
def reference_constant(subject: TrainerSubject) -> Measured:
    """Rewards in training mode after a step."""
    if getattr(subject.args, "sync_ref_model", False):
        raise DoesNotApply("the reference is told to follow the policy (sync_ref_model)")
    trainer, policy = _after(subject)
    with torch.no_grad():
        _, logged = subject.compute(trainer, subject.rows_of(trainer))
    return _measured(*_implied_off(subject, logged, policy), "after a step")


@check(
    "reference-in-evaluation",
    TrainerSubject,
    standard="evaluation after training is against the same reference",
    cure="evaluation takes another way to the reference, and finds the trained policy: pass an "
    "explicit ref_model, or prepare the evaluation data before training",
    tolerance=1e-3,
    needs=("reference-constant", "evaluation-mode"),
)
def reference_in_evaluation(subject: TrainerSubject) -> Measured:
    """Rewards that `evaluate` returns after a step."""
    if getattr(subject.args, "sync_ref_model", False):
        raise DoesNotApply("the reference is told to follow the policy (sync_ref_model)")
    trainer, policy = _after(subject)
    try:
        found = trainer.evaluate(eval_dataset=trainer.train_dataset)
    except (NotImplementedError, ValueError) as error:
        raise DoesNotApply(f"evaluate() refuses these data after a step: {error}") from error
    logged = {name.removeprefix("eval_"): value for name, value in found.items()}
    if not any(name in logged for name in REWARDS):  # some log them, and return less
        logged = {k.removeprefix("eval_"): v for k, v in trainer.state.log_history[-1].items()}
    return _measured(*_implied_off(subject, logged, policy), "evaluate() after a step")


@check(
    "adapter-disabled",
    TrainerSubject,
    standard="with an adapter the reference is the model without it, exactly",
    cure="the adapter stays on in the reference's pass, or is merged: pass no ref_model with a "
    "new adapter and let the trainer switch it off",
    tolerance=1e-3,
    needs=("reference-logps", "logged-metrics"),
)
def adapter_disabled(subject: TrainerSubject) -> Measured:
    """Rewards with a LoRA adapter whose weights were moved."""
    if not subject.family.has_reference:
        raise DoesNotApply("there is no reference")
    with adapter(subject) as model:
        try:
            trainer = subject.build(model)
        except InputError as error:
            raise DoesNotApply(f"the trainer takes no model with an adapter: {error}") from error
    rows = subject.rows_of(trainer)
    with moved(trainer.model, MOVED), torch.no_grad():
        _, logged = subject.compute(trainer, rows)
        policy = subject.scores(trainer.model, subject.all_rows)
        _, again = subject.compute(trainer, rows)
    if logged.get("logps/chosen") != again.get("logps/chosen"):
        return Measured(float("inf"), "the adapter is another after the reference's pass")
    return _measured(*_implied_off(subject, logged, policy), "with a LoRA adapter")
