"""Checks of bare functions: theorems of losses, invariance of log-probs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from squeeze.losses import PairLogps
from squeeze.verify.checks_loss import LOGPS_TOLERANCE, LOSS_TOLERANCE, distance, relative
from squeeze.verify.functions import LogpsSubject, LossSubject
from squeeze.verify.types import DoesNotApply, Measured, check

EXACT = 1e-4  # relative, where a theorem is asked whether it holds for a loss


def _residuals(value: Tensor, logps: PairLogps) -> Tensor:
    if not value.requires_grad:
        return torch.zeros(2 * len(logps.chosen), dtype=torch.float64)
    found = torch.autograd.grad(value, (logps.chosen, logps.rejected), materialize_grads=True)
    return torch.cat(found)


@check(
    "loss-at-start",
    LossSubject,
    standard="at policy = reference the loss is its closed form, ln 2 for DPO (DP-1)",
    cure="another loss, or the reference, label smoothing or β is dropped",
    tolerance=LOSS_TOLERANCE,
    unit="relative",
)
def loss_at_start(subject: LossSubject) -> Measured:
    """The value at equal log-probs."""
    logps = subject.pairs(at_start=True)
    found, should = subject.value(logps).item(), subject.closed_form(logps).item()
    return Measured(relative(found, should), f"value {found:.6g}, closed form {should:.6g}")


@check(
    "loss-residual",
    LossSubject,
    standard="the derivatives by the answers' log-probs are the declared loss's (LD-4)",
    cure="a detached term, a weight, a constant: the value at the start hides it",
    tolerance=1e-3,
    unit="relative",
    needs=("loss-at-start",),
)
def loss_residual(subject: LossSubject) -> Measured:
    """Derivatives at the start, and away from it."""
    off = []
    for at_start in (True, False):
        logps = subject.pairs(at_start=at_start)
        found = _residuals(subject.value(logps), logps)
        off.append(distance(found, _residuals(subject.closed_form(logps), logps)))
    return Measured(
        max(off), f"residuals off by {off[0]:.2g} at the start, {off[1]:.2g} away from it"
    )


@check(
    "loss-prompt-shift",
    LossSubject,
    standard="a constant added to both rewards of a pair changes nothing (DP-2)",
    cure="one answer's log-ratio is looked at beside the margin: a clamp or a penalty",
    tolerance=EXACT,
    unit="relative",
    needs=("loss-residual",),
)
def loss_prompt_shift(subject: LossSubject) -> Measured:
    """Both references moved by 200 nats."""
    logps = subject.pairs(at_start=False)
    assert logps.ref_chosen is not None
    assert logps.ref_rejected is not None
    shifted = replace(
        logps, ref_chosen=logps.ref_chosen - 200, ref_rejected=logps.ref_rejected - 200
    )
    plain = subject.closed_form(logps).item()
    if relative(subject.closed_form(shifted).item(), plain) > EXACT:
        raise DoesNotApply(f"{subject.declared.name} is no function of the margin")
    found, moved = subject.value(logps).item(), subject.value(shifted).item()
    return Measured(relative(moved, found), f"loss {found:.6g}, shifted {moved:.6g}")


@check(
    "loss-doubled-beta",
    LossSubject,
    standard="β scales the residuals at the start as the loss says: twice β is twice DPO's",
    cure="β is fixed somewhere, or a default hides the value that is passed",
    tolerance=1e-3,
    unit="relative",
    needs=("loss-residual",),
)
def loss_doubled_beta(subject: LossSubject) -> Measured:
    """Residuals at the start with twice the β."""
    if "beta" not in subject.hyper:
        raise DoesNotApply("the loss has no beta")
    logps = subject.pairs(at_start=True)
    doubled: dict[str, Any] = {"beta": 2 * subject.hyper["beta"]}
    found = _residuals(subject.value(logps, **doubled), logps)
    should = _residuals(subject.closed_form(logps, **doubled), logps)
    return Measured(distance(found, should), f"residuals off by {distance(found, should):.2g}")


def _largest(found: Tensor, should: Tensor) -> float:
    if found.shape != should.shape:
        raise DoesNotApply(f"it returns {list(found.shape)}, not one value a row")
    return float((found.double() - should.double()).abs().max())


@check(
    "function-logps",
    LogpsSubject,
    standard="an answer's log-prob is the sum of its tokens' log-softmax, to 1e-3 nats",
    cure="labels are not shifted by one, the prompt is summed as well, or a mean is taken",
    tolerance=LOGPS_TOLERANCE,
)
def function_logps(subject: LogpsSubject) -> Measured:
    """Every answer as a batch of its own."""
    found = torch.cat([subject.values([a]).reshape(-1) for a in subject.answers])
    off = _largest(found, subject.scores.values)
    return Measured(off, f"log-prob of an answer off by {off:.2g} nats")


@check(
    "function-padding",
    LogpsSubject,
    standard="log-probs do not depend on padding, its side and amount",
    cure="the attention mask does not reach the model, or padding is scored",
    tolerance=LOGPS_TOLERANCE,
    needs=("function-logps",),
)
def function_padding(subject: LogpsSubject) -> Measured:
    """Single answers with padding on either side."""
    sides = ({"left": 5}, {"right": 5})
    found = [
        torch.cat([subject.values([a], **s).reshape(-1) for a in subject.answers]) for s in sides
    ]
    off = max(_largest(values, subject.scores.values) for values in found)
    return Measured(off, f"5 columns of padding: off by {off:.2g} nats")


@check(
    "function-batch",
    LogpsSubject,
    standard="log-probs do not depend on the other rows of the batch",
    cure="rows see each other, or are divided by a length of the batch's",
    tolerance=LOGPS_TOLERANCE,
    needs=("function-padding",),
)
def function_batch(subject: LogpsSubject) -> Measured:
    """All answers at once, in both orders."""
    values = subject.values(subject.answers), subject.values(subject.answers[::-1]).flip(0)
    off = max(_largest(one, subject.scores.values) for one in values)
    return Measured(off, f"log-prob of an answer in a batch off by {off:.2g} nats")
