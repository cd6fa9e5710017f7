"""Any loss plus an SFT term on the chosen response: LLaMA-Factory's `pref_ftx`.

For DPO itself this is RPO, registered as "rpo".
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from squeeze.losses.types import FTX, Loss
from squeeze.theory import residuals
from squeeze.theory.logps import PairLogps, nll_weights

WEIGHT = "ftx"


def with_sft(loss: Loss) -> Loss:
    """Return L + ftx·(−s+/|y+|), named "ftx_NAME"; the weight `ftx` is 1 unless given."""

    def function(logps: PairLogps, *, ftx: float = 1.0, **own: Any) -> Tensor:
        return loss(logps, **own) - ftx * nll_weights(logps, "token") * logps.chosen

    def residual(logps: PairLogps, *, ftx: float = 1.0, **own: Any) -> tuple[Tensor, Tensor]:
        chosen, rejected = loss.residuals(logps, **own)
        sft, _ = residuals.sft(logps, normalization="token")
        return chosen + ftx * sft, rejected

    return Loss(
        name=FTX + loss.name,
        function=function,
        paper=f"LLaMA-Factory's pref_ftx, on {loss.paper}",
        formula=f"{loss.formula} − ftx·s+/|y+|",
        needs_reference=loss.needs_reference,
        hyperparameters={**loss.hyperparameters, WEIGHT: 1.0},
        residual=None if loss.residual is None else residual,
    )
