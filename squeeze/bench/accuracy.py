"""Inputs of every kind, and how far a kernel may be from the float64 reference on them.

The bounds are first-order, in u = 2⁻²⁴ (2⁻⁵³ for float64), for z given exactly, x = z − max z and
π = softmax(z). A kernel's e^x has relative error at most (3 + 2|x|)u: u|x| from rounding x, as much
again for reducing it, 3u for the exponential. Its sums run over at most `n_terms` additions, whose
roundings are taken as independent: 6·√n_terms·u covers them with probability 1 − 2e⁻¹⁸ (Higham and
Mary, "A new approach to probabilistic rounding error analysis", 2019, theorem 2.4). Call it N. Then

    log s       (N + 3 + 2 E_π|x|) u + 2u log s                                  =: ρ
    log-prob    ρ + 2u |log-prob|          log-sum-exp    ρ + u |lse|
    entropy     ρ + (N + 5 + N + 3 + 2 E_π|x|) u E_π|x| + 2u E_π x² + 2u H
    ‖π‖²        relative: 3(N + 3)u + 4u E_π|x| + 4u E_π²|x| + 8u, E_π² weighted with π²/‖π‖².

A logit that is itself off by at most δ adds 2δ to a log-prob, δ to log-sum-exp, Σ π|log π + H| δ to
the entropy and 4δ relatively to ‖π‖².
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

KINDS = ("random", "peaky", "flat", "tied", "masked", "masked_finite", "huge")


def make_logits(kind: str, n_tokens: int, vocab: int, dtype: torch.dtype) -> Tensor:
    """Return [T, V] logits of a kind, the same ones in every call."""
    generator = torch.Generator().manual_seed(n_tokens * 1_000_003 + vocab)
    logits = torch.randn(n_tokens, vocab, generator=generator, dtype=torch.float64)
    if kind == "random":
        logits = 4 * logits
    elif kind == "peaky":
        logits[:, vocab // 3] += 40
    elif kind == "flat":
        logits = torch.full_like(logits, 1.5)
    elif kind == "tied":
        logits[:, [0, vocab // 2, vocab - 1]] = logits.max() + 1
    elif kind == "masked":
        logits[:, : vocab // 2] = float("-inf")
    elif kind == "masked_finite":
        logits[:, ::3] = torch.finfo(dtype).min
    elif kind == "huge":
        logits = 1e4 * torch.sign(logits) + 3 * logits.abs()
    return logits.to(dtype)


def make_targets(n_tokens: int, vocab: int) -> Tensor:
    """Return targets that touch both ends of the vocabulary and its middle."""
    generator = torch.Generator().manual_seed(vocab)
    targets = torch.randint(0, vocab, (n_tokens,), generator=generator)
    targets[:2] = torch.tensor([vocab - 1, 0])[:n_tokens]
    return targets


def error_bounds(
    logits: Tensor, targets: Tensor, unit: float, delta: Tensor | float = 0.0
) -> dict[str, Tensor]:
    """Return the bound of each statistic [T] for the float64 `logits`; see the module."""
    vocab = logits.shape[1]
    # At least 4 lanes and blocks of 1024, or torch's own cascade, then one addition a tile.
    n_terms = min(vocab, 256) + 8 * math.ceil(vocab / 4096) + 8
    n_sum = 6 * math.sqrt(n_terms)
    x = (logits - logits.amax(-1, keepdim=True)).clamp(min=-800)  # e^-800 = 0, without −inf · 0
    probs = torch.softmax(logits, -1)
    logps = torch.log_softmax(logits, -1)
    first, second = (probs * -x).sum(-1), (probs * x * x).sum(-1)
    peaked = (probs**2 * -x).sum(-1) / (probs**2).sum(-1)
    entropy = torch.special.entr(probs).sum(-1)
    spread = (probs * (logps.clamp(min=-800) + entropy.unsqueeze(-1)).abs()).sum(-1)
    rho = (n_sum + 3 + 2 * first - 2 * logps.amax(-1)) * unit
    target_logp = logps.gather(-1, targets.unsqueeze(-1)).squeeze(-1).clamp(min=-1e300)
    relative = (3 * (n_sum + 3) + 4 * first + 4 * peaked + 8) * unit + 4 * delta
    return {
        "target_logp": rho - 2 * unit * target_logp + 2 * delta,
        "argmax_logp": rho - 2 * unit * logps.amax(-1) + 2 * delta,
        "logsumexp": rho + unit * torch.logsumexp(logits, -1).abs() + delta,
        "entropy": rho
        + (2 * n_sum + 8 + 2 * first) * unit * first
        + 2 * unit * (second + entropy)
        + spread * delta,
        "peakiness": relative * (probs**2).sum(-1),
    }
