"""Gate-DPO: scale the gradient of the rejected response by how likely that response still is.

Mouiche 2026, "Gradient-Gated DPO", arXiv 2605.02626. The gate applies to any pairwise loss, leaves
its value alone and is therefore no derivative of it: finite differences do not see it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from squeeze.errors import InputError
from squeeze.losses.types import GATE, Loss
from squeeze.theory.logps import PairLogps

# Our choice, not the paper's: on Anthropic-HH a rejected answer's geometric-mean token probability
# is about 0.1 to 0.2 before training, so the gate starts nearly open and is shut (0.12) at 0.
DEFAULTS: dict[str, Any] = {
    "gate_alpha": 20.0,
    "gate_tau": 0.1,
    "gate_statistic": "geometric_mean",
    "gate_quantile": 0.1,
}


def gate(
    logps: PairLogps,
    *,
    gate_alpha: float = 20.0,
    gate_tau: float = 0.1,
    gate_statistic: str = "geometric_mean",
    gate_quantile: float = 0.1,
) -> Float[Tensor, " batch"]:
    """Return g(p) = σ(α(p − τ)), detached; p is a probability of the rejected response's tokens.

    "geometric_mean": p = exp(s−/|y−|), needs the length. "quantile": the `gate_quantile` quantile
    of its token probabilities, needs `rejected_token_logps` and `rejected_mask`. Raises
    `InputError` if what it needs is missing or the statistic is unknown.
    """
    if gate_statistic == "geometric_mean":
        p = torch.exp(logps.rejected.detach() / logps.n_rejected_tokens)
    elif gate_statistic == "quantile":
        if logps.rejected_token_logps is None or logps.rejected_mask is None:
            raise InputError(
                "gate_statistic 'quantile' needs PairLogps.rejected_token_logps and rejected_mask; "
                "pass them or use 'geometric_mean'"
            )
        tokens = logps.rejected_token_logps.detach().masked_fill(~logps.rejected_mask, torch.nan)
        p = torch.nanquantile(tokens, gate_quantile, dim=-1).exp()  # exp is monotone
    else:
        raise InputError(
            f"unknown gate_statistic {gate_statistic!r}; use 'geometric_mean' or 'quantile'"
        )
    return torch.sigmoid(gate_alpha * (p - gate_tau))


def gated(loss: Loss) -> Loss:
    """Return the same loss with the rejected term's gradient times g(p), named "gated_NAME".

    Its hyper-parameters are the loss's own and `gate_alpha`, `gate_tau`, `gate_statistic`,
    `gate_quantile` (see `gate`). Source: arXiv 2605.02626.
    """

    def function(logps: PairLogps, **hyper: Any) -> Tensor:
        own, of_gate = _split(hyper)
        open_share = gate(logps, **of_gate)
        fixed = logps.rejected.detach()
        # fixed + g·(s− − fixed): the value of s− to the last bit, g times its gradient
        rejected = fixed + open_share * (logps.rejected - fixed)
        return loss(replace(logps, rejected=rejected), **own)

    def residual(logps: PairLogps, **hyper: Any) -> tuple[Tensor, Tensor]:
        own, of_gate = _split(hyper)
        chosen, rejected = loss.residuals(logps, **own)
        return chosen, gate(logps, **of_gate) * rejected

    return Loss(
        name=GATE + loss.name,
        function=function,
        paper=f"Mouiche 2026, arXiv 2605.02626, on {loss.paper}",
        formula=f"{loss.formula}, the gradient through s− times σ(α(p − τ))",
        needs_reference=loss.needs_reference,
        hyperparameters={**loss.hyperparameters, **DEFAULTS},
        init=None if loss.init is None else _without_gate(loss.init),
        residual=None if loss.residual is None else residual,
    )


def _without_gate(init: Callable[..., float]) -> Callable[..., float]:
    return lambda **hyper: init(**_split(hyper)[0])


def _split(hyper: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    own = {name: value for name, value in hyper.items() if name not in DEFAULTS}
    return own, {name: value for name, value in hyper.items() if name in DEFAULTS}
