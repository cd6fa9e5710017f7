"""Checks of invariance: what a pair's loss must not depend on."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from squeeze.training.trl_compat import attention_of
from squeeze.verify.checks_loss import (
    LOSS_TOLERANCE,
    TOKENS,
    compared,
    distance,
    loss_away,
    relative,
)
from squeeze.verify.scorer import gradient, moved
from squeeze.verify.subject import MOVED, TrainerSubject
from squeeze.verify.types import DoesNotApply, Measured, check

COLUMNS = 3  # of padding that are added


def _padded(batch: dict[str, Any], left: int, right: int, pad_id: int) -> dict[str, Any]:
    """A collated batch with more columns of padding, by the names that TRL gives its tensors."""

    def fill(name: str) -> int | None:
        if "labels" in name:
            return -100
        if "mask" in name:
            return 0
        return pad_id if "input_ids" in name else None

    return {
        k: pad(v, (left, right), value=fill(k))
        if isinstance(v, Tensor) and v.dim() == 2 and fill(k) is not None
        else v
        for k, v in batch.items()
    }


@check(
    "padding",
    TrainerSubject,
    standard="a loss does not depend on how much padding there is, or on which side",
    cure="the attention mask does not reach the model, padding is scored, or a sum is divided by "
    "the padded width",
    tolerance=LOSS_TOLERANCE,
    unit="relative",
    needs=TOKENS,
)
def padding(subject: TrainerSubject) -> Measured:
    """The loss of the full batch with more padding on either side."""
    pad_id = subject.tokenizer.pad_token_id
    plain = loss_away(subject, subject.trainer)
    off = {}
    sides = {"left": (COLUMNS, 0), "right": (0, COLUMNS)}
    if subject.family.trains_prompts(subject.args):
        del sides["left"]  # from there a sequence's first token would be predicted
    for side, columns in sides.items():

        def change(batch: dict[str, Any], columns: tuple[int, int] = columns) -> dict[str, Any]:
            return _padded(batch, *columns, pad_id)

        off[side] = relative(loss_away(subject, subject.trainer, change), plain)
    worst = max(off, key=lambda side: off[side])
    return Measured(
        off[worst], f"loss {plain:.6g}; {COLUMNS} columns on the {worst}: off {off[worst]:.2g}"
    )


@check(
    "batch-composition",
    TrainerSubject,
    standard="the loss of a batch is that of its rows, whatever their lengths and neighbours",
    cure="a sum stands where a mean is meant, rows are misaligned, or sequences see each other",
    tolerance=LOSS_TOLERANCE,
    unit="relative",
    needs=("declared-loss", "padding"),
)
def batch_composition(subject: TrainerSubject) -> Measured:
    """The full batch's loss, and half a batch's, against the formula on the scorer's log-probs."""
    halves = [subject.all_rows, subject.all_rows[::2], subject.all_rows[::-1]]
    seen = [subject.observe(rows) for rows in halves]
    worst = max(seen, key=lambda one: relative(one.loss, one.expected_loss))
    off = relative(worst.loss, worst.expected_loss)
    return Measured(off, f"batch loss {worst.loss:.6g}, of its rows {worst.expected_loss:.6g}")


@check(
    "duplicated-batch",
    TrainerSubject,
    standard="a batch with every row twice gives the update of the batch",
    cure="the loss is a sum over rows, or divides by the number of different ones",
    tolerance=1e-3,
    unit="relative",
    needs=("batch-composition",),
)
def duplicated_batch(subject: TrainerSubject) -> Measured:
    """The gradient of the rows twice against that of the rows."""
    trainer = subject.trainer
    with moved(trainer.model, MOVED):
        once = gradient(subject.compute(trainer, subject.rows)[0], trainer.model)
        twice = gradient(subject.compute(trainer, subject.rows * 2)[0], trainer.model)
    off = distance(twice, once)
    return Measured(off, f"gradient of the batch twice: length {(twice.norm() / once.norm()):.4f}")


