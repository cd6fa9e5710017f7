"""DPO and its kin: losses of pairs against a reference, as pure functions of log-probs.

Every function takes `PairLogps` and keyword hyper-parameters and returns one loss a pair, [batch],
in the dtype it was given. Notation as in `squeeze.theory.residuals`, where the derivatives are.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from squeeze.errors import InputError
from squeeze.losses.registry import register_loss
from squeeze.losses.types import positive
from squeeze.theory import residuals
from squeeze.theory.logps import PairLogps, nll_weights

Losses = Float[Tensor, " batch"]


def _log_two(**hyper: float | str) -> float:
    return math.log(2)


@register_loss(
    "sft",
    paper="maximum likelihood; TRL's DPOTrainer calls it 'sft'",
    formula="−w·s+",
    needs_reference=False,
    residual=residuals.sft,
)
def sft(logps: PairLogps, *, normalization: str = "sequence") -> Losses:
    """−w·s+, supervised finetuning on the chosen response; w as in `logps.nll_weights`."""
    return -nll_weights(logps, normalization) * logps.chosen


@register_loss(
    "sigmoid",
    paper="Rafailov et al. 2023, arXiv 2305.18290, Eq. 7",
    formula="−log σ(βm)",
    init=_log_two,
    residual=residuals.dpo,
)
def dpo(logps: PairLogps, *, beta: float = 0.1) -> Losses:
    """−log σ(βm), DPO; Rafailov et al. 2023, arXiv 2305.18290, Eq. 7."""
    return -logsigmoid(positive("beta", beta) * logps.margin)


@register_loss(
    "spin",
    paper="Chen et al. 2024, arXiv 2401.01335, Eq. 4.7",
    formula="−log σ(βm), y− drawn from the previous policy, which is the reference",
    init=_log_two,
    residual=residuals.dpo,
)
def spin(logps: PairLogps, *, beta: float = 0.1) -> Losses:
    """DPO's formula: SPIN differs in its data, y− being sampled from the reference."""
    return dpo(logps, beta=beta)


