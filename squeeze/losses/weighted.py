"""Any loss with the rejected response's gradient scaled: the dose of claim DO-3; 0 removes it.

The value stays the loss's own, so finite differences do not see the weight.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from squeeze.losses.types import WEIGHTED, Loss
from squeeze.theory.logps import PairLogps

WEIGHT = "rejected_weight"


def weighted(loss: Loss) -> Loss:
    """Return the same loss with ∂L/∂s− times λ = `rejected_weight` (1), named "weighted_NAME"."""

    def function(logps: PairLogps, *, rejected_weight: float = 1.0, **own: Any) -> Tensor:
        fixed = logps.rejected.detach()
        rejected = fixed + rejected_weight * (logps.rejected - fixed)
        return loss(replace(logps, rejected=rejected), **own)

    def residual(
        logps: PairLogps, *, rejected_weight: float = 1.0, **own: Any
    ) -> tuple[Tensor, Tensor]:
        chosen, rejected = loss.residuals(logps, **own)
        return chosen, rejected_weight * rejected

    def init(*, rejected_weight: float = 1.0, **own: Any) -> float:
        assert loss.init is not None  # given only then
        return loss.init(**own)

    return Loss(
        name=WEIGHTED + loss.name,
        function=function,
        paper=f"the dose of squeeze's claim DO-3, on {loss.paper}",
        formula=f"{loss.formula}, the gradient through s− times λ",
        needs_reference=loss.needs_reference,
        hyperparameters={**loss.hyperparameters, WEIGHT: 1.0},
        init=None if loss.init is None else init,
        residual=None if loss.residual is None else residual,
    )
