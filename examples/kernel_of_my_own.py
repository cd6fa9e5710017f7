"""A log-prob kernel of one's own, checked against float64 and placed in the benchmark's table:

    squeeze bench kernels --quick --kernel examples/kernel_of_my_own.py:blockwise

It takes (targets, logits), or (targets, hidden, head); it may take bias, softcap, temperature and
logit_scale. It returns the targets' log-probs [T], or statistics by the names of TokenStatistics.
"""

from __future__ import annotations

import torch
from torch import Tensor


def blockwise(targets: Tensor, logits: Tensor, temperature: float = 1.0) -> dict[str, Tensor]:
    """log π(target) and log-sum-exp [T], a few rows at a time so that copies stay in the cache."""
    logps, sums = [], []
    rows = max(1, 2**17 // logits.shape[1])
    for block, chosen in zip(logits.split(rows), targets.split(rows), strict=True):
        z = block.float() / temperature
        maximum = z.max(-1, keepdim=True).values
        z -= maximum  # before the target is picked: differences of large logits are exact
        log_sum = z.exp().sum(-1).log()
        logps.append(z.gather(-1, chosen[:, None])[:, 0] - log_sum)
        sums.append(maximum[:, 0] + log_sum)
    return {"target_logp": torch.cat(logps), "logsumexp": torch.cat(sums)}
