"""∂L/∂s+ and ∂L/∂s− of every preference loss as formulas, and G = ∂L/∂z on the logits.

Each function mirrors the loss of the same name in `squeeze.losses` (same keyword arguments) and
returns one pair of weights a preference pair: what the optimizer multiplies ∇s+ and ∇s− with. They
are derived by hand and use no autograd, so that autograd can be checked against them (claim LD-4).
Kinks take the right-hand rule of `torch.relu`: the slope at the kink itself is 0.

Notation: Δ± = s± − s±_ref, m = Δ+ − Δ−, σ the logistic function, 1 − σ(x) written σ(−x), which
keeps its digits where σ(x) is near 1. Source: CLAIMS LD-4; Ren & Sutherland, arXiv 2407.10490, §3.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from squeeze.theory.logps import PairLogps, nll_weights

Residual = tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]


def logit_residual(
    logits: Float[Tensor, "tokens vocab"],
    target: Int[Tensor, " tokens"],
    sequence_residual: float | Float[Tensor, ""] | Float[Tensor, " tokens"],
    mask: Bool[Tensor, " tokens"] | None = None,
) -> Float[Tensor, "tokens vocab"]:
    """Return G = ∂L/∂s · (e_y − π) for one sequence, from logits and the tokens they predict.

    ∂L/∂s may be one number or one a token (policy gradients). Rows where `mask` is false (prompt,
    padding) are 0. Source: arXiv 2407.10490, Prop. 1 and Eq. 5.
    """
    weight = torch.as_tensor(sequence_residual, dtype=logits.dtype, device=logits.device)
    g = -logits.softmax(-1) * weight[..., None]
    g[torch.arange(len(target), device=g.device), target] += weight
    return g if mask is None else g * mask[:, None]


def sft(logps: PairLogps, *, normalization: str = "sequence") -> Residual:
    """−w, 0."""
    return -nll_weights(logps, normalization), torch.zeros_like(logps.rejected)


def dpo(logps: PairLogps, *, beta: float = 0.1) -> Residual:
    """∓β(1 − a), a = σ(βm); Rafailov et al. 2023, §4, "What does the DPO update do?"."""
    weight = beta * torch.sigmoid(-beta * logps.margin)
    return -weight, weight


def cdpo(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Residual:
    """∓β[(1 − ε)(1 − a) − εa]: a pull back towards the margin log((1 − ε)/ε)/β."""
    x = beta * logps.margin
    slope = (1 - label_smoothing) * torch.sigmoid(-x) - label_smoothing * torch.sigmoid(x)
    return -beta * slope, beta * slope


def robust(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Residual:
    """∓β[(1 − ε)(1 − a) + εa]/(1 − 2ε): never below βε/(1 − 2ε), however large the margin."""
    x = beta * logps.margin
    slope = (1 - label_smoothing) * torch.sigmoid(-x) + label_smoothing * torch.sigmoid(x)
    slope = slope / (1 - 2 * label_smoothing)
    return -beta * slope, beta * slope


def ipo(logps: PairLogps, *, tau: float = 0.1, length_normalized: bool = False) -> Residual:
    """±2(m − 1/(2τ)); with length normalization each side also divided by its length."""
    if not length_normalized:
        slope = 2 * (logps.margin - 1 / (2 * tau))
        return slope, -slope
    n_chosen, n_rejected = logps.n_chosen_tokens, logps.n_rejected_tokens
    margin = logps.chosen_logratio / n_chosen - logps.rejected_logratio / n_rejected
    slope = 2 * (margin - 1 / (2 * tau))
    return slope / n_chosen, -slope / n_rejected


def hinge(logps: PairLogps, *, beta: float = 0.1) -> Residual:
    """∓β·1[βm < 1]."""
    active = beta * (beta * logps.margin < 1).to(logps.chosen)
    return -active, active


def sppo_hard(logps: PairLogps, *, beta: float = 0.1) -> Residual:
    """2(Δ+ − 1/(2β)), 2(Δ− + 1/(2β))."""
    half = 1 / (2 * beta)
    return 2 * (logps.chosen_logratio - half), 2 * (logps.rejected_logratio + half)


def simpo(logps: PairLogps, *, beta: float = 2.0, gamma: float = 1.0) -> Residual:
    """∓β(1 − σ(x))/|y±|, x the loss's argument."""
    n_chosen, n_rejected = logps.n_chosen_tokens, logps.n_rejected_tokens
    x = beta * (logps.chosen / n_chosen - logps.rejected / n_rejected) - gamma
    weight = beta * torch.sigmoid(-x)
    return -weight / n_chosen, weight / n_rejected


