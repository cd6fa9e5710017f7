"""Losses and log-prob functions as subjects: sound ones pass, each fault has its check."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid

from squeeze.errors import InputError
from squeeze.losses import LOSSES, PairLogps, get_loss, sequence_logps
from squeeze.verify.functions import LogpsSubject, LossSubject
from squeeze.verify.runner import failures, verify

pytestmark = pytest.mark.cpu


def dpo(chosen, rejected, ref_chosen, ref_rejected, *, beta=0.1):
    return -logsigmoid(beta * (chosen - rejected - ref_chosen + ref_rejected))


def without_reference(chosen, rejected, ref_chosen, ref_rejected, *, beta):
    return -logsigmoid(beta * (chosen - rejected))


def with_detached_rejected(chosen, rejected, ref_chosen, ref_rejected, *, beta):
    return dpo(chosen, rejected.detach(), ref_chosen, ref_rejected, beta=beta)


def with_penalty(chosen, rejected, ref_chosen, ref_rejected, *, beta):
    return dpo(chosen, rejected, ref_chosen, ref_rejected, beta=beta) + torch.relu(
        chosen - ref_chosen - 100
    )


def with_beta_fixed(chosen, rejected, ref_chosen, ref_rejected, *, beta):
    return dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1)


@pytest.mark.parametrize(
    ("function", "check"),
    [
        (dpo, None),
        (without_reference, "loss-at-start"),
        (with_detached_rejected, "loss-residual"),
        (with_penalty, "loss-prompt-shift"),
        (with_beta_fixed, "loss-doubled-beta"),
    ],
)
def test_fault_of_a_loss_is_caught_by_its_check_alone(function, check):
    found = [r.check.id for r in failures(verify(LossSubject(function)))]
    assert found == ([] if check is None else [check])


def needs_no_lengths(loss):
    try:
        LossSubject(loss.function, loss.name).closed_form(LossSubject(dpo).pairs(at_start=True))
    except InputError:  # a bare function has none to give
        return False
    return True


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, loss in LOSSES.items()
        if loss.needs_reference and "beta" in loss.hyperparameters and needs_no_lengths(loss)
    ],
)
def test_every_registered_loss_passes(name):
    loss = get_loss(name)

    def function(*logps, **hyper):
        return loss(PairLogps(*logps), **hyper), "rewards as trainers return them"

    assert not failures(verify(LossSubject(function, name)))


def test_unknown_loss_and_hyperparameter_are_input_errors():
    with pytest.raises(InputError, match="unknown loss"):
        LossSubject(dpo, "no such loss")
    with pytest.raises(InputError, match="no hyper-parameter"):
        LossSubject(dpo, hyper={"gamma": 1.0})


def sound(model, ids, attention_mask, answer_mask):
    logits = model(input_ids=ids, attention_mask=attention_mask).logits
    return sequence_logps(logits, ids.masked_fill(answer_mask == 0, -100))[0]


def unshifted(model, ids, attention_mask, answer_mask):
    logps = model(input_ids=ids, attention_mask=attention_mask).logits.log_softmax(-1)
    return (logps.gather(-1, ids[..., None])[..., 0] * answer_mask).sum(-1)


def without_mask(model, ids, attention_mask, answer_mask):
    return sound(model, ids, torch.ones_like(ids), answer_mask)


def divided_by_width(model, ids, attention_mask, answer_mask):
    width = attention_mask.sum(-1)
    return sound(model, ids, attention_mask, answer_mask) * width / width.max()


@pytest.mark.parametrize(
    ("function", "check"),
    [
        (sound, None),
        (unshifted, "function-logps"),
        (without_mask, "function-padding"),
        (divided_by_width, "function-batch"),
    ],
)
def test_fault_of_a_logp_function_is_caught_by_its_check_alone(function, check):
    found = [r.check.id for r in failures(verify(LogpsSubject(function)))]
    assert found == ([] if check is None else [check])
