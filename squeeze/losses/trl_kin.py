"""Losses of pairs that TRL's DPOTrainer has beside DPO's nearest kin, under TRL's own names.

Notation and derivatives as in `squeeze.theory.residuals`; u = βΔ+, v = βΔ−, x = βm.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from squeeze.errors import InputError
from squeeze.losses.registry import register_loss
from squeeze.losses.types import positive, share
from squeeze.theory import residuals
from squeeze.theory.logps import PairLogps

Losses = Float[Tensor, " batch"]


def _exo_init(beta: float, label_smoothing: float) -> float:
    return -0.5 * math.log(4 * label_smoothing * (1 - label_smoothing))


@register_loss(
    "exo_pair",
    paper="Ji et al. 2024 (EXO), arXiv 2402.00856, Eq. 16",
    formula="KL of (σ(x), σ(−x)) from (1 − ε, ε)",
    init=_exo_init,
    residual=residuals.exo_pair,
)
def exo_pair(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 1e-3) -> Losses:
    """σ(x)[log σ(x) − log(1 − ε)] + σ(−x)[log σ(−x) − log ε]; needs 0 < ε < 1."""
    if not 0 < label_smoothing < 1:
        raise InputError(f"label_smoothing of 'exo_pair' must lie in (0, 1), not {label_smoothing}")
    x = positive("beta", beta) * logps.margin
    up, down = logsigmoid(x), logsigmoid(-x)
    towards = up.exp() * (up - math.log1p(-label_smoothing))
    return towards + down.exp() * (down - math.log(label_smoothing))


@register_loss(
    "nca_pair",
    paper="Chen et al. 2024 (NCA), arXiv 2402.05369",
    formula="−log σ(u) − ½ log σ(−u) − ½ log σ(−v)",
    init=lambda beta: 2 * math.log(2),
    residual=residuals.nca_pair,
)
def nca_pair(logps: PairLogps, *, beta: float = 0.1) -> Losses:
    """Noise contrastive alignment of a pair: chosen is kept from falling, and from rising far."""
    u, v = positive("beta", beta) * logps.chosen_logratio, beta * logps.rejected_logratio
    return -logsigmoid(u) - logsigmoid(-u) / 2 - logsigmoid(-v) / 2


@register_loss(
    "bco_pair",
    paper="Jung et al. 2024 (BCO), arXiv 2404.04656, without its reward shift",
    formula="−log σ(u) − log σ(−v)",
    init=lambda beta: 2 * math.log(2),
    residual=residuals.bco_pair,
)
def bco_pair(logps: PairLogps, *, beta: float = 0.1) -> Losses:
    """Binary classification of each response by its own reward."""
    u, v = positive("beta", beta) * logps.chosen_logratio, beta * logps.rejected_logratio
    return -logsigmoid(u) - logsigmoid(-v)


@register_loss(
    "aot",
    paper="Melnyk et al. 2024 (AOT), arXiv 2406.05882, paired",
    formula="cDPO, the reference's log-ratios s+ − s− sorted against the policy's over the batch",
    init=lambda beta, label_smoothing: math.log(2),
    residual=residuals.aot,
)
def aot(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Losses:
    """First-order stochastic dominance of margins: compares ranks in the batch, not pairs."""
    delta = residuals.aot_margins(logps)
    return _smoothed(positive("beta", beta) * delta, label_smoothing)


@register_loss(
    "aot_unpaired",
    paper="Melnyk et al. 2024 (AOT), arXiv 2406.05882, unpaired",
    formula="cDPO, chosen's and rejected's log-ratios each sorted over the batch",
    init=lambda beta, label_smoothing: math.log(2),
    residual=residuals.aot_unpaired,
)
def aot_unpaired(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Losses:
    """The same of chosen against rejected rewards; a loss stands at its chosen response."""
    delta, _ = residuals.aot_unpaired_margins(logps)
    return _smoothed(positive("beta", beta) * delta, label_smoothing)


def _smoothed(x: Losses, epsilon: float) -> Losses:
    return -(1 - epsilon) * logsigmoid(x) - epsilon * logsigmoid(-x)


@register_loss(
    "apo_zero",
    paper="D'Oosterlinck et al. 2024 (APO), arXiv 2408.06266, Eq. 7",
    formula="1 − σ(u) + σ(v)",
    init=lambda beta: 1.0,
    residual=residuals.apo_zero,
)
def apo_zero(logps: PairLogps, *, beta: float = 0.1) -> Losses:
    """Anchored: chosen up and rejected down, each from its own reference."""
    u, v = positive("beta", beta) * logps.chosen_logratio, beta * logps.rejected_logratio
    return logsigmoid(-u).exp() + logsigmoid(v).exp()


@register_loss(
    "apo_down",
    paper="D'Oosterlinck et al. 2024 (APO), arXiv 2408.06266, Eq. 8",
    formula="σ(u) + 1 − σ(x)",
    init=lambda beta: 1.0,
    residual=residuals.apo_down,
)
def apo_down(logps: PairLogps, *, beta: float = 0.1) -> Losses:
    """Anchored for a model better than its data: both down, rejected further."""
    u, x = positive("beta", beta) * logps.chosen_logratio, beta * logps.margin
    return logsigmoid(u).exp() + logsigmoid(-x).exp()


@register_loss(
    "discopop",
    paper="Lu et al. 2024 (DiscoPOP), arXiv 2406.08414, Eq. 5",
    formula="−log σ(x)·(1 − q) + e^(−x)·q, q = σ(x/τ)",
    init=lambda beta, discopop_tau: 0.5 * math.log(2) + 0.5,
    residual=residuals.discopop,
)
def discopop(logps: PairLogps, *, beta: float = 0.1, discopop_tau: float = 0.05) -> Losses:
    """Log-ratio modulated loss: logistic below the reference's margin, exponential above it."""
    x = positive("beta", beta) * logps.margin
    tau = positive("discopop_tau", discopop_tau)
    exponential = torch.exp(logsigmoid(x / tau) - x)  # e^(−x) alone may overflow
    return -logsigmoid(x) * torch.sigmoid(-x / tau) + exponential


