"""∂L/∂s+ and ∂L/∂s− of every preference loss as formulas, and G = ∂L/∂z on the logits.

Each function mirrors the loss of the same name in `squeeze.losses` (same keyword arguments) and
returns one pair of weights a preference pair: what the optimizer multiplies ∇s+ and ∇s− with. They
are derived by hand and use no autograd, so that autograd can be checked against them (claim LD-4).
Kinks take the right-hand rule of `torch.relu`: the slope at the kink itself is 0.

Notation: Δ± = s± − s±_ref, m = Δ+ − Δ−, σ the logistic function, 1 − σ(x) written σ(−x), which
keeps its digits where σ(x) is near 1. Source: CLAIMS LD-4; Ren & Sutherland, arXiv 2407.10490, §3.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from squeeze.errors import InputError
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


def ld_dpo(logps: PairLogps, *, beta: float = 0.1, ld_alpha: float = 0.5) -> Residual:
    """DPO's at the desensitized margin; of it, tokens beyond the shorter length get α times."""
    weight = beta * torch.sigmoid(-beta * logps.desensitized_margin(ld_alpha))
    return -weight, weight


def wpo(logps: PairLogps, *, beta: float = 0.1) -> Residual:
    """DPO's times the pair's weight, which has no gradient."""
    chosen, rejected = dpo(logps, beta=beta)
    return logps.weight * chosen, logps.weight * rejected