@register_loss(
    "cdpo",
    paper="Mitchell 2023, 'A note on DPO with noisy preferences & relationship to IPO', Eq. 3",
    formula="−(1 − ε) log σ(βm) − ε log σ(−βm)",
    init=_log_two,
    residual=residuals.cdpo,
)
def cdpo(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Losses:
    """Conservative DPO: label smoothing, biased, pulls back once σ(βm) > 1 − ε."""
    x = positive("beta", beta) * logps.margin
    return -(1 - label_smoothing) * logsigmoid(x) - label_smoothing * logsigmoid(-x)


@register_loss(
    "robust",
    paper="Chowdhury et al. 2024, arXiv 2403.00409, Eq. 12",
    formula="[−(1 − ε) log σ(βm) + ε log σ(−βm)]/(1 − 2ε)",
    init=_log_two,
    residual=residuals.robust,
)
def robust(logps: PairLogps, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Losses:
    """Robust DPO: unbiased for labels flipped with probability ε < ½; unbounded below."""
    if not 0 <= label_smoothing < 0.5:
        raise InputError(f"label_smoothing of 'robust' must lie in [0, 0.5), not {label_smoothing}")
    x = positive("beta", beta) * logps.margin
    clean, flipped = -logsigmoid(x), -logsigmoid(-x)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def _ipo_init(tau: float, length_normalized: bool) -> float:
    return 1 / (4 * tau**2)


@register_loss(
    "ipo",
    paper="Azar et al. 2023, arXiv 2310.12036, Eq. 17",
    formula="(m − 1/(2τ))²",
    init=_ipo_init,
    residual=residuals.ipo,
)
def ipo(logps: PairLogps, *, tau: float = 0.1, length_normalized: bool = False) -> Losses:
    """(m − 1/(2τ))²; `length_normalized` divides Δ± by |y±|, as TRL and LLaMA-Factory do."""
    margin = logps.margin
    if length_normalized:
        chosen = logps.chosen_logratio / logps.n_chosen_tokens
        margin = chosen - logps.rejected_logratio / logps.n_rejected_tokens
    return (margin - 1 / (2 * positive("tau", tau))).square()


def _one(**hyper: float) -> float:
    return 1.0


@register_loss(
    "hinge",
    paper="Zhao et al. 2023 (SLiC-HF), arXiv 2305.10425; normalised as in Liu et al. 2024 (RSO)",
    formula="max(0, 1 − βm)",
    init=_one,
    residual=residuals.hinge,
)
def hinge(logps: PairLogps, *, beta: float = 0.1) -> Losses:
    """max(0, 1 − βm): SLiC's hinge on DPO's margin (Liu et al. 2024, arXiv 2309.06657, Eq. 10)."""
    return torch.relu(1 - positive("beta", beta) * logps.margin)


def _sppo_init(beta: float) -> float:
    return 1 / (2 * beta**2)


@register_loss(
    "sppo_hard",
    paper="Wu et al. 2024, arXiv 2405.00675, Eq. 4.7 with P = 1 for the winner",
    formula="(Δ+ − 1/(2β))² + (Δ− + 1/(2β))²",
    init=_sppo_init,
    residual=residuals.sppo_hard,
)
def sppo_hard(logps: PairLogps, *, beta: float = 0.1) -> Losses:
    """(Δ+ − 1/(2β))² + (Δ− + 1/(2β))²; here a larger β means a nearer target."""
    half = 1 / (2 * positive("beta", beta))
    return (logps.chosen_logratio - half).square() + (logps.rejected_logratio + half).square()


@register_loss(
    "rpo",
    paper="Pang et al. 2024, arXiv 2404.19733, Eq. 1; LLaMA-Factory's pref_ftx = α",
    formula="−log σ(βm) − α·w·s+",
    residual=residuals.rpo,
)
def rpo(
    logps: PairLogps, *, beta: float = 0.1, alpha: float = 1.0, normalization: str = "token"
) -> Losses:
    """DPO + α·SFT on the chosen response.

    With "token" it is Pang et al.'s and LLaMA-Factory's `pref_ftx` (each response's mean over its
    tokens); with "batch" the mean over pairs is TRL's loss_type ["sigmoid", "sft"] with
    loss_weights [1, α] (mean over the batch's tokens; TRL 1.16 has no `rpo_alpha`).
    """
    return dpo(logps, beta=beta) + alpha * sft(logps, normalization=normalization)


@register_loss(
    "dpop",
    paper="Pal et al. 2024 (Smaug), arXiv 2402.13228, Eq. 3",
    formula="−log σ(β(m − λ·max(0, −Δ+)))",
    init=_log_two,
    residual=residuals.dpop,
)
def dpop(logps: PairLogps, *, beta: float = 0.3, lam: float = 50.0) -> Losses:
    """DPO-positive: a penalty once the chosen response is less likely than under the reference."""
    penalty = torch.relu(-logps.chosen_logratio)
    return -logsigmoid(positive("beta", beta) * (logps.margin - lam * penalty))


def _cal_dpo_init(beta: float) -> float:
    return math.log(2) + 1 / (2 * beta**2)


@register_loss(
    "cal_dpo",
    paper="Xiao et al. 2024, arXiv 2412.14516",
    formula="−log σ(βm) + (Δ+ − 1/(2β))² + (Δ− + 1/(2β))²",
    init=_cal_dpo_init,
    residual=residuals.cal_dpo,
)
def cal_dpo(logps: PairLogps, *, beta: float = 0.1) -> Losses:
    """DPO plus the squared distance of both log-ratios from ±1/(2β)."""
    return dpo(logps, beta=beta) + sppo_hard(logps, beta=beta)


@register_loss(
    "dpo_shift",
    paper="Yang et al. 2025, arXiv 2502.07599",
    formula="−log σ(βΔ+ − f·βΔ−)",
    init=_log_two,
    residual=residuals.dpo_shift,
)
def dpo_shift(logps: PairLogps, *, beta: float = 0.1, shift: float = 0.95) -> Losses:
    """−log σ(β(Δ+ − fΔ−)), f = `shift` ≤ 1 scales the rejected reward."""
    reward = logps.chosen_logratio - shift * logps.rejected_logratio
    return -logsigmoid(positive("beta", beta) * reward)
