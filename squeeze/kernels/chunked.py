"""The tiled log-prob kernel: token × vocabulary tiles of logits folded into running sums.

[T, V] is never written; the extra memory is a few tiles, at most 64 MB whatever T and V. What a
tile is folded with is the caller's choice (`squeeze.kernels.online.Fold`): plain torch anywhere,
compiled C on the CPU, Triton on a GPU. The projection of hidden states is torch's own matmul.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.kernels.inputs import KernelInputs, LogitTransform
from squeeze.kernels.online import EagerFold, Fold, OnlineState, Tile, fold_topk
from squeeze.kernels.statistics import TokenStatistics

# The extra memory: on a CPU the converted head tile, the converted hidden block, the logits tile
# and, in the eager fold, two copies of it, 16 + 8 + 3 · 8 = 48 MB; on a GPU, which converts
# nothing but needs larger matrices to fill it, 3 · 16 = 48 MB.
_HEAD_TILE_BYTES = 16 * 2**20
_HIDDEN_BLOCK_BYTES = 8 * 2**20
_PICKED_BYTES = 32 * 2**20
_LOGITS_TILE_BYTES = {"cpu": 8 * 2**20}
_LOGITS_TILE_BYTES_ELSEWHERE = 16 * 2**20
# Whose matmul takes 16-bit operands to float32 logits; elsewhere logits have the operands' dtype.
_WIDENING_DEVICES = {"cuda"}
_COLUMNS = 4096
_EAGER_ELEMENTS = {"cpu": 2**17}  # half a megabyte of float32: stays in a core's cache
_EAGER_ELEMENTS_ELSEWHERE = 2**21


def chunked_statistics(inputs: KernelInputs, fold: Fold | None = None) -> TokenStatistics:
    """Return the statistics of each row in float32 (float64 for float64 input)."""
    fold = EagerFold() if fold is None else fold
    # Autocast would turn the float32 products of float32 inputs into bfloat16 ones.
    with torch.no_grad(), torch.autocast(inputs.source.device.type, enabled=False):
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
    if fold.streams and inputs.top_k == 0:
        fold(Tile(logits, 0, inputs.transform, rows=rows), targets, state)
        return
    elements = _EAGER_ELEMENTS.get(logits.device.type, _EAGER_ELEMENTS_ELSEWHERE)
    columns = min(inputs.vocab, 4 * _COLUMNS)
    block = max(1, elements // columns)
    for start in range(0, targets.shape[0], block):
        stop = min(start + block, targets.shape[0])
        source = logits[start:stop] if rows is None else logits
        picked = None if rows is None else rows[start:stop]
        for first in range(0, inputs.vocab, columns):
            tile = Tile(source[:, first : first + columns], first, inputs.transform, rows=picked)
            _fold_tile(inputs, tile, targets[start:stop], state.rows(start, stop), fold)


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
    if isinstance(fold, HiddenFold) and inputs.top_k == 0 and fold.takes(hidden, head):
        # Rows are picked in blocks: a copy of all of them is not bounded.
        block = targets.shape[0] if rows is None else _PICKED_BYTES // hidden[0].nbytes
        for start in range(0, targets.shape[0], max(1, block)):
            stop = min(start + block, targets.shape[0])
            states = hidden if rows is None else hidden[rows[start:stop]]
            chosen = targets[start:stop], state.rows(start, stop)
            fold.fold_hidden(states, head, inputs.bias, inputs.transform, *chosen)
        return
    projection = Projection(hidden, head, targets.shape[0], training=False)
    # The vocabulary outside: the head, the larger operand, is read and converted once.
    for first in range(0, inputs.vocab, projection.columns):
        weight = projection.convert_head(head[first : first + projection.columns])
        bias = None if inputs.bias is None else inputs.bias[first : first + projection.columns]
        for start in range(0, targets.shape[0], projection.block):
            stop = min(start + projection.block, targets.shape[0])
            states = hidden[start:stop] if rows is None else hidden[rows[start:stop]]
            tile_logits = projection.project(projection.convert_hidden(states), weight)
            tile = Tile(tile_logits, first, inputs.transform, bias)
            _fold_tile(inputs, tile, targets[start:stop], state.rows(start, stop), fold)


def _fold_tile(
    inputs: KernelInputs,
    tile: Tile,
    targets: Int[Tensor, " block"],
    state: OnlineState,
    fold: Fold,
) -> None:
    if inputs.top_k:
        tile = tile.prepared(inputs.accumulator)
        fold_topk(tile, state)
    fold(tile, targets, state)


@runtime_checkable
class HiddenFold(Protocol):
    """A fold that can also make the logits of hidden states itself, where it `takes` them."""

    def takes(self, hidden: Tensor, head: Tensor) -> bool: ...

    def fold_hidden(
        self,
        hidden: Float[Tensor, "tokens width"],
        head: Float[Tensor, "vocab width"],
        bias: Float[Tensor, " vocab"] | None,
        transform: LogitTransform,
        targets: Int[Tensor, " tokens"],
        state: OnlineState,
    ) -> None: ...

    def logits_gradient(
        self,
        hidden: Float[Tensor, "tokens width"],
        head: Float[Tensor, "columns width"],
        bias: Float[Tensor, " columns"] | None,
        transform: LogitTransform,
        targets: Int[Tensor, " tokens"],
        logsumexp: Float[Tensor, " tokens"],
        grad_logps: Float[Tensor, " tokens"],
    ) -> Float[Tensor, "tokens columns"]: ...


class Projection:
    """Tiles of hidden @ head.T in reused buffers, their sizes, and the dtype they are made in.

    bfloat16 and float16 products are exact in float32, and float32 is what they are summed in and
    come out as: on a CPU the operands are converted, also where it multiplies bfloat16 in hardware,
    whose matmul would round the logits to bfloat16 (relative 2⁻⁸).
    """

    def __init__(
        self,
        hidden: Float[Tensor, "tokens width"],
        head: Float[Tensor, "vocab width"],
        kept: int,
        *,
        training: bool,
    ) -> None:
        exact = hidden.device.type in _WIDENING_DEVICES
        self.accumulator = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.dtype = hidden.dtype if exact else self.accumulator
        self.widens = exact and self.dtype != self.accumulator
        converts = self.dtype != hidden.dtype
        row_bytes = max(1, hidden.shape[1]) * self.accumulator.itemsize
        tile_bytes = _LOGITS_TILE_BYTES.get(hidden.device.type, _LOGITS_TILE_BYTES_ELSEWHERE)
        elements = tile_bytes // self.accumulator.itemsize
        # Few tokens take wide tiles: fewer, larger matmuls. Where a tile of the head is converted,
        # or its gradient made, that has to fit too.
        columns = max(_COLUMNS, elements // max(1, kept))
        by_head = max(64, _HEAD_TILE_BYTES // row_bytes) if converts or training else columns
        self.columns = min(head.shape[0], columns, by_head)
        by_hidden = max(64, _HIDDEN_BLOCK_BYTES // row_bytes) if converts else kept
        self.block = max(1, min(kept, elements // self.columns, by_hidden))
        logits_dtype = self.accumulator if self.widens else self.dtype
        self._logits = hidden.new_empty(self.block * self.columns, dtype=logits_dtype)
        width = hidden.shape[1] if converts else 0
        self._head = head.new_empty((self.columns, width), dtype=self.dtype)
        self._hidden = hidden.new_empty((self.block, width), dtype=self.dtype)

    def convert_head(self, tile: Float[Tensor, "columns width"]) -> Float[Tensor, "columns width"]:
        """Return the head's rows in the dtype of the matmul."""
        if tile.dtype == self.dtype:
            return tile
        return self._head[: tile.shape[0]].copy_(tile)

    def convert_hidden(self, states: Float[Tensor, "block width"]) -> Float[Tensor, "block width"]:
        """Return hidden states in the dtype of the matmul, valid until the next call."""
        if states.dtype == self.dtype:
            return states
        return self._hidden[: states.shape[0]].copy_(states)

    def project(
        self, states: Float[Tensor, "block width"], weight: Float[Tensor, "columns width"]
    ) -> Float[Tensor, "block columns"]:
        """Return states @ weight.T for converted operands, valid until the next call."""
        n_rows, n_columns = states.shape[0], weight.shape[0]
        out = self._logits[: n_rows * n_columns].view(n_rows, n_columns)
        if self.widens:
            return _widening_mm(states, weight.T, out)
        return torch.mm(states, weight.T, out=out)

    def copy(
        self, logits: Float[Tensor, "tokens vocab"], rows: Int[Tensor, " block"], span: slice
    ) -> Float[Tensor, "block columns"]:
        """Return a tile of `logits` that exist already, valid until the next call."""
        tile = logits[:, span]
        out = self._logits[: rows.shape[0] * tile.shape[1]].view(rows.shape[0], tile.shape[1])
        if rows.shape[0] == logits.shape[0]:
            return out.copy_(tile)
        return torch.index_select(tile, 0, rows, out=out)

    def multiply(
        self, left: Float[Tensor, "rows inner"], right: Float[Tensor, "inner columns"]
    ) -> Float[Tensor, "rows columns"]:
        """Return left @ right for converted operands, in the accumulation dtype."""
        if self.widens:
            shape = (left.shape[0], right.shape[1])
            return _widening_mm(left, right, left.new_empty(shape, dtype=self.accumulator))
        return torch.mm(left, right).to(self.accumulator)


def _widening_mm(
    left: Float[Tensor, "rows inner"],
    right: Float[Tensor, "inner columns"],
    out: Float[Tensor, "rows columns"],
) -> Float[Tensor, "rows columns"]:
    """left @ right for 16-bit operands, in the float32 in which it is summed."""
    return torch.mm(left, right, out_dtype=out.dtype, out=out)


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