def orpo(logps: PairLogps, *, lam: float = 0.1) -> Residual:
    """−[1 + λ(1 − σ(o))/(1 − P+)]/|y+|, λ(1 − σ(o))/(1 − P−)/|y−|, with o the log odds ratio.

    P± = exp(s±/|y±|) and d log odds/d log P = 1/(1 − P); Hong et al. 2024, §4.4, Eq. 9.
    """
    log_p = logps.chosen / logps.n_chosen_tokens, logps.rejected / logps.n_rejected_tokens
    not_p = -torch.expm1(log_p[0]), -torch.expm1(log_p[1])
    log_odds = log_p[0] - log_p[1] - torch.log(not_p[0]) + torch.log(not_p[1])
    weight = lam * torch.sigmoid(-log_odds)
    chosen = -(1 + weight / not_p[0]) / logps.n_chosen_tokens
    return chosen, weight / not_p[1] / logps.n_rejected_tokens


def rpo(
    logps: PairLogps, *, beta: float = 0.1, alpha: float = 1.0, normalization: str = "token"
) -> Residual:
    """DPO's, with −α·w added on the chosen side."""
    chosen, rejected = dpo(logps, beta=beta)
    return chosen - alpha * nll_weights(logps, normalization), rejected


def dpop(logps: PairLogps, *, beta: float = 0.3, lam: float = 50.0) -> Residual:
    """−β(1 − σ(x))(1 + λ·1[Δ+ < 0]), +β(1 − σ(x)), x the loss's argument."""
    # in the input's dtype: a Python float times a bool tensor would be float32
    below = (logps.chosen_logratio < 0).to(logps.chosen)
    x = beta * (logps.margin + lam * logps.chosen_logratio * below)
    weight = beta * torch.sigmoid(-x)
    return -weight * (1 + lam * below), weight


def cal_dpo(logps: PairLogps, *, beta: float = 0.1) -> Residual:
    """DPO's plus SPPO's."""
    towards, away = dpo(logps, beta=beta), sppo_hard(logps, beta=beta)
    return towards[0] + away[0], towards[1] + away[1]


def dpo_shift(logps: PairLogps, *, beta: float = 0.1, shift: float = 0.95) -> Residual:
    """−β(1 − σ(x)), +fβ(1 − σ(x)), x = β(Δ+ − fΔ−)."""
    x = beta * (logps.chosen_logratio - shift * logps.rejected_logratio)
    weight = beta * torch.sigmoid(-x)
    return -weight, shift * weight


def kto(
    logps: PairLogps,
    *,
    beta: float = 0.1,
    kl: float = 0.0,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Residual:
    """∓½λβ·σ(x)σ(−x), x+ = β(Δ+ − z), x− = β(z − Δ−): both vanish far from the reference point."""
    chosen = kto_slope(beta * (logps.chosen_logratio - kl))
    rejected = kto_slope(beta * (kl - logps.rejected_logratio))
    return (
        -0.5 * desirable_weight * beta * chosen,
        0.5 * undesirable_weight * beta * rejected,
    )


def kto_pair(logps: PairLogps, *, beta: float = 0.1) -> Residual:
    """KTO's, each side's reference point being the other side's batch-mean log-ratio, cut at 0."""
    chosen_point = logps.rejected_logratio.mean().clamp(min=0)
    rejected_point = logps.chosen_logratio.mean().clamp(min=0)
    chosen = kto_slope(beta * (logps.chosen_logratio - chosen_point))
    rejected = kto_slope(beta * (rejected_point - logps.rejected_logratio))
    return -0.5 * beta * chosen, 0.5 * beta * rejected


def kto_slope(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return σ'(x) = σ(x)σ(−x)."""
    return torch.sigmoid(x) * torch.sigmoid(-x)
