"""`token_statistics`: the one entry point, which picks the kernel by device and input."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from squeeze.kernels.chunked import chunked_statistics
from squeeze.kernels.inputs import KernelInputs, check_inputs
from squeeze.kernels.native import load_native
from squeeze.kernels.online import EagerFold, Fold
from squeeze.kernels.statistics import TokenStatistics

_FUSED = ContextVar("fused kernels", default=os.environ.get("SQUEEZE_FUSED") == "1")


def token_statistics(
    targets: Tensor,
    *,
    logits: Tensor | None = None,
    hidden: Tensor | None = None,
    head: Tensor | None = None,
    bias: Tensor | None = None,
    softcap: float | None = None,
    temperature: float = 1.0,
    logit_scale: float = 1.0,
    ignore_index: int = -100,
    top_k: int = 0,
) -> TokenStatistics:
    """Return the statistics of the T next-token distributions softmax(z), without a gradient.

    z = softcap · tanh(logit_scale · logit / softcap) / temperature; the logits are given as
    `logits` [T, V], or as `hidden` [T, H] and `head` [V, H] (plus `bias` [V]), in which case [T, V]
    is never stored. `targets` [T] are token ids, int64 or int32; rows whose target is
    `ignore_index` cost nothing and come out as 0. float32, bfloat16 and float16 inputs are
    accumulated in float32, float64 in float64. Raises InputError on unusable arguments.

    >>> import torch
    >>> from squeeze import token_statistics
    >>> found = token_statistics(torch.tensor([0, 2]), logits=torch.zeros(2, 4))
    >>> found.target_logp  # nats, one a token: ln(1/4)
    tensor([-1.3863, -1.3863])
    """
    # Plain `Tensor` annotations: the shapes are checked below, with sentences for the user.
    inputs = check_inputs(
        targets,
        logits=logits,
        hidden=hidden,
        head=head,
        bias=bias,
        softcap=softcap,
        temperature=temperature,
        logit_scale=logit_scale,
        ignore_index=ignore_index,
        top_k=top_k,
    )
    return chunked_statistics(inputs, best_fold(inputs))


def best_fold(inputs: KernelInputs) -> Fold:
    """Return the fastest fold that can take these inputs on their device."""
    source = inputs.source
    if inputs.accumulator == torch.float64:
        return EagerFold()
    if source.device.type == "cpu":
        return load_native() or EagerFold()
    if source.device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        # The fused kernels have not been measured on a GPU; SQUEEZE_FUSED=1 switches them on.
        if _FUSED.get():
            from squeeze.kernels.fused import FusedFold

            return FusedFold()
        from squeeze.kernels.triton import TritonFold

        return TritonFold()
    return EagerFold()


@contextmanager
def fused_kernels() -> Iterator[None]:
    """Switch the fused GPU kernels on inside, whatever SQUEEZE_FUSED says."""
    token = _FUSED.set(True)
    try:
        yield
    finally:
        _FUSED.reset(token)
