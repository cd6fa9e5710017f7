"""Weights on tokens and on pairs that TRL offers for any preference loss: `ld_alpha` and WPO.

Both are functions of token log-probs: the one makes other sequence log-probs, the other a factor.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from squeeze.errors import InputError


def ld_weights(
    mask: Bool[Tensor, "batch tokens"], shared: Int[Tensor, " batch"], ld_alpha: float
) -> Float[Tensor, "batch tokens"]:
    """Return ∂s_ld/∂log π of every token: 1 up to the pair's shorter length `shared`, α beyond.

    s_ld = Σ weights·log π takes the place of s in any loss, for policy and reference; `mask` is
    true at response tokens. Source: Liu et al. 2024 (LD-DPO), arXiv 2409.06411, Eq. 8; TRL's
    `ld_alpha`. Raises `InputError` unless 0 ≤ α ≤ 1.
    """
    if not 0 <= ld_alpha <= 1:
        raise InputError(f"ld_alpha must lie in [0, 1], not {ld_alpha}")
    place = mask.long().cumsum(-1)
    inside = (place <= shared[:, None]).double()
    return (inside + ld_alpha * (1 - inside)) * mask


def wpo_weights(
    chosen_logps: Float[Tensor, "batch chosen_tokens"],
    chosen_log_sum_sq: Float[Tensor, "batch chosen_tokens"],
    chosen_mask: Bool[Tensor, "batch chosen_tokens"],
    rejected_logps: Float[Tensor, "batch rejected_tokens"],
    rejected_log_sum_sq: Float[Tensor, "batch rejected_tokens"],
    rejected_mask: Bool[Tensor, "batch rejected_tokens"],
) -> Float[Tensor, " batch"]:
    """Return w(y+)·w(y−), detached: how on-policy a pair is; multiply its loss by it.

    w(y) = exp(mean over tokens of log π(y_t) − log ‖π‖²), `log_sum_sq` being log Σ_v π(v)². Source:
    Zhou et al. 2024 (WPO), arXiv 2406.11827, Eq. 2 with sampled alignment; TRL's `use_weighting`.
    """

    def mean(logps: Tensor, log_sum_sq: Tensor, mask: Tensor) -> Tensor:
        aligned = (logps - log_sum_sq).detach().masked_fill(~mask, 0.0)
        return aligned.sum(-1) / mask.sum(-1).clamp(min=1)

    up = mean(chosen_logps, chosen_log_sum_sq, chosen_mask)
    return (up + mean(rejected_logps, rejected_log_sum_sq, rejected_mask)).exp()
