"""KTO, for unpaired responses and for pairs; Ethayarajh et al. 2024, arXiv 2402.01306, Eq. 8.

The reference point z (an estimate of KL(policy ‖ reference)) gets no gradient, as in the paper.
A pair is two unpaired rows, so its loss is the mean of the two: the mean over pairs is then the
mean over rows that TRL's KTOTrainer and LLaMA-Factory's `kto_pair` take.
"""

from __future__ import annotations

import math

from jaxtyping import Bool, Float
from torch import Tensor, where
from torch.nn.functional import logsigmoid

from squeeze.losses.registry import register_loss
from squeeze.losses.types import positive
from squeeze.theory import residuals
from squeeze.theory.logps import PairLogps
from squeeze.theory.residuals import kto_slope


def _sigmoid(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return σ(x), by a road whose gradient keeps its digits where σ is near 1.

    torch's own backward is y(1 − y), which there cancels: at x = 20 only 8 digits are left.
    1 − σ(x) is written σ(−x) throughout for the same reason.
    """
    return logsigmoid(x).exp()


def kto_unpaired(
    logratio: Float[Tensor, " batch"],
    desirable: Bool[Tensor, " batch"],
    *,
    kl: float | Float[Tensor, ""],
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Return λ_D(1 − σ(β(Δ − z))) for desirable rows, λ_U(1 − σ(β(z − Δ))) for the others.

    `logratio` is Δ = s − s_ref of each response; `kl` is z ≥ 0, treated as a constant.
    """
    point = kl.detach() if isinstance(kl, Tensor) else kl
    x = positive("beta", beta) * (logratio - point)
    return where(desirable, desirable_weight * _sigmoid(-x), undesirable_weight * _sigmoid(x))


def kto_unpaired_residual(
    logratio: Float[Tensor, " batch"],
    desirable: Bool[Tensor, " batch"],
    *,
    kl: float | Float[Tensor, ""],
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Return ∂L/∂s of `kto_unpaired`: ∓λβσ(x)σ(−x), minus for desirable rows."""
    slope = beta * kto_slope(beta * (logratio - kl))
    return where(desirable, -desirable_weight * slope, undesirable_weight * slope)


def _kto_init(beta: float, kl: float, desirable_weight: float, undesirable_weight: float) -> float:
    share = 1 / (1 + math.exp(-beta * kl))
    return (desirable_weight * share + undesirable_weight * (1 - share)) / 2


@register_loss(
    "kto",
    paper="Ethayarajh et al. 2024, arXiv 2402.01306, Eq. 8",
    formula="½[λ_D(1 − σ(β(Δ+ − z))) + λ_U(1 − σ(β(z − Δ−)))]",
    init=_kto_init,
    residual=residuals.kto,
)
def kto(
    logps: PairLogps,
    *,
    beta: float = 0.1,
    kl: float = 0.0,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, " batch"]:
    """KTO of a pair as one desirable and one undesirable row, the KL estimate z given."""
    x_chosen = positive("beta", beta) * (logps.chosen_logratio - kl)
    x_rejected = beta * (kl - logps.rejected_logratio)
    return (desirable_weight * _sigmoid(-x_chosen) + undesirable_weight * _sigmoid(-x_rejected)) / 2


def _half(beta: float) -> float:
    return 0.5


@register_loss(
    "kto_pair",
    paper="Ethayarajh et al. 2024, arXiv 2402.01306, §4.1 ('kto_pair' of LLaMA-Factory)",
    formula="KTO with z+ = max(0, mean Δ−) and z− = max(0, mean Δ+) over the batch",
    init=_half,
    residual=residuals.kto_pair,
)
def kto_pair(logps: PairLogps, *, beta: float = 0.1) -> Float[Tensor, " batch"]:
    """KTO of pairs, each side's reference point estimated from the other side's batch mean.

    LLaMA-Factory (TRL's removed code) let the gradient flow through that estimate; the paper and we
    do not.
    """
    chosen, rejected = logps.chosen_logratio, logps.rejected_logratio
    chosen_point = rejected.detach().mean().clamp(min=0)
    rejected_point = chosen.detach().mean().clamp(min=0)
    x_chosen = positive("beta", beta) * (chosen - chosen_point)
    x_rejected = beta * (rejected_point - rejected)
    return (_sigmoid(-x_chosen) + _sigmoid(-x_rejected)) / 2
