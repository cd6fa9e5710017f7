"""`target_logps`: the log-probs of the targets, differentiable, in bounded memory.

The forward pass is `token_statistics`' own. The backward pass makes each tile of logits again, four
matmuls for a step; on a CPU, where a matmul is most of the time, up to half a gigabyte of float32
logits is kept instead, three matmuls and a third of what autograd would keep.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from squeeze.kernels.chunked import HiddenFold, Projection, chunked_statistics
from squeeze.kernels.dispatch import best_fold
from squeeze.kernels.inputs import KernelInputs, LogitTransform, check_inputs

_KEPT_BYTES = 512 * 2**20


def target_logps(
    targets: Tensor,
    *,
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None = None,
    softcap: float | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    ignore_index: int = -100,
) -> Tensor:
    """Return log π(target) [T] in nats, differentiable in `hidden`, `head` and `bias`.

    Arguments as for `token_statistics`. The result is float32 (float64 for float64 input) and 0
    where the target is `ignore_index`, with gradient 0. Gradients are accumulated in float32 and
    come in the inputs' dtypes. Raises InputError on unusable arguments.
    """
    inputs = check_inputs(
        targets,
        hidden=hidden,
        head=head,
        bias=bias,
        softcap=softcap,
        temperature=temperature,
        logit_scale=logit_scale,
        ignore_index=ignore_index,
    )
    logps: Tensor = _TargetLogps.apply(hidden, head, bias, inputs)  # type: ignore[no-untyped-call]
    return logps


class _TargetLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "tokens width"],
        head: Float[Tensor, "vocab width"],
        bias: Float[Tensor, " vocab"] | None,
        inputs: KernelInputs,
    ) -> Float[Tensor, " tokens"]:
        logits = _kept_logits(inputs) if any(ctx.needs_input_grad) else None
        if logits is not None:
            inputs = replace(inputs, logits=logits, hidden=None, head=None, bias=None)
        statistics = chunked_statistics(inputs, best_fold(inputs))
        ctx.save_for_backward(hidden, head, bias, inputs.targets, statistics.logsumexp, logits)
        ctx.transform, ctx.ignore_index = inputs.transform, inputs.ignore_index
        ctx.fold = best_fold(inputs)
        return statistics.target_logp

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_logps: Float[Tensor, " tokens"]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        hidden, head, bias, targets, logsumexp, kept_logits = ctx.saved_tensors
        wants_hidden, wants_head, wants_bias = ctx.needs_input_grad[:3]
        kept = (targets != ctx.ignore_index).nonzero().squeeze(-1)
        in_place = head.dtype in (torch.float32, torch.float64)  # the head's gradient is summed
        projection = Projection(hidden, head, kept.shape[0], training=not in_place)
        fused = isinstance(ctx.fold, HiddenFold) and ctx.fold.takes(hidden, head)
        dtype = projection.accumulator
        grad_hidden = torch.zeros_like(hidden, dtype=dtype) if wants_hidden else None
        grad_head = torch.zeros_like(head) if wants_head else None
        grad_bias = torch.empty_like(bias) if wants_bias else None
        for first in range(0, head.shape[0], projection.columns):
            span = slice(first, min(first + projection.columns, head.shape[0]))
            weight = projection.convert_head(head[span])
            # The vocabulary outside, so that only one tile of the head's gradient is in float32.
            head_tile: Tensor | float = 0.0
            bias_tile: Tensor | float = 0.0
            for rows in kept.split(projection.block):
                states = projection.convert_hidden(hidden[rows])
                of_rows = targets[rows] - first, logsumexp[rows], grad_logps[rows]
                if fused:
                    part = None if bias is None else bias[span]
                    gradient = ctx.fold.logits_gradient(
                        states, weight, part, ctx.transform, *of_rows
                    )
                else:
                    if kept_logits is not None:
                        logits = projection.copy(kept_logits, rows, span)
                    else:
                        logits = projection.project(states, weight).to(dtype)
                        if bias is not None:
                            logits += bias[span]
                    gradient = _logits_gradient(logits, *of_rows, ctx.transform)
                operand = gradient.to(projection.dtype)
                if grad_hidden is not None:
                    grad_hidden.index_add_(0, rows, projection.multiply(operand, weight))
                if grad_head is not None and in_place:
                    grad_head[span].addmm_(operand.T, states)
                elif wants_head:
                    head_tile = projection.multiply(operand.T, states).add_(head_tile)
                if wants_bias:
                    bias_tile = gradient.sum(0, dtype=dtype).add_(bias_tile)
            if grad_head is not None and not in_place:
                grad_head[span] = head_tile
            if grad_bias is not None:
                grad_bias[span] = bias_tile
        grad_hidden = None if grad_hidden is None else grad_hidden.to(hidden.dtype)
        return grad_hidden, grad_head, grad_bias, None


def _kept_logits(inputs: KernelInputs) -> Float[Tensor, "tokens vocab"] | None:
    """The logits, where keeping them until the backward pass is worth their memory."""
    hidden, head, bias = inputs.hidden, inputs.head, inputs.bias
    assert hidden is not None
    assert head is not None
    converts = hidden.dtype != inputs.accumulator
    n_bytes = hidden.shape[0] * head.shape[0] * hidden.itemsize
    if hidden.device.type != "cpu" or converts or n_bytes > _KEPT_BYTES:
        return None
    with torch.autocast("cpu", enabled=False):
        logits = torch.mm(hidden, head.T)
    return logits if bias is None else logits.add_(bias)


def _logits_gradient(
    logits: Float[Tensor, "block columns"],
    targets: Int[Tensor, " block"],
    logsumexp: Float[Tensor, " block"],
    grad_logps: Float[Tensor, " block"],
    transform: LogitTransform,
) -> Float[Tensor, "block columns"]:
    """Turn a tile of raw logits a, in place, into grad · ∂log π(target)/∂a.

    With z = c tanh(g a) it is grad · (1[target] − π) · g c (1 − tanh²(g a)); without a cap, the
    last factor is g. `targets` count from the tile's first column.
    """
    gain, cap = transform.gain_and_cap
    slope: Tensor | float = gain
    if gain != 1.0:
        logits.mul_(gain)
    if cap:
        logits.tanh_()
        slope = logits.square().neg_().add_(1.0).mul_(gain * cap)
        logits.mul_(cap)
    probs = logits.sub_(logsumexp.unsqueeze(-1)).exp_()
    gradient = probs.mul_(-grad_logps.unsqueeze(-1))
    rows = ((targets >= 0) & (targets < logits.shape[1])).nonzero().squeeze(-1)
    gradient[rows, targets[rows]] += grad_logps[rows]
    return gradient if isinstance(slope, float) and slope == 1.0 else gradient.mul_(slope)