@register_loss(
    "sigmoid_norm",
    paper="TRL's DPOTrainer: DPO on token means (length-normalized; Tülu 3, arXiv 2411.15124)",
    formula="−log σ(β(Δ+/|y+| − Δ−/|y−|))",
    init=lambda beta: math.log(2),
    residual=residuals.sigmoid_norm,
)
def sigmoid_norm(logps: PairLogps, *, beta: float = 0.1) -> Losses:
    """DPO with each log-ratio divided by its response's length."""
    chosen = logps.chosen_logratio / logps.n_chosen_tokens
    rejected = logps.rejected_logratio / logps.n_rejected_tokens
    return -logsigmoid(positive("beta", beta) * (chosen - rejected))


@register_loss(
    "f_dpo",
    paper="Wang et al. 2023 (f-DPO), arXiv 2309.16240, Eq. 10; TRL's f_divergence_type",
    formula="−log σ(β(f'(e^Δ+) − f'(e^Δ−)))",
    init=lambda beta, divergence, divergence_alpha: math.log(2),
    residual=residuals.f_dpo,
)
def f_dpo(
    logps: PairLogps,
    *,
    beta: float = 0.1,
    divergence: str = "forward_kl",
    divergence_alpha: float = 0.5,
) -> Losses:
    """DPO under another divergence from the reference; names as in `residuals.divergence_score`."""
    chosen, rejected = (
        residuals.divergence_score(delta, divergence, divergence_alpha)[0]
        for delta in (logps.chosen_logratio, logps.rejected_logratio)
    )
    return -logsigmoid(positive("beta", beta) * (chosen - rejected))


@register_loss(
    "ld_dpo",
    paper="Liu et al. 2024 (LD-DPO), arXiv 2409.06411, Eq. 8; TRL's ld_alpha",
    formula="−log σ(βm), in m the tokens beyond the pair's shorter length times α",
    init=lambda beta, ld_alpha: math.log(2),
    residual=residuals.ld_dpo,
)
def ld_dpo(logps: PairLogps, *, beta: float = 0.1, ld_alpha: float = 0.5) -> Losses:
    """Length-desensitized DPO: α = 1 is DPO, 0 cuts both responses to the shorter one's length."""
    margin = logps.desensitized_margin(share("ld_alpha", ld_alpha))
    return -logsigmoid(positive("beta", beta) * margin)


@register_loss(
    "wpo",
    paper="Zhou et al. 2024 (WPO), arXiv 2406.11827, Eq. 2, sampled alignment; use_weighting",
    formula="−w·log σ(βm), w the pair's likelihood under the policy, without a gradient",
    residual=residuals.wpo,
)
def wpo(logps: PairLogps, *, beta: float = 0.1) -> Losses:
    """DPO weighted by how on-policy the pair is; w·ln 2 at policy = reference."""
    return -logps.weight * logsigmoid(positive("beta", beta) * logps.margin)
