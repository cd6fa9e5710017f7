"""Log-prob kernels: logits, or hidden states and an LM head, to per-token statistics."""

from squeeze.kernels.dispatch import token_statistics
from squeeze.kernels.statistics import TokenStatistics
from squeeze.kernels.training import target_logps

__all__ = ["TokenStatistics", "target_logps", "token_statistics"]
