"""Statistics that every log-prob kernel returns: of T next-token distributions."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TokenStatistics:
    """Statistics of the next-token distribution π at each of T positions.

    Log-probs, log-sum-exp and entropy are in nats; `peakiness` is ‖π‖² = Σ_i π_i², the squeezing
    threshold's first term. Float tensors are float32 (float64 for float64 input). At ignored
    positions (`target == ignore_index`) every float entry is 0 and every token is -1. A row that
    has no distribution (a NaN or +inf logit, or only −inf) comes out as NaN.
    """

    target_logp: Float[Tensor, " tokens"]
    argmax_token: Int[Tensor, " tokens"]
    argmax_logp: Float[Tensor, " tokens"]
    logsumexp: Float[Tensor, " tokens"]
    entropy: Float[Tensor, " tokens"]
    peakiness: Float[Tensor, " tokens"]
    topk_tokens: Int[Tensor, "tokens k"] | None = None
    topk_logps: Float[Tensor, "tokens k"] | None = None


def cleared(statistics: TokenStatistics, ignored: Bool[Tensor, " tokens"]) -> TokenStatistics:
    """Return `statistics` with 0 (tokens: -1) at the ignored positions."""

    def floats(value: Tensor) -> Tensor:
        return value.masked_fill(ignored if value.ndim == 1 else ignored.unsqueeze(-1), 0.0)

    def tokens(value: Tensor) -> Tensor:
        return value.masked_fill(ignored if value.ndim == 1 else ignored.unsqueeze(-1), -1)

    topk_tokens, topk_logps = statistics.topk_tokens, statistics.topk_logps
    return TokenStatistics(
        target_logp=floats(statistics.target_logp),
        argmax_token=tokens(statistics.argmax_token),
        argmax_logp=floats(statistics.argmax_logp),
        logsumexp=floats(statistics.logsumexp),
        entropy=floats(statistics.entropy),
        peakiness=floats(statistics.peakiness),
        topk_tokens=None if topk_tokens is None else tokens(topk_tokens),
        topk_logps=None if topk_logps is None else floats(topk_logps),
    )