def cdpo(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Residual:
    """∓β[(1 − ε)(1 − a) − εa]: a pull back towards the margin log((1 − ε)/ε)/β."""
    slope = _smoothed_slope(beta * logps.margin, label_smoothing)
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


def exo_pair(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 1e-3) -> Residual:
    """±βσ(x)σ(−x)(x − log((1 − ε)/ε)), x = βm: a pull to the margin at which σ(x) = 1 − ε."""
    x = beta * logps.margin
    slope = beta * kto_slope(x) * (x - math.log1p(-label_smoothing) + math.log(label_smoothing))
    return slope, -slope


def nca_pair(logps: PairLogps, *, beta: float = 0.1) -> Residual:
    """β(½σ(u) − σ(−u)), ½βσ(v), with u = βΔ+ and v = βΔ−: chosen is held near σ(u) = ⅔."""
    u, v = beta * logps.chosen_logratio, beta * logps.rejected_logratio
    return beta * (torch.sigmoid(u) / 2 - torch.sigmoid(-u)), beta * torch.sigmoid(v) / 2


def bco_pair(logps: PairLogps, *, beta: float = 0.1) -> Residual:
    """−βσ(−βΔ+), βσ(βΔ−)."""
    u, v = beta * logps.chosen_logratio, beta * logps.rejected_logratio
    return -beta * torch.sigmoid(-u), beta * torch.sigmoid(v)


def aot(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Residual:
    """cDPO's slope at the pair's log-ratio less the reference's of the same rank in the batch."""
    delta = aot_margins(logps)
    slope = _smoothed_slope(beta * delta, label_smoothing)
    return -beta * slope, beta * slope


def aot_unpaired(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Residual:
    """cDPO's slope at Δ+ less the Δ− of the same rank in the batch, on either side."""
    chosen, rejected = aot_unpaired_margins(logps)
    up, down = (_smoothed_slope(beta * delta, label_smoothing) for delta in (chosen, rejected))
    return -beta * up, beta * down


def aot_margins(logps: PairLogps) -> Float[Tensor, " batch"]:
    """Return s+ − s− less the reference's of the same rank in the batch.

    Raises `InputError` without reference log-probs.
    """
    if logps.ref_chosen is None or logps.ref_rejected is None:
        raise InputError("AOT needs PairLogps.ref_chosen and ref_rejected; pass them")
    logratio = logps.chosen - logps.rejected
    return logratio - (logps.ref_chosen - logps.ref_rejected).sort().values[_rank(logratio)]


def aot_unpaired_margins(
    logps: PairLogps,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Return Δ+ less the Δ− of the same rank: once a chosen response, once a rejected one."""
    up, down = logps.chosen_logratio, logps.rejected_logratio
    return up - down.sort().values[_rank(up)], up.sort().values[_rank(down)] - down


def _rank(values: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    return values.detach().argsort(stable=True).argsort()


def _smoothed_slope(x: Float[Tensor, " batch"], epsilon: float) -> Float[Tensor, " batch"]:
    return (1 - epsilon) * torch.sigmoid(-x) - epsilon * torch.sigmoid(x)


def apo_zero(logps: PairLogps, *, beta: float = 0.1) -> Residual:
    """∓βσ(x)σ(−x) at x = βΔ±: each side vanishes far from its reference."""
    u, v = beta * logps.chosen_logratio, beta * logps.rejected_logratio
    return -beta * kto_slope(u), beta * kto_slope(v)


def apo_down(logps: PairLogps, *, beta: float = 0.1) -> Residual:
    """β(σ'(βΔ+) − σ'(βm)), βσ'(βm): at the reference chosen is not moved at all."""
    own, both = kto_slope(beta * logps.chosen_logratio), kto_slope(beta * logps.margin)
    return beta * (own - both), beta * both


def discopop(logps: PairLogps, *, beta: float = 0.1, discopop_tau: float = 0.05) -> Residual:
    """±β[−σ(−x)(1 − q) + log σ(x)·q' + e^(−x)(q' − q)], q = σ(x/τ), x = βm; of either sign."""
    x = beta * logps.margin
    shut = torch.sigmoid(-x / discopop_tau)
    logistic = shut * (
        logsigmoid(x) * torch.sigmoid(x / discopop_tau) / discopop_tau - torch.sigmoid(-x)
    )
    exponential = torch.exp(logsigmoid(x / discopop_tau) - x) * (shut / discopop_tau - 1)
    slope = beta * (logistic + exponential)
    return slope, -slope


def sigmoid_norm(logps: PairLogps, *, beta: float = 0.1) -> Residual:
    """∓β(1 − σ(x))/|y±|, x = β(Δ+/|y+| − Δ−/|y−|)."""
    n_chosen, n_rejected = logps.n_chosen_tokens, logps.n_rejected_tokens
    x = beta * (logps.chosen_logratio / n_chosen - logps.rejected_logratio / n_rejected)
    weight = beta * torch.sigmoid(-x)
    return -weight / n_chosen, weight / n_rejected


def f_dpo(
    logps: PairLogps,
    *,
    beta: float = 0.1,
    divergence: str = "forward_kl",
    divergence_alpha: float = 0.5,
) -> Residual:
    """∓β(1 − σ(x))·f''(t±)t±, t± = exp(Δ±), x the loss's argument."""
    up, down = (
        divergence_score(delta, divergence, divergence_alpha)
        for delta in (logps.chosen_logratio, logps.rejected_logratio)
    )
    weight = beta * torch.sigmoid(-beta * (up[0] - down[0]))
    return -weight * up[1], weight * down[1]


def divergence_score(
    logratio: Float[Tensor, " batch"], divergence: str, alpha: float
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Return f'(t) and its slope by log t, t = exp(logratio): what f-DPO takes for the log-ratio.

    "reverse_kl" log t (DPO's), "forward_kl" 1 − 1/t, "js_divergence" log(2t/(1 + t)),
    "alpha_divergence" (t^(α − 1) − 1)/(α − 1). Source: Wang et al. 2023, arXiv 2309.16240, Table 1.
    Raises `InputError` for another name, and for α = 1, which is reverse_kl.
    """
    if divergence == "reverse_kl":
        return logratio, torch.ones_like(logratio)
    if divergence == "forward_kl":
        return -torch.expm1(-logratio), torch.exp(-logratio)
    if divergence == "js_divergence":
        return math.log(2) + logsigmoid(logratio), torch.sigmoid(-logratio)
    if divergence == "alpha_divergence" and alpha != 1:
        power = (alpha - 1) * logratio
        return torch.expm1(power) / (alpha - 1), torch.exp(power)
    raise InputError(
        f"unknown divergence {divergence!r} with alpha {alpha:g}; use 'reverse_kl', 'forward_kl', "
        "'js_divergence' or 'alpha_divergence' with an alpha other than 1"
    )


def kto_slope(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return σ'(x) = σ(x)σ(−x)."""
    return torch.sigmoid(x) * torch.sigmoid(-x)
