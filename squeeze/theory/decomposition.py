"""One gradient step's effect on log π, decomposed: Δ log π(·|x_o) = −η A(x_o) K(x_o, x_u) G(x_u).

A = I − 1πᵀ is the softmax's Jacobian, K = J_o J_uᵀ the empirical NTK (module `entk`), G = ∂L/∂z the
loss's residual. Ren & Sutherland, arXiv 2407.10490, Prop. 1 and Eq. 5. A loss may come as several
terms (DPO's chosen and rejected), each predicted by itself. Formulas of G for each loss are in
`residuals`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.theory.entk import Logits, Parameters, dense_entk, pull_back, push_forward

Residual = Callable[[Tensor], Tensor]
"""Logits [positions, vocab] → G = ∂L/∂z of the same shape."""


@dataclass(frozen=True)
class UpdateTerm:
    """One term of the loss that is stepped on: the model at its input, and its residual there."""

    logits: Logits
    residual: Residual
    name: str = ""


def logp_residual(targets: Int[Tensor, " positions"], weight: float) -> Residual:
    """Return the residual G = w (e_y − π) of a loss whose weight on Σ log π(y) is w = ∂L/∂s.

    w = −1 is SFT; −β(1 − a) and +β(1 − a) are DPO's chosen and rejected terms (Eqs. 6 and 9).
    """

    def residual(z: Float[Tensor, "positions vocab"]) -> Float[Tensor, "positions vocab"]:
        gradient = -weight * torch.softmax(z, dim=-1)
        gradient[torch.arange(len(targets)), targets] += weight
        return gradient

    return residual


def adjustment_matrix(
    pi: Float[Tensor, "*positions vocab"],
) -> Float[Tensor, "*positions vocab vocab"]:
    """Return A = I − 1πᵀ = ∂ log π/∂z, dense: for small vocabularies only (Prop. 1)."""
    return torch.eye(pi.shape[-1], dtype=pi.dtype, device=pi.device) - pi.unsqueeze(-2)


def apply_adjustment(
    pi: Float[Tensor, "*positions vocab"], v: Float[Tensor, "*positions vocab"]
) -> Float[Tensor, "*positions vocab"]:
    """Return A v = v − ⟨π, v⟩ 1 without forming A."""
    return v - (pi * v).sum(dim=-1, keepdim=True)


def adjustment_norm_squared(
    pi: Float[Tensor, "*positions vocab"],
) -> Float[Tensor, "*positions"]:
    """Return ‖A‖_F² = V‖π‖² + V − 2 without forming A: large where π is peaky (paper §2)."""
    n_labels = pi.shape[-1]
    return n_labels * pi.square().sum(dim=-1) + (n_labels - 2)


def predicted_change(
    observed: Logits,
    terms: Sequence[UpdateTerm],
    parameters: Parameters,
    learning_rate: float,
) -> Float[Tensor, "terms positions vocab"]:
    """Return −η A K G for each term of an SGD step: its share of Δ log π, in nats, to O(η).

    The step's whole prediction is the sum over terms. A term costs one reverse pass at its own
    input and one forward-mode pass at the observed one; nothing vocab × vocab is formed (Eq. 5).
    """
    changes = []
    for term in terms:
        gradient = pull_back(term.logits, parameters, term.residual)
        z, dz = push_forward(observed, parameters, gradient)
        changes.append(-learning_rate * apply_adjustment(torch.softmax(z, dim=-1), dz))
    return torch.stack(changes)


def predicted_change_dense(
    observed: Logits,
    terms: Sequence[UpdateTerm],
    parameters: Parameters,
    learning_rate: float,
) -> Float[Tensor, "terms positions vocab"]:
    """Return −η Σ_l A_m K_ml G_l by the letter of Eq. 5, from the blocks; for small models only."""
    adjustment = adjustment_matrix(torch.softmax(observed(parameters), dim=-1))
    changes = []
    for term in terms:
        kernel = dense_entk(observed, term.logits, parameters)
        residual = term.residual(term.logits(parameters))
        change = torch.einsum("mij,mjlk,lk->mi", adjustment, kernel, residual)
        changes.append(-learning_rate * change)
    return torch.stack(changes)


def measured_change(
    observed: Logits,
    terms: Sequence[UpdateTerm],
    parameters: Parameters,
    learning_rate: float,
) -> Float[Tensor, "positions vocab"]:
    """Return Δ log π, in nats, of one real SGD step on the sum of the terms."""
    stepped = dict(parameters)
    for term in terms:
        gradient = pull_back(term.logits, parameters, term.residual)
        stepped = {name: w - learning_rate * gradient[name] for name, w in stepped.items()}
    with torch.no_grad():
        before = torch.log_softmax(observed(parameters), dim=-1)
        return torch.log_softmax(observed(stepped), dim=-1) - before


def relative_error(
    predicted: Float[Tensor, "terms positions vocab"],
    measured: Float[Tensor, "positions vocab"],
) -> float:
    """Return ‖Σ predicted − measured‖ / ‖measured‖, over all observed positions and labels."""
    error = predicted.sum(dim=0) - measured
    return float(torch.linalg.vector_norm(error) / torch.linalg.vector_norm(measured))
