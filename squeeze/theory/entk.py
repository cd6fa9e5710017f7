"""The empirical NTK of a model's logits, K = J_o J_uᵀ, as an operator over the trained weights.

J_o and J_u are the Jacobians of the logits at the observed and at the updated input. J_uᵀ is one
reverse-mode product, J_o one forward-mode product, so K is applied to a 135M-parameter language
model at the cost of a training step; only `dense_entk` forms it. Nothing here knows of softmax or
of losses: see `decomposition`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, jacrev, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from squeeze.errors import InputError

Parameters = dict[str, Tensor]
"""Trainable weights by name, detached from any graph."""

Logits = Callable[[Parameters], Tensor]
"""A model at a fixed input: weights → logits [positions, vocab]. A batch's rows count as such."""


def trainable_parameters(model: nn.Module) -> Parameters:
    """Return the weights that training would move: those with `requires_grad` (LoRA's, under PEFT).

    Tensors share the model's storage and are detached. Raises `InputError` if there are none.
    """
    weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    if not weights:
        raise InputError(
            "the model has no trainable parameters, so its eNTK is empty; "
            "set requires_grad on some or attach an adapter"
        )
    return weights


def module_logits(module: nn.Module, inputs: Tensor) -> Logits:
    """Return the logits of a classifier at a batch of inputs, as a function of its weights.

    `module(inputs)` must be [batch, vocab]. Raises `InputError` if the module is in training mode.
    """
    _require_eval(module)

    def logits(parameters: Parameters) -> Tensor:
        outputs: Float[Tensor, "batch vocab"] = functional_call(module, parameters, (inputs,))
        return outputs

    return logits


def sequence_logits(
    model: nn.Module,
    input_ids: Int[Tensor, " length"],
    positions: Int[Tensor, " positions"],
    **forward: Tensor,
) -> Logits:
    """Return a causal LM's logits at some positions of one teacher-forced sequence.

    Position p holds the distribution of token p + 1: a response that starts at token t is
    predicted by positions t − 1 … length − 2. `forward` goes to the model as it is (an attention
    mask, for example). Raises `InputError` if a position is outside the sequence or the model is
    in training mode, where dropout would make two passes disagree.
    """
    _require_eval(model)
    if positions.numel() == 0 or positions.min() < 0 or positions.max() >= input_ids.numel():
        raise InputError(
            f"positions must be within 0 … {input_ids.numel() - 1}, the length of the sequence, "
            f"and at least one; got {positions.tolist()}"
        )
    keywords = {
        "input_ids": input_ids[None],
        "logits_to_keep": positions,
        "use_cache": False,
        **forward,
    }

    def logits(parameters: Parameters) -> Tensor:
        # Fused attention has no forward-mode derivative; the plain formula has.
        with sdpa_kernel(SDPBackend.MATH):
            outputs = functional_call(model, parameters, (), keywords)
        kept: Float[Tensor, "positions vocab"] = outputs.logits[0]
        return kept

    return logits


def response_positions(n_prompt: int, length: int) -> Int[Tensor, " response"]:
    """Return the positions that predict tokens n_prompt … length − 1 of a sequence.

    Raises `InputError` unless 1 ≤ n_prompt < length: the first token is predicted by nothing.
    """
    if not 1 <= n_prompt < length:
        raise InputError(f"a prompt of {n_prompt} tokens leaves no response in {length} tokens")
    return torch.arange(n_prompt - 1, length - 1)


def pull_back(
    logits: Logits, parameters: Parameters, residual: Callable[[Tensor], Tensor]
) -> Parameters:
    """Return J_uᵀ G, the loss's gradient by the weights, for the residual G = residual(z).

    `residual` maps logits [positions, vocab] to ∂L/∂z of the same shape. One reverse-mode pass.
    """
    with torch.enable_grad():
        result = vjp(logits, parameters)
    z, transpose = result[0], result[1]
    gradient: Parameters = transpose(residual(z.detach()))[0]
    return gradient


def push_forward(
    logits: Logits, parameters: Parameters, direction: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "positions vocab"], Float[Tensor, "positions vocab"]]:
    """Return the logits z and J_o d, their derivative along a direction d in weight space.

    One forward-mode pass.
    """
    with torch.no_grad():
        result = jvp(logits, (parameters,), (dict(direction),))
    return result[0], result[1]


def apply_entk(
    observed: Logits,
    updated: Logits,
    parameters: Parameters,
    residual: Float[Tensor, "updated vocab"],
) -> Float[Tensor, "observed vocab"]:
    """Return Σ_l K_ml G_l for every observed position m, without forming K."""
    gradient = pull_back(updated, parameters, lambda _: residual)
    return push_forward(observed, parameters, gradient)[1]


def jacobian(logits: Logits, parameters: Parameters) -> Float[Tensor, "positions vocab parameters"]:
    """Return J = ∂z/∂θ, weights flattened and in the order of `parameters`; for small models only.

    One vectorised reverse pass over positions × vocab outputs.
    """
    blocks: Parameters = jacrev(logits)(parameters)
    return torch.cat([block.flatten(start_dim=2) for block in blocks.values()], dim=2)


def dense_entk(
    observed: Logits, updated: Logits, parameters: Parameters
) -> Float[Tensor, "observed vocab updated vocab"]:
    """Return K itself, block K_ml at [m, :, l, :]; for small models and vocabularies only."""
    rows, columns = jacobian(observed, parameters), jacobian(updated, parameters)
    return torch.einsum("map,lbp->malb", rows, columns)


@dataclass(frozen=True)
class KernelNorm:
    """‖K‖_F by Hutchinson's estimator: `squared` estimates ‖K‖_F² without bias.

    `squared_standard_error` is the sample's standard error of that mean. A probe's relative
    standard deviation is at most √2 whatever K is, so that of `squared` is at most √(2/n_probes).
    """

    squared: float
    squared_standard_error: float
    n_probes: int

    @property
    def norm(self) -> float:
        """‖K‖_F; its relative error is about half that of `squared`."""
        return math.sqrt(self.squared)

    @property
    def standard_error(self) -> float:
        """The standard error of `norm`, by the delta method."""
        return self.squared_standard_error / (2 * self.norm)


def estimate_entk_norm(
    observed: Logits,
    updated: Logits,
    parameters: Parameters,
    *,
    n_probes: int = 32,
    seed: int = 0,
) -> KernelNorm:
    """Estimate ‖K‖_F over all observed and updated positions, at two passes a probe.

    ‖K‖_F² = E‖K v‖² for v of independent random signs; Var‖K v‖² = 2(‖KᵀK‖_F² − Σ_i (KᵀK)_ii²)
    ≤ 2‖K‖_F⁴ (Hutchinson 1990), hence the bound in `KernelNorm`. Raises `InputError` for fewer
    than two probes.
    """
    if n_probes < 2:
        raise InputError(f"n_probes is {n_probes}; a standard error needs at least 2")
    generator = torch.Generator().manual_seed(seed)

    def signs(z: Tensor) -> Tensor:
        return (2 * torch.randint(0, 2, z.shape, generator=generator) - 1).to(z)

    draws = []
    for _ in range(n_probes):
        direction = pull_back(updated, parameters, signs)
        draws.append(push_forward(observed, parameters, direction)[1].double().square().sum())
    sample = torch.stack(draws)
    return KernelNorm(sample.mean().item(), sample.std().item() / math.sqrt(n_probes), n_probes)


def _require_eval(module: nn.Module) -> None:
    if module.training:
        raise InputError("the model is in training mode, where dropout is random; call .eval()")
