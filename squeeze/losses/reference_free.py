"""Losses of pairs that need no reference model: SimPO and ORPO, on length-averaged log-probs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from squeeze.losses.registry import register_loss
from squeeze.losses.types import positive
from squeeze.theory import residuals
from squeeze.theory.logps import PairLogps


@register_loss(
    "simpo",
    paper="Meng et al. 2024, arXiv 2405.14734, Eq. 6",
    formula="−log σ(β s+/|y+| − β s−/|y−| − γ)",
    needs_reference=False,
    residual=residuals.simpo,
)
def simpo(logps: PairLogps, *, beta: float = 2.0, gamma: float = 1.0) -> Float[Tensor, " batch"]:
    """−log σ(β s+/|y+| − β s−/|y−| − γ), γ the target margin (TRL's `simpo_gamma`)."""
    chosen = logps.chosen / logps.n_chosen_tokens
    rejected = logps.rejected / logps.n_rejected_tokens
    return -logsigmoid(positive("beta", beta) * (chosen - rejected) - gamma)


@register_loss(
    "orpo",
    paper="Hong et al. 2024, arXiv 2403.07691, Eq. 6 and 7",
    formula="−s+/|y+| − λ log σ(log odds(y+)/odds(y−)), odds = P/(1 − P), P = exp(s/|y|)",
    needs_reference=False,
    residual=residuals.orpo,
)
def orpo(logps: PairLogps, *, lam: float = 0.1) -> Float[Tensor, " batch"]:
    """SFT (mean over tokens) + λ·(−log σ of the log odds ratio); LLaMA-Factory's pref_beta is λ."""
    chosen = logps.chosen / logps.n_chosen_tokens
    rejected = logps.rejected / logps.n_rejected_tokens
    log_odds = (chosen - _log_not(chosen)) - (rejected - _log_not(rejected))
    return -chosen - lam * logsigmoid(log_odds)


def _log_not(log_p: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return log(1 − P) from log P; expm1 keeps the digits where P is near 1."""
    return torch.log(-torch.expm1(log_p))
