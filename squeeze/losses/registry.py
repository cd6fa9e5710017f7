"""The list of losses, and the decorator by which a user's loss joins it.

    @register_loss("mine", paper="...", formula="...", init=lambda beta: math.log(2))
    def mine(logps: PairLogps, *, beta: float = 0.1) -> Tensor: ...

is all that is needed: the loss is then trainable by name, its residual is checked (against
`residual`, a function of the same arguments, or against finite differences without one), its value
at policy = reference is checked against `init`, and it has its row in reports.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from squeeze.errors import InputError, did_you_mean
from squeeze.losses.ftx import with_sft
from squeeze.losses.gate import gated
from squeeze.losses.types import FTX, GATE, WEIGHTED, Loss, LossFunction, ResidualFunction
from squeeze.losses.weighted import weighted

LOSSES: dict[str, Loss] = {}


def register_loss(
    name: str,
    *,
    paper: str,
    formula: str = "",
    needs_reference: bool = True,
    init: Callable[..., float] | None = None,
    residual: ResidualFunction | None = None,
) -> Callable[[LossFunction], LossFunction]:
    """Register the decorated function as a loss and return it unchanged.

    Its keyword arguments with their defaults become the hyper-parameters; `init` is called with
    all of them. Raises `InputError` for a name in use, or a keyword argument without a default.

    >>> import math
    >>> from squeeze import register_loss
    >>> @register_loss("steep", paper="none: an example", init=lambda beta: math.log(2))
    ... def steep(logps, *, beta=1.0):
    ...     chosen = logps.chosen - logps.ref_chosen
    ...     rejected = logps.rejected - logps.ref_rejected
    ...     return -(beta * (chosen - rejected)).sigmoid().log()
    """

    def decorate(function: LossFunction) -> LossFunction:
        if name in LOSSES or name.startswith((FTX, GATE, WEIGHTED)):
            raise InputError(f"loss name {name!r} is in use or reserved; choose another")
        hyper = _keywords(name, function)
        LOSSES[name] = Loss(name, function, paper, formula, needs_reference, hyper, init, residual)
        return function

    return decorate


def _keywords(name: str, function: LossFunction) -> dict[str, Any]:
    keywords = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for parameter in keywords:
        if parameter.default is inspect.Parameter.empty:
            raise InputError(
                f"hyper-parameter {parameter.name!r} of loss {name!r} has no default; give it one"
            )
    return {parameter.name: parameter.default for parameter in keywords}


def get_loss(name: str) -> Loss:
    """Return a loss by name: a registered one, or a form of one.

    "gated_NAME" has Gate-DPO's gate, "weighted_NAME" a weight on the rejected term, "ftx_NAME" an
    SFT term. Raises `InputError` naming the nearest known loss.

    >>> import torch
    >>> from squeeze import get_loss
    >>> from squeeze.losses import PairLogps
    >>> logps = PairLogps(*torch.tensor([[-9.0], [-12.0], [-10.0], [-11.0]]))  # nats, one pair
    >>> get_loss("sigmoid").function(logps, beta=0.1)  # a loss a pair
    tensor([...])
    """
    if name in LOSSES:
        return LOSSES[name]
    if name.startswith(GATE):
        return gated(get_loss(name.removeprefix(GATE)))
    if name.startswith(WEIGHTED):
        return weighted(get_loss(name.removeprefix(WEIGHTED)))
    if name.startswith(FTX):
        return with_sft(get_loss(name.removeprefix(FTX)))
    hint = did_you_mean(name, LOSSES, cutoff=0.6) or ";"
    raise InputError(f"unknown loss {name!r}{hint} the losses are {', '.join(LOSSES)}")
