"""What every log-prob kernel returns: the statistics of T next-token distributions."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TokenStatistics:
    """Statistics of the next-token distribution π at each of T positions.

    Log-probs, log-sum-exp and entropy are in nats; `peakiness` is ‖π‖² = Σ_i π_i², the squeezing
    threshold's first term. Float tensors are float32 (float64 for float64 input). At ignored
    positions (`target == ignore_index`) every float entry is 0 and `argmax_token` is -1.
    """

    target_logp: Float[Tensor, " tokens"]
    argmax_token: Int[Tensor, " tokens"]
    argmax_logp: Float[Tensor, " tokens"]
    logsumexp: Float[Tensor, " tokens"]
    entropy: Float[Tensor, " tokens"]
    peakiness: Float[Tensor, " tokens"]
    topk_tokens: Int[Tensor, "tokens k"] | None = None
    topk_logps: Float[Tensor, "tokens k"] | None = None
