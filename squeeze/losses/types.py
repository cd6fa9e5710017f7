"""The type of a preference loss, and the prefixes of the forms made from one."""

from __future__ import annotations

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


def positive(name: str, value: float) -> float:
    """Return a hyper-parameter, or raise `InputError` if it is not a positive number."""
    if not value > 0:
        raise InputError(f"{name} must be positive, not {value}")
    return value


def share(name: str, value: float) -> float:
    """Return a hyper-parameter, or raise `InputError` if it does not lie in [0, 1]."""
    if not 0 <= value <= 1:
        raise InputError(f"{name} must lie in [0, 1], not {value}")
    return value