@check(
    "evaluation-mode",
    TrainerSubject,
    standard="training and evaluation compute the same loss, once dropout is off",
    cure="the trainer says that it disables dropout and one is left (attention_dropout of the "
    "model's configuration is no nn.Dropout), or the two modes take different paths",
    tolerance=LOSS_TOLERANCE,
    unit="relative",
    needs=TOKENS,
)
def evaluation_mode(subject: TrainerSubject) -> Measured:
    """The same batch in both modes."""
    train = loss_away(subject, subject.trainer)
    evaluation = loss_away(subject, subject.trainer, training=False)
    return compared(train, evaluation, "loss in training {}, in evaluation {}")


@check(
    "dropout-disabled",
    TrainerSubject,
    standard="disable_dropout leaves no dropout: two passes of the policy are equal",
    cure="dropout that is no nn.Dropout module (attention_dropout in the model's configuration) "
    "stays on: set it to 0 in the configuration before loading",
    tolerance=LOSS_TOLERANCE,
    unit="relative",
    needs=("evaluation-mode",),
)
def dropout_disabled(subject: TrainerSubject) -> Measured:
    """A model with attention dropout, in training and in evaluation mode."""
    if not getattr(subject.args, "disable_dropout", False):
        raise DoesNotApply("the trainer does not say that it disables dropout")
    trainer = subject.build(subject.fresh_model(attention_dropout=0.2))
    train = loss_away(subject, trainer)
    what = "attention_dropout 0.2: loss in training {}, in evaluation {}"
    return compared(train, loss_away(subject, trainer, training=False), what)


@check(
    "attention-implementation",
    TrainerSubject,
    standard="the loss does not depend on how attention is computed",
    cure="an implementation of attention ignores the mask that this trainer gives it",
    tolerance=LOSS_TOLERANCE,
    unit="relative",
    needs=TOKENS,
)
def attention_implementation(subject: TrainerSubject) -> Measured:
    """The model's own attention, and the plainest one."""
    model = subject.trainer.model
    name = attention_of(model)
    own = loss_away(subject, subject.trainer)
    model.set_attn_implementation("eager")
    try:
        eager = loss_away(subject, subject.trainer)
    finally:
        model.set_attn_implementation(name)
    return compared(own, eager, f"loss with {name} {{}}, with eager {{}}")


@check(
    "packing",
    TrainerSubject,
    standard="the loss of rows packed into one sequence, or laid end to end, is that of the rows",
    cure="packed rows see each other: attention knows no boundaries (packing_strategy='wrapped', "
    "or an attention implementation without them), or positions do not start anew",
    tolerance=LOSS_TOLERANCE,
    unit="relative",
    needs=TOKENS,
)
def packing(subject: TrainerSubject) -> Measured:
    """The rows apart with padding, and packed, or without padding."""
    name = next((n for n in ("packing", "padding_free") if hasattr(subject.args, n)), None)
    if name is None:
        raise DoesNotApply("the trainer neither packs nor leaves padding out")
    other = subject.variant(**{name: True})
    if name == "padding_free" and not getattr(other, name, True):
        raise DoesNotApply("the trainer takes padding_free and pads all the same")
    own = loss_away(subject, subject.trainer)
    return compared(own, loss_away(subject, other), f"loss {{}}; with {name}=True {{}}")


@check(
    "precomputed-reference",
    TrainerSubject,
    standard="reference log-probs computed beforehand give the loss of a reference in the loop",
    cure="the cache is of another model or other rows, or its columns are in another order: "
    "delete it",
    tolerance=LOSS_TOLERANCE,
    unit="relative",
    needs=("reference-logps", "batch-composition"),
)
def precomputed_reference(subject: TrainerSubject) -> Measured:
    """The same batch, its reference in the data or in the loop."""
    if not subject.family.has_reference:
        raise DoesNotApply("there is no reference")
    if not hasattr(subject.args, "precompute_ref_log_probs"):
        raise DoesNotApply("the trainer has no precompute_ref_log_probs")
    other = subject.variant(precompute_ref_log_probs=not subject.args.precompute_ref_log_probs)
    now = "beforehand" if other.args.precompute_ref_log_probs else "in the loop"
    own = loss_away(subject, subject.trainer)
    return compared(own, loss_away(subject, other), f"loss {{}}; with the reference {now} {{}}")
