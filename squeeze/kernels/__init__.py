"""Log-prob kernels: logits, or hidden states and an LM head, to per-token statistics."""

from squeeze.kernels.statistics import TokenStatistics

__all__ = ["TokenStatistics"]
