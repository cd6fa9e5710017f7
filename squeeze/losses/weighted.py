"""Weights on one response's gradient in any loss: the dose of claim DO-3, and its control.

The dose weighs rejected, the counterfactual chosen; 0 removes the gradient. The value stays the
loss's own, so finite differences do not see the weight.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from squeeze.losses.types import WEIGHTED, Loss
from squeeze.theory.logps import PairLogps

WEIGHTS = {"rejected_weight": 1.0, "chosen_weight": 1.0}


def weighted(loss: Loss) -> Loss:
    """Return the same loss with ∂L/∂s− times λ = `rejected_weight` (1), named "weighted_NAME".

    `chosen_weight` (1) multiplies ∂L/∂s+ alike.
    """

    def function(
        logps: PairLogps, *, rejected_weight: float = 1.0, chosen_weight: float = 1.0, **own: Any
    ) -> Tensor:
        chosen, rejected = (
            _scaled(given, weight)
            for given, weight in ((logps.chosen, chosen_weight), (logps.rejected, rejected_weight))
        )
        return loss(replace(logps, chosen=chosen, rejected=rejected), **own)

    def residual(
        logps: PairLogps, *, rejected_weight: float = 1.0, chosen_weight: float = 1.0, **own: Any
    ) -> tuple[Tensor, Tensor]:
        chosen, rejected = loss.residuals(logps, **own)
        return chosen_weight * chosen, rejected_weight * rejected

    def init(**own: Any) -> float:
        assert loss.init is not None  # given only then
        return loss.init(**{name: value for name, value in own.items() if name not in WEIGHTS})

    return Loss(
        name=WEIGHTED + loss.name,
        function=function,
        paper=f"the dose of squeeze's claim DO-3, on {loss.paper}",
        formula=f"{loss.formula}, the gradient through s− times λ (through s+ times chosen_weight)",
        needs_reference=loss.needs_reference,
        hyperparameters={**loss.hyperparameters, **WEIGHTS},
        init=None if loss.init is None else init,
        residual=None if loss.residual is None else residual,
    )


def _scaled(logps: Tensor, weight: float) -> Tensor:
    """The same values, their gradient times `weight`; untouched at 1, to the bit."""
    if weight == 1.0:
        return logps
    fixed = logps.detach()
    return fixed + weight * (logps - fixed)
