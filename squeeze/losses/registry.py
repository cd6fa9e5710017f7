"""The list of losses, and the decorator by which a user's loss joins it.

    @register_loss("mine", paper="...", formula="...", init=lambda beta: math.log(2))
    def mine(logps: PairLogps, *, beta: float = 0.1) -> Tensor: ...

is all that is needed: the loss is then trainable by name, its residual is checked (against
`residual`, a function of the same arguments, or against finite differences without one), its value
at policy = reference is checked against `init`, and it has its row in reports.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from squeeze.errors import InputError
from squeeze.theory.logps import PairLogps

LossFunction = Callable[..., Tensor]
ResidualFunction = Callable[..., tuple[Tensor, Tensor]]
GATE = "gated_"
WEIGHTED = "weighted_"
FTX = "ftx_"


@dataclass(frozen=True)
class Loss:
    """One preference loss and what is known about it; call it like its function.

    `function(logps, **hyper)` returns one loss a pair, [batch]. `hyperparameters` holds the default
    values. `init(**hyper)` is the value at policy = reference, in closed form, None where it
    depends on the data. `residual(logps, **hyper)` returns (∂L/∂s+, ∂L/∂s−), each [batch], None if
    no formula is known. `formula` is plain text for reports.
    """

    name: str
    function: LossFunction
    paper: str
    formula: str = ""
    needs_reference: bool = True
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    init: Callable[..., float] | None = None
    residual: ResidualFunction | None = None

    def __call__(self, logps: PairLogps, **hyper: Any) -> Tensor:
        """Return the loss of every pair, [batch]; `InputError` names an unknown hyper-parameter."""
        self.check_names(hyper)
        values: Tensor = self.function(logps, **hyper)
        return values

    def at_init(self, **hyper: Any) -> float | None:
        """Return the closed-form value at policy = reference, or None where there is none."""
        self.check_names(hyper)
        return None if self.init is None else self.init(**{**self.hyperparameters, **hyper})

    def residuals(self, logps: PairLogps, **hyper: Any) -> tuple[Tensor, Tensor]:
        """Return (∂L/∂s+, ∂L/∂s−) by formula; raise `InputError` if none is registered."""
        self.check_names(hyper)
        if self.residual is None:
            raise InputError(
                f"loss {self.name!r} is registered without a residual formula; give it one"
            )
        return self.residual(logps, **hyper)

    def check_names(self, hyper: Mapping[str, Any]) -> None:
        """Raise `InputError` for a hyper-parameter that the loss does not have."""
        for name in hyper:
            if name not in self.hyperparameters:
                known = ", ".join(self.hyperparameters) or "none"
                raise InputError(
                    f"loss {self.name!r} has no hyper-parameter {name!r}; it has: {known}"
                )


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
    """
    if name in LOSSES:
        return LOSSES[name]
    if name.startswith(GATE):
        from squeeze.losses.gate import gated  # gate builds on this module

        return gated(get_loss(name.removeprefix(GATE)))
    if name.startswith(WEIGHTED):
        from squeeze.losses.weighted import weighted

        return weighted(get_loss(name.removeprefix(WEIGHTED)))
    if name.startswith(FTX):
        from squeeze.losses.ftx import with_sft

        return with_sft(get_loss(name.removeprefix(FTX)))
    near = difflib.get_close_matches(name, LOSSES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"unknown loss {name!r}; {hint}the losses are {', '.join(LOSSES)}")


def positive(name: str, value: float) -> float:
    """Return a hyper-parameter, or raise `InputError` if it is not a positive number."""
    if not value > 0:
        raise InputError(f"{name} must be positive, not {value}")
    return value
