"""Log-prob kernels: logits, or hidden states and an LM head, to per-token statistics."""

from squeeze.kernels.dispatch import token_statistics
from squeeze.kernels.statistics import TokenStatistics

__all__ = ["TokenStatistics", "token_statistics"]
