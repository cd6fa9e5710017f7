"""Checks of the step: what one update does to the weights and to the answers' log-probs."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from squeeze.verify.checks_loss import compared, distance, loss_away, relative
from squeeze.verify.families import Pairs
from squeeze.verify.scorer import gradient
from squeeze.verify.steps import gradient_at_start, taken, update
from squeeze.verify.subject import TrainerSubject
from squeeze.verify.types import DoesNotApply, Measured, check

SAME = 1e-3  # relative, of two updates
MAX_SPLIT = 6  # rows, of which every split into halves is tried
ANTISYMMETRIC = 1e-4  # relative, where a theorem is asked whether it holds for a loss


@check(
    "first-order",
    TrainerSubject,
    standard="one small step changes an answer's log-prob by −η⟨∇s, ∇L⟩ (Prop. 1 of arXiv "
    "2407.10490, LD-1)",
    cure="the optimizer does not get the loss's gradient: it is clipped, scaled, accumulated from "
    "before, or parameters are frozen or left out",
    tolerance=0.1,
    unit="relative",
    needs=("initial-gradient", "batch-composition", "packing"),
)
def first_order(subject: TrainerSubject) -> Measured:
    """Δ log-prob of every answer by one step of SGD against its prediction."""
    step = taken(subject)
    predicted, found = step.predicted, step.changes
    off = ((found - predicted).abs().max() / predicted.abs().max()).item()
    return Measured(
        off,
        f"largest change predicted {predicted.abs().max():.3g} nats, prediction off by "
        f"{(found - predicted).abs().max():.2g}",
    )


def _same_update(subject: TrainerSubject, what: str, **options: Any) -> Measured:
    plain, other = taken(subject).update, update(subject, **options)
    ratio = (other.norm() / plain.norm()).item()
    return Measured(distance(other, plain), f"update {what}: length {ratio:.4f} of the plain one")


@check(
    "accumulation",
    TrainerSubject,
    standard="a step does not depend on how its batch is split by gradient accumulation",
    cure="losses of micro-batches are added and not averaged, or averaged by rows where the loss "
    "is a mean over tokens (or sorts, or estimates something over the batch)",
    tolerance=SAME,
    unit="relative",
    needs=("first-order", "batch-composition"),
)
def accumulation(subject: TrainerSubject) -> Measured:
    """One update from the batch, and from its halves."""
    half = subject.args.per_device_train_batch_size // 2
    if half < 1:
        raise DoesNotApply("a batch of one row cannot be split")
    plain = taken(subject)
    other = update(subject, per_device_train_batch_size=half, gradient_accumulation_steps=2)
    ratio = (other.norm() / plain.update.norm()).item()
    what = f"update from 2 × {half} rows: length {ratio:.4f} of the plain one"
    measured = Measured(distance(other, plain.update), what)
    if measured.deviation > SAME and _splits_by_formula(subject, half, other):
        raise DoesNotApply(
            "the declared loss is no mean over rows (but over tokens, or it sorts the batch), so "
            f"its formula depends on the split: {what}, {measured.deviation:.1%} off"
        )
    return measured


def _splits_by_formula(subject: TrainerSubject, half: int, found: Tensor) -> bool:
    """Whether an update is the mean of the declared losses' of two halves of a small batch.

    As near as the plain update is to its own formula: weights are rounded in both.
    """
    rows, plain = subject.all_rows, taken(subject)
    if not 2 * half == len(rows) <= MAX_SPLIT:
        return False

    def update_by_formula(*parts: list[int]) -> Tensor:
        gradients = [subject.expected_gradient(part, subject.args) for part in parts]
        return -plain.learning_rate * torch.stack(gradients).mean(0)

    rounding = distance(plain.update, update_by_formula(rows))
    for one in combinations(rows[1:], half - 1):
        first = [rows[0], *one]
        second = [row for row in rows if row not in first]
        if distance(found, update_by_formula(first, second)) <= 1.5 * rounding + SAME:
            return True
    return False


@check(
    "gradient-checkpointing",
    TrainerSubject,
    standard="a step does not depend on whether activations are kept or computed again",
    cure="the second pass differs from the first: random state, adapters or mode are not restored",
    tolerance=1e-3,
    unit="relative",
    needs=("first-order",),
)
def gradient_checkpointing(subject: TrainerSubject) -> Measured:
    """One update without and with it."""
    return _same_update(subject, "with gradient checkpointing", gradient_checkpointing=True)


@check(
    "prompt-shift",
    TrainerSubject,
    standard="a constant added to both answers' rewards changes nothing (DP-2)",
    cure="the loss looks at one answer's log-ratio beside the margin: a penalty or a clamp is on",
    tolerance=1e-4,
    unit="relative",
    needs=("precomputed-reference", "declared-loss"),
)
def prompt_shift(subject: TrainerSubject) -> Measured:
    """Both reference log-probs of every row moved by 10 nats."""
    if type(subject.family) is not Pairs:
        raise DoesNotApply("the loss is not one of pairs with a reference")
    if not _shift_leaves(subject):
        raise DoesNotApply(f"{subject.args.loss_type} is no function of the margin")
    trainer = subject.trainer
    if not trainer.args.precompute_ref_log_probs:
        trainer = subject.variant(precompute_ref_log_probs=True)

    def change(batch: dict[str, Any]) -> dict[str, Any]:
        return {k: v - 10 if k.startswith("ref_") else v for k, v in batch.items()}

    plain, shifted = loss_away(subject, trainer), loss_away(subject, trainer, change)
    return compared(plain, shifted, "loss {}, rewards of both answers shifted {}")


def _shift_leaves(subject: TrainerSubject) -> bool:
    """Whether the declared loss is a function of the margins alone."""
    family, policy = subject.family, subject.known_scores("moved", subject.all_rows)
    start = subject.known_scores("start", subject.all_rows)
    plain = family.loss(policy, start, subject.args, subject.rows)
    shifted = replace(start, values=start.values - 10)
    other = family.loss(policy, shifted, subject.args, subject.rows)
    return relative(other.item(), plain.item()) < ANTISYMMETRIC


@check(
    "swap",
    TrainerSubject,
    standard="at policy = reference, swapping chosen and rejected turns the gradient round",
    cure="something of the pair is remembered or decided by its text: a cache keyed by the "
    "prompt, a rule about which answer is better",
    tolerance=1e-3,
    unit="relative",
    needs=("initial-gradient", "batch-composition"),
)
def swap(subject: TrainerSubject) -> Measured:
    """The gradient at the start, and with the answers of every row changing places."""
    if not isinstance(subject.family, Pairs) or not subject.family.has_reference:
        raise DoesNotApply("the loss is not one of pairs with a reference")
    if not _is_antisymmetric(subject):
        raise DoesNotApply(f"{subject.args.loss_type} does not treat the two answers alike")
    plain = gradient_at_start(subject)
    swapped = [_swapped(row) for row in subject.rows]
    loss, _ = subject.compute(subject.trainer, swapped)
    found = gradient(loss, subject.trainer.model)
    cosine = torch.cosine_similarity(found, plain, dim=0).item()
    return Measured(distance(found, -plain), f"cosine of the two gradients {cosine:.5f}")


def _swapped(row: dict[str, Any]) -> dict[str, Any]:
    """A row with everything named chosen named rejected, and the other way round."""
    turned = {"chosen": "rejected", "rejected": "chosen"}

    def name(key: str) -> str:
        return next((key.replace(a, b) for a, b in turned.items() if a in key), key)

    return {name(key): value for key, value in row.items()}


def _is_antisymmetric(subject: TrainerSubject) -> bool:
    """Whether the declared residuals of the two answers are opposite at the start."""
    start = subject.known_scores("start", subject.all_rows)
    values = start.values.clone().requires_grad_()
    policy = replace(start, values=values)
    loss = subject.family.loss(policy, start, subject.args, subject.rows)
    (residual,) = torch.autograd.grad(loss, values)
    chosen, rejected = residual.chunk(2)
    lengths = start.lengths.chunk(2)
    swapped = replace(policy, lengths=torch.cat(lengths[::-1]))
    (other,) = torch.autograd.grad(
        subject.family.loss(swapped, start, subject.args, subject.rows), values
    )
    back = torch.cat([rejected, chosen])
    return bool((back + other).norm() < ANTISYMMETRIC * residual.norm())


@check(
    "doubled-beta",
    TrainerSubject,
    standard="β scales the step at the start as the loss says: twice β is twice DPO's gradient",
    cure="β is fixed somewhere: a default of a fused loss, or a value that another argument hides",
    tolerance=1e-3,
    unit="relative",
    needs=("initial-gradient",),
)
def doubled_beta(subject: TrainerSubject) -> Measured:
    """The gradient at the start with twice the β, against the closed form."""
    beta = getattr(subject.args, "beta", None)
    if not beta:
        raise DoesNotApply("the trainer has no beta")
    other = subject.build(beta=2 * beta)
    found = gradient(subject.compute(other, subject.rows_of(other)[:1])[0], other.model)
    should = subject.expected_gradient([0], other.args)
    plain = subject.expected_gradient([0], subject.args)

    def size(vector: Tensor) -> float:
        return float(vector.norm() / plain.norm())

    what = f"with twice the β {size(found):.4f} times the gradient, by formula {size(should):.4f}"
    return Measured(distance(found, should), what)
