"""Inputs of every log-prob kernel, checked once: errors name the argument and the way out.

No arithmetic on logits beyond the elementwise transform; the kernels themselves are elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.errors import InputError

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class LogitTransform:
    """z = softcap · tanh(logit_scale · logit / softcap) / temperature, the cap only where given."""

    softcap: float | None = None
    temperature: float = 1.0
    logit_scale: float = 1.0

    @property
    def gain_and_cap(self) -> tuple[float, float]:
        """(g, c) such that z = c · tanh(g · logit); c = 0 stands for z = g · logit."""
        if self.softcap is None:
            return self.logit_scale / self.temperature, 0.0
        return self.logit_scale / self.softcap, self.softcap / self.temperature

    def apply_(self, logits: Float[Tensor, "tokens vocab"]) -> Float[Tensor, "tokens vocab"]:
        """Transform `logits` in place and return them."""
        gain, cap = self.gain_and_cap
        if gain != 1.0:
            logits.mul_(gain)
        return logits.tanh_().mul_(cap) if cap else logits


IDENTITY = LogitTransform()


@dataclass(frozen=True)
class KernelInputs:
    """Checked inputs: exactly one of `logits` and (`hidden`, `head`) is there."""

    targets: Int[Tensor, " tokens"]
    logits: Float[Tensor, "tokens vocab"] | None
    hidden: Float[Tensor, "tokens width"] | None
    head: Float[Tensor, "vocab width"] | None
    bias: Float[Tensor, " vocab"] | None
    transform: LogitTransform
    ignore_index: int
    top_k: int

    @property
    def source(self) -> Tensor:
        """The tensor that gives dtype and device: logits or hidden states."""
        source = self.logits if self.logits is not None else self.hidden
        assert source is not None
        return source

    @property
    def vocab(self) -> int:
        """Number of labels V."""
        if self.logits is not None:
            return self.logits.shape[1]
        assert self.head is not None
        return self.head.shape[0]

    @property
    def accumulator(self) -> torch.dtype:
        """float64 for float64 inputs, float32 for all others."""
        return torch.float64 if self.source.dtype == torch.float64 else torch.float32


def check_inputs(
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
) -> KernelInputs:
    """Check shapes, dtypes, devices and ranges, and return the inputs as one object.

    Raises InputError naming the argument that is wrong.
    """
    _check_source(logits, hidden, head, bias)
    source = logits if logits is not None else hidden
    assert source is not None
    vocab = source.shape[1] if head is None else head.shape[0]
    _check_targets(targets, source, vocab, ignore_index)
    for name, value in (("temperature", temperature), ("softcap", softcap)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise InputError(f"{name} must be a positive finite number, not {value}.")
    if not math.isfinite(logit_scale):
        raise InputError(f"logit_scale must be finite, not {logit_scale}.")
    if not 0 <= top_k <= vocab:
        raise InputError(f"top_k must lie between 0 and the vocabulary size {vocab}, not {top_k}.")
    transform = LogitTransform(softcap, temperature, logit_scale)
    return KernelInputs(targets.long(), logits, hidden, head, bias, transform, ignore_index, top_k)


def _check_source(
    logits: Tensor | None, hidden: Tensor | None, head: Tensor | None, bias: Tensor | None
) -> None:
    if (logits is None) == (hidden is None):
        raise InputError("Give either logits, or hidden together with head, and not both.")
    if (hidden is None) != (head is None):
        raise InputError("hidden and head belong together: give both, or logits alone.")
    if logits is not None and bias is not None:
        raise InputError("bias belongs to head; add it to the logits before passing them.")
    if logits is not None:
        _check_matrix("logits", logits)
        if logits.shape[1] == 0:
            raise InputError("logits has no columns; the vocabulary must hold at least one token.")
        return
    assert hidden is not None
    assert head is not None
    _check_matrix("hidden", hidden)
    _check_matrix("head", head)
    if head.shape[0] == 0:
        raise InputError("head has no rows; the vocabulary must hold at least one token.")
    if hidden.shape[1] != head.shape[1]:
        raise InputError(
            f"hidden is [tokens, {hidden.shape[1]}] but head is [vocab, {head.shape[1]}]; "
            "the widths must agree (head is not transposed)."
        )
    if hidden.dtype != head.dtype:
        raise InputError(f"hidden is {hidden.dtype} but head is {head.dtype}; cast one of them.")
    if hidden.device != head.device:
        raise InputError(f"hidden is on {hidden.device} but head on {head.device}; move one.")
    if bias is not None and bias.shape != head.shape[:1]:
        raise InputError(
            f"bias has shape {list(bias.shape)}, head needs [{head.shape[0]}] (one per token)."
        )
    if bias is not None and (bias.device != head.device or not bias.dtype.is_floating_point):
        raise InputError(
            f"bias is {bias.dtype} on {bias.device}; it must be floating point on {head.device}."
        )


def _check_matrix(name: str, value: Tensor) -> None:
    if value.ndim != 2:
        raise InputError(f"{name} must be a matrix, its shape is {list(value.shape)}; flatten it.")
    if value.dtype not in _DTYPES:
        raise InputError(
            f"{name} is {value.dtype}; use float32, bfloat16, float16 or float64 (checking)."
        )


def _check_targets(targets: Tensor, source: Tensor, vocab: int, ignore_index: int) -> None:
    if targets.ndim != 1 or targets.shape[0] != source.shape[0]:
        raise InputError(
            f"targets has shape {list(targets.shape)}; it must be [{source.shape[0]}], "
            "one token id for each row of the logits or hidden states."
        )
    if targets.dtype not in (torch.int64, torch.int32):
        raise InputError(f"targets is {targets.dtype}; token ids must be int64 or int32.")
    if targets.device != source.device:
        raise InputError(
            f"targets is on {targets.device} but the logits or hidden states are on "
            f"{source.device}; move one."
        )
    outside = ((targets < 0) | (targets >= vocab)) & (targets != ignore_index)
    if bool(outside.any()):
        position = int(outside.nonzero()[0, 0])
        raise InputError(
            f"targets[{position}] is {int(targets[position])}, outside the vocabulary of {vocab}; "
            f"mark positions to skip with ignore_index={ignore_index}."
        )
