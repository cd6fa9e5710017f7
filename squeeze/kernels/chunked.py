"""The tiled log-prob kernel for any device: token × vocabulary tiles folded into running sums.

[T, V] is never written; the extra memory is a few tiles, at most 64 MB whatever T and V. What a
tile is folded with is the caller's choice (`squeeze.kernels.online.Fold`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.kernels.inputs import KernelInputs
from squeeze.kernels.online import Fold, OnlineState, fold_eager
from squeeze.kernels.statistics import TokenStatistics

_HEAD_TILE_BYTES = 16 * 2**20  # the head's tile converted to the accumulation dtype
_MAX_COLUMNS = 4096


def chunked_statistics(inputs: KernelInputs, fold: Fold = fold_eager) -> TokenStatistics:
    """Return the statistics of each row in float32 (float64 for float64 input)."""
    with torch.no_grad():
        kept = (inputs.targets != inputs.ignore_index).nonzero().squeeze(-1)
        n_tokens = inputs.targets.shape[0]
        state = OnlineState.empty(
            kept.shape[0], inputs.top_k, inputs.accumulator, inputs.source.device
        )
        rows = None if kept.shape[0] == n_tokens else kept
        targets = inputs.targets if rows is None else inputs.targets[rows]
        if inputs.logits is not None:
            _fold_logits(inputs, inputs.logits, rows, targets, state, fold)
        else:
            _fold_hidden(inputs, rows, targets, state, fold)
        statistics = state.finish()
        return statistics if rows is None else _scattered(statistics, rows, n_tokens)


def _fold_logits(
    inputs: KernelInputs,
    logits: Float[Tensor, "tokens vocab"],
    rows: Int[Tensor, " kept"] | None,
    targets: Int[Tensor, " kept"],
    state: OnlineState,
    fold: Fold,
) -> None:
    columns = min(inputs.vocab, 4 * _MAX_COLUMNS)
    block = max(1, _tile_elements(logits) // columns)
    for start in range(0, targets.shape[0], block):
        stop = min(start + block, targets.shape[0])
        for first in range(0, inputs.vocab, columns):
            tile = logits[:, first : first + columns]
            tile = tile[start:stop] if rows is None else tile[rows[start:stop]]
            tile = tile.to(inputs.accumulator, copy=True, memory_format=torch.contiguous_format)
            fold(inputs.transform.apply_(tile), targets[start:stop], state.rows(start, stop), first)


def _fold_hidden(
    inputs: KernelInputs,
    rows: Int[Tensor, " kept"] | None,
    targets: Int[Tensor, " kept"],
    state: OnlineState,
    fold: Fold,
) -> None:
    hidden, head = inputs.hidden, inputs.head
    assert hidden is not None
    assert head is not None
    dtype = inputs.accumulator
    per_column = head.shape[1] * dtype.itemsize
    columns = min(inputs.vocab, _MAX_COLUMNS, max(64, _HEAD_TILE_BYTES // max(1, per_column)))
    block = max(1, _tile_elements(hidden) * 8 // columns)
    # The vocabulary outside: the head, the larger operand, is read and converted once.
    for first in range(0, inputs.vocab, columns):
        weight = head[first : first + columns].to(dtype)
        for start in range(0, targets.shape[0], block):
            stop = min(start + block, targets.shape[0])
            states = hidden[start:stop] if rows is None else hidden[rows[start:stop]]
            tile = states.to(dtype) @ weight.T
            if inputs.bias is not None:
                tile += inputs.bias[first : first + columns].to(dtype)
            fold(inputs.transform.apply_(tile), targets[start:stop], state.rows(start, stop), first)


def _tile_elements(source: Tensor) -> int:
    """Elements in a tile: small enough for a core's cache, large enough to feed a GPU."""
    return 2**18 if source.device.type == "cpu" else 2**22


def _scattered(
    statistics: TokenStatistics, rows: Int[Tensor, " kept"], n_tokens: int
) -> TokenStatistics:
    """Spread the kept rows over all positions; ignored ones get 0, or -1 for tokens."""

    def spread(value: Tensor) -> Tensor:
        fill = 0.0 if value.is_floating_point() else -1
        return value.new_full((n_tokens, *value.shape[1:]), fill).index_copy_(0, rows, value)

    values = {
        name: spread(value)
        for name in statistics.__dataclass_fields__
        if (value := getattr(statistics, name)) is not None
    }
    return replace(statistics, **values)
