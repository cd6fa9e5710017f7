"""The plain log-prob kernel: one [T, V] log-softmax in float64, obviously right and never fast.

It is what every other kernel is tested against; nothing in production calls it by default.
"""

from __future__ import annotations

import torch

from squeeze.kernels.inputs import KernelInputs
from squeeze.kernels.statistics import TokenStatistics, cleared


def reference_statistics(inputs: KernelInputs) -> TokenStatistics:
    """Return the statistics of each row, computed and returned in float64 whatever comes in.

    Takes O(T·V) memory. Definitions: entropy −Σ π log π, peakiness Σ π² (π log π = 0 at π = 0).
    """
    with torch.no_grad():
        if inputs.logits is not None:
            logits = inputs.logits.double()
        else:
            assert inputs.hidden is not None
            assert inputs.head is not None
            logits = inputs.hidden.double() @ inputs.head.double().T
            if inputs.bias is not None:
                logits = logits + inputs.bias.double()
        transform = inputs.transform
        logits = logits * transform.logit_scale
        if transform.softcap is not None:
            logits = transform.softcap * torch.tanh(logits / transform.softcap)
        logits = logits / transform.temperature

        logps = torch.log_softmax(logits, dim=-1)
        probs = logps.exp()
        argmax_logp, argmax_token = logps.max(dim=-1)
        ignored = inputs.targets == inputs.ignore_index
        index = inputs.targets.masked_fill(ignored, 0).unsqueeze(-1)
        topk = logps.topk(inputs.top_k, dim=-1) if inputs.top_k else None
        statistics = TokenStatistics(
            target_logp=logps.gather(-1, index).squeeze(-1),
            argmax_token=argmax_token,
            argmax_logp=argmax_logp,
            logsumexp=torch.logsumexp(logits, dim=-1),
            entropy=torch.special.entr(probs).sum(-1),
            peakiness=probs.square().sum(-1),
            topk_tokens=topk.indices if topk else None,
            topk_logps=topk.values if topk else None,
        )
        return cleared(statistics, ignored)
