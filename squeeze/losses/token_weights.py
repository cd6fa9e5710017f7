"""What LD-DPO and WPO need of single tokens, for the losses `ld_dpo` and `wpo` of `trl_kin`."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor


def beyond(
    mask: Bool[Tensor, "rows tokens"], shorter: Int[Tensor, " rows"]
) -> Bool[Tensor, "rows tokens"]:
    """Return the response tokens beyond the pair's shorter length: `ld_alpha` weighs them by α.

    `mask` is true at response tokens. `PairLogps.margin_beyond` is their part of the margin, and
    ∂L/∂log π of one is α times that of the others. Source: Liu et al. 2024 (LD-DPO), arXiv
    2409.06411, Eq. 8; TRL's `ld_alpha`.
    """
    return mask & (mask.long().cumsum(-1) > shorter[:, None])


def wpo_weights(
    chosen_logps: Float[Tensor, "batch chosen_tokens"],
    chosen_log_sum_sq: Float[Tensor, "batch chosen_tokens"],
    chosen_mask: Bool[Tensor, "batch chosen_tokens"],
    rejected_logps: Float[Tensor, "batch rejected_tokens"],
    rejected_log_sum_sq: Float[Tensor, "batch rejected_tokens"],
    rejected_mask: Bool[Tensor, "batch rejected_tokens"],
) -> Float[Tensor, " batch"]:
    """Return w(y+)·w(y−), detached: `PairLogps.pair_weight`, how on-policy a pair is.

    w(y) = exp(mean over tokens of log π(y_t) − log ‖π‖²), `log_sum_sq` being log Σ_v π(v)². Source:
    Zhou et al. 2024 (WPO), arXiv 2406.11827, Eq. 2 with sampled alignment; TRL's `use_weighting`.
    """

    def mean(logps: Tensor, log_sum_sq: Tensor, mask: Tensor) -> Tensor:
        aligned = (logps - log_sum_sq).detach().masked_fill(~mask, 0.0)
        return aligned.sum(-1) / mask.sum(-1).clamp(min=1)

    up = mean(chosen_logps, chosen_log_sum_sq, chosen_mask)
    return (up + mean(rejected_logps, rejected_log_sum_sq, rejected_mask)).exp()
