"""Sharpness-aware steps in logits: the gradient of a label's log-prob, taken a little uphill.

SAM steps with the gradient found at a perturbation that raises the loss. To push y down is to
minimise log π(y), so the perturbation raises log π(y); for the usual loss −log π(y) with a negative
learning rate, that is a radius ρ of the learning rate's sign. Source: logits-SAM, Luo et al. 2026,
arXiv 2603.18258. What follows from it here is derived in `tests/theory/test_policy_gradient.py`.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from squeeze.theory.softmax import negative_step, positive_step, squeezing_threshold


def sharpness_aware_negative_step(
    logits: Float[Tensor, "batch vocab"],
    labels: Int[Tensor, " batch"],
    eta: float,
    rho: float,
) -> Float[Tensor, "batch vocab"]:
    """Return the displacement η(π̃ − e_y), π̃ = softmax(z + ρ(e_y − π)/‖e_y − π‖); ρ = 0 is plain."""
    uphill = positive_step(logits, labels, 1.0)
    uphill = rho * uphill / uphill.norm(dim=-1, keepdim=True)
    return negative_step(logits + uphill, labels, eta)


def sharpness_aware_relief(
    logits: Float[Tensor, "batch vocab"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, "batch vocab"]:
    """Return ∂²/∂η∂a of log π'_i at η = a = 0 for i ≠ y, a = ρ/‖e_y − π‖.

    π_i(T − π_i) + (Σπ³ − ‖π‖⁴) + π_y T with T = ‖π‖² − π_y: no term is negative for a label at or
    below the squeezing threshold T, where a plain step lowers it (claims SM-4, SA-1).
    """
    pi = logits.softmax(-1)
    own = pi.gather(-1, labels[:, None])
    threshold = squeezing_threshold(logits, labels)[:, None]
    peak = pi.square().sum(-1, keepdim=True)
    spread = (pi * (pi - peak).square()).sum(-1, keepdim=True)  # Σπ³ − ‖π‖⁴, a variance
    return pi * (threshold - pi) + spread + own * threshold
