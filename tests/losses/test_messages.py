"""What a refusal says, word for word: the thing that is wrong, and the way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from squeeze.errors import InputError
from squeeze.losses import (
    LOSSES,
    PairLogps,
    gate,
    get_loss,
    kto_unpaired,
    ranked_pairs,
    register_loss,
)
from squeeze.losses.packed import sequence_logps
from squeeze.theory import entk
from tests.losses.strategies import fixed_pairs

pytestmark = pytest.mark.cpu

Refused = Callable[[], object]


def without(field: str) -> PairLogps:
    return replace(fixed_pairs(), **{field: None})


def keyword_without_default() -> object:
    def mine(logps: PairLogps, *, beta: float) -> torch.Tensor:
        return beta * logps.chosen

    return register_loss("mine", paper="")(mine)


REFUSALS: dict[str, tuple[Refused, str]] = {
    **{
        f"no {field}": (
            lambda name=name, field=field: get_loss(name)(without(field)),
            f"this loss needs PairLogps.{field}, which was not given; pass it",
        )
        for name, field in (
            ("sigmoid", "ref_chosen"),
            ("sigmoid", "ref_rejected"),
            ("simpo", "chosen_length"),
            ("simpo", "rejected_length"),
        )
    },
    "normalization": (
        lambda: get_loss("sft")(fixed_pairs(), normalization="words"),
        "unknown normalization 'words'; use 'sequence', 'token' or 'batch'",
    ),
    "not positive": (
        lambda: get_loss("sigmoid")(fixed_pairs(), beta=-0.5),
        "beta must be positive, not -0.5",
    ),
    **{
        f"{constant} of {name}": (
            lambda name=name, constant=constant: get_loss(name)(fixed_pairs(), **{constant: 0.0}),
            f"{constant} must be positive, not 0.0",
        )
        for name in LOSSES
        for constant in ("beta", "tau")
        if constant in get_loss(name).hyperparameters
    },
    "beta of unpaired KTO": (
        lambda: kto_unpaired(torch.zeros(1), torch.ones(1, dtype=torch.bool), kl=0.0, beta=0.0),
        "beta must be positive, not 0.0",
    ),
    "robust's noise": (
        lambda: get_loss("robust")(fixed_pairs(), label_smoothing=0.5),
        "label_smoothing of 'robust' must lie in [0, 0.5), not 0.5",
    ),
    "gate without tokens": (
        lambda: gate(without("rejected_token_logps"), gate_statistic="quantile"),
        "gate_statistic 'quantile' needs PairLogps.rejected_token_logps and rejected_mask; "
        "pass them or use 'geometric_mean'",
    ),
    "gate without mask": (
        lambda: gate(without("rejected_mask"), gate_statistic="quantile"),
        "gate_statistic 'quantile' needs PairLogps.rejected_token_logps and rejected_mask; "
        "pass them or use 'geometric_mean'",
    ),
    "gate's statistic": (
        lambda: gate(fixed_pairs(), gate_statistic="median"),
        "unknown gate_statistic 'median'; use 'geometric_mean' or 'quantile'",
    ),
    "name in use": (
        lambda: register_loss("sigmoid", paper="")(lambda logps: logps.chosen),
        "loss name 'sigmoid' is in use or reserved; choose another",
    ),
    "no default": (
        keyword_without_default,
        "hyper-parameter 'beta' of loss 'mine' has no default; give it one",
    ),
    "unknown loss": (
        lambda: get_loss("sigmod"),
        f"unknown loss 'sigmod'; did you mean 'sigmoid'? the losses are {', '.join(LOSSES)}",
    ),
    "loss like none": (
        lambda: get_loss("qqqq"),
        f"unknown loss 'qqqq'; the losses are {', '.join(LOSSES)}",
    ),
    "unknown constant": (
        lambda: get_loss("cdpo")(fixed_pairs(), gama=1.0),
        "loss 'cdpo' has no hyper-parameter 'gama'; it has: beta, label_smoothing",
    ),
    "unknown constant where there is none": (
        lambda: replace(get_loss("spin"), hyperparameters={})(fixed_pairs(), gama=1.0),
        "loss 'spin' has no hyper-parameter 'gama'; it has: none",
    ),
    "no formula": (
        lambda: replace(get_loss("sigmoid"), residual=None).residuals(fixed_pairs()),
        "loss 'sigmoid' is registered without a residual formula; give it one",
    ),
    "no response": (
        lambda: sequence_logps(torch.zeros(2, 3, 4), torch.tensor([[0, 1, 2], [0, -100, -100]])),
        "sequence 1 has no response token; its labels are all -100",
    ),
    "offsets": (
        lambda: ranked_pairs(torch.tensor([0, 3]), 5),
        "cu_lengths must run from 0 to the number of responses, 5; it is [0, 3]",
    ),
    "group of one": (
        lambda: ranked_pairs(torch.tensor([0, 2, 3]), 3),
        "group 1 of cu_lengths has 1 responses; a pair needs two, drop it",
    ),
    "nothing to train": (
        lambda: entk.trainable_parameters(torch.nn.Linear(1, 1).requires_grad_(False)),
        "the model has no trainable parameters, so its eNTK is empty; "
        "set requires_grad on some or attach an adapter",
    ),
    "training mode": (
        lambda: entk.module_logits(torch.nn.Linear(1, 1), torch.zeros(1, 1)),
        "the model is in training mode, where dropout is random; call .eval()",
    ),
    "training mode, sequences": (
        lambda: entk.sequence_logits(torch.nn.Linear(1, 1), torch.arange(2), torch.tensor([0])),
        "the model is in training mode, where dropout is random; call .eval()",
    ),
    "positions": (
        lambda: entk.sequence_logits(
            torch.nn.Linear(1, 1).eval(), torch.arange(5), torch.tensor([1, 5])
        ),
        "positions must be within 0 … 4, the length of the sequence, and at least one; got [1, 5]",
    ),
    "no response after the prompt": (
        lambda: entk.response_positions(6, 6),
        "a prompt of 6 tokens leaves no response in 6 tokens",
    ),
}


@pytest.mark.parametrize(("refused", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_says_what_is_wrong_and_the_way_out(refused: Refused, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        refused()
    assert str(caught.value) == sentence
