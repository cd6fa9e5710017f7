"""The GPU fold: a Triton kernel that reads each logit once and keeps the running sums in registers.

Used on logits as they lie, and on the tiles that cuBLAS makes from hidden states. Correct under
TRITON_INTERPRET=1 on the CPU, where the tests run it; import only where triton is installed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from squeeze.kernels.online import EXPONENT_FLOOR, OnlineState, Tile

_BLOCK = 4096
_N_WARPS = 8
# Few rows leave a GPU idle, so their columns are shared out until about this many programs run.
_WANTED_PROGRAMS = 512


def _kernel(function: Callable[..., Any]) -> Any:
    """triton.jit of the function itself, not of the shape check that a test run wraps it in."""
    return triton.jit(inspect.unwrap(function))


class TritonFold:
    """Fold a tile of float32, bfloat16 or float16 logits in one read, in float32."""

    streams = True

    def __call__(self, tile: Tile, targets: Int[Tensor, " tokens"], state: OnlineState) -> None:
        """Fold `tile` into `state` in place; see `squeeze.kernels.online.Fold`."""
        n_rows, n_columns = targets.shape[0], tile.values.shape[1]
        if n_rows == 0:
            return
        n_blocks = triton.cdiv(n_columns, _BLOCK)
        n_splits = min(n_blocks, triton.cdiv(_WANTED_PROGRAMS, n_rows))
        blocks_per_split = triton.cdiv(n_blocks, n_splits)
        n_splits = triton.cdiv(n_blocks, blocks_per_split)
        floats = torch.empty((5, n_splits, n_rows), dtype=torch.float32, device=targets.device)
        tokens = torch.empty((n_splits, n_rows), dtype=torch.int64, device=targets.device)
        gain, cap = tile.transform.gain_and_cap
        _partial_sums[(n_rows, n_splits)](
            tile.values,
            tile.values.stride(0),
            tile.values.stride(1),
            tile.rows if tile.rows is not None else targets,
            tile.bias if tile.bias is not None else tile.values,
            gain,
            cap,
            targets,
            tile.first_column,
            n_columns,
            n_rows,
            n_splits,
            blocks_per_split,
            floats,
            tokens,
            HAS_ROWS=tile.rows is not None,
            HAS_BIAS=tile.bias is not None,
            HAS_GAIN=gain != 1.0,
            HAS_CAP=cap != 0.0,
            EXPONENT_FLOOR=EXPONENT_FLOOR,
            BLOCK=_BLOCK,
            num_warps=_N_WARPS,
        )
        _merge_sums[(triton.cdiv(n_rows, 128),)](
            floats,
            tokens,
            state.maximum,
            state.argmax_token,
            state.sum_exp,
            state.sum_shifted_exp,
            state.sum_square_exp,
            state.target_logit,
            n_rows,
            n_splits,
            ROWS=128,
            num_warps=4,
        )


@_kernel
def _decay(maximum, shift):  # type: ignore[no-untyped-def]
    """(d, e^d) for d = maximum − shift, and (0, 0) while the maximum is still −inf."""
    seen = maximum > -float("inf")
    exponent = tl.where(seen, maximum - shift, 0.0)
    return exponent, tl.where(seen, tl.exp(exponent), 0.0)


@_kernel
def _partial_sums(  # type: ignore[no-untyped-def]
    values,
    row_stride,
    column_stride,
    rows,
    bias,
    gain,
    cap,
    targets,
    first_column,
    n_columns,
    n_rows,
    n_splits,
    blocks_per_split,
    floats,
    tokens,
    HAS_ROWS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_GAIN: tl.constexpr,
    HAS_CAP: tl.constexpr,
    EXPONENT_FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum one row over one split of its columns; every lane keeps its own sums until the end."""
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    source = tl.load(rows + row) if HAS_ROWS else row
    lanes = tl.arange(0, BLOCK)
    maximum = -float("inf")
    total = tl.zeros([BLOCK], tl.float32)
    shifted = tl.zeros([BLOCK], tl.float32)
    square = tl.zeros([BLOCK], tl.float32)
    best = tl.full([BLOCK], -float("inf"), tl.float32)
    best_column = tl.zeros([BLOCK], tl.int32)
    target = tl.load(targets + row) - first_column
    target_logit = -float("inf")
    for block in range(split * blocks_per_split, (split + 1) * blocks_per_split):
        columns = block * BLOCK + lanes
        inside = columns < n_columns
        pointers = values + source * row_stride + columns.to(tl.int64) * column_stride
        z = tl.load(pointers, mask=inside, other=-float("inf")).to(tl.float32)
        if HAS_BIAS:
            z += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
        if HAS_GAIN:
            z *= gain
        if HAS_CAP:
            t = tl.exp(-2.0 * tl.abs(z))
            capped = cap * (1.0 - t) / (1.0 + t)
            z = tl.where(z < 0.0, -capped, capped)
        if HAS_GAIN or HAS_CAP:
            z = tl.where(inside, z, -float("inf"))
        best_column = tl.where(z > best, columns, best_column)
        best = tl.maximum(best, z)
        target_logit = tl.maximum(
            target_logit, tl.max(tl.where(columns == target, z, -float("inf")), 0)
        )
        new_maximum = tl.maximum(maximum, tl.max(z, 0))
        shift = tl.where(new_maximum > -float("inf"), new_maximum, 0.0)
        exponent, decay = _decay(maximum, shift)
        x = z - shift
        x = tl.where(x < EXPONENT_FLOOR, EXPONENT_FLOOR, x)  # keeps NaN, which a maximum may drop
        e = tl.exp(x)
        shifted = (shifted + exponent * total) * decay + x * e
        total = total * decay + e
        square = square * (decay * decay) + e * e
        maximum = new_maximum
    row_best = tl.max(best, 0)
    column = tl.max(tl.where(best == row_best, best_column, -1), 0)
    size = n_splits * n_rows
    cell = split * n_rows + row
    tl.store(floats + cell, row_best)
    tl.store(floats + size + cell, tl.sum(total, 0))
    tl.store(floats + 2 * size + cell, tl.sum(shifted, 0))
    tl.store(floats + 3 * size + cell, tl.sum(square, 0))
    tl.store(floats + 4 * size + cell, target_logit)
    tl.store(tokens + cell, column.to(tl.int64) + first_column)


@_kernel
def _merge_sums(  # type: ignore[no-untyped-def]
    floats,
    tokens,
    maximum_out,
    argmax_out,
    total_out,
    shifted_out,
    square_out,
    target_out,
    n_rows,
    n_splits,
    ROWS: tl.constexpr,
):
    """Fold the splits' sums into the state, one lane a row."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < n_rows
    size = n_splits * n_rows
    maximum = tl.load(maximum_out + rows, mask=inside, other=0.0)
    argmax = tl.load(argmax_out + rows, mask=inside, other=0)
    total = tl.load(total_out + rows, mask=inside, other=0.0)
    shifted = tl.load(shifted_out + rows, mask=inside, other=0.0)
    square = tl.load(square_out + rows, mask=inside, other=0.0)
    target_logit = tl.load(target_out + rows, mask=inside, other=0.0)
    for split in range(0, n_splits):
        cell = split * n_rows + rows
        other = tl.load(floats + cell, mask=inside, other=0.0)
        other_total = tl.load(floats + size + cell, mask=inside, other=0.0)
        other_shifted = tl.load(floats + 2 * size + cell, mask=inside, other=0.0)
        other_square = tl.load(floats + 3 * size + cell, mask=inside, other=0.0)
        other_target = tl.load(floats + 4 * size + cell, mask=inside, other=0.0)
        other_argmax = tl.load(tokens + cell, mask=inside, other=0)
        argmax = tl.where(other > maximum, other_argmax, argmax)
        new_maximum = tl.maximum(maximum, other)
        shift = tl.where(new_maximum > -float("inf"), new_maximum, 0.0)
        exponent, decay = _decay(maximum, shift)
        other_exponent, other_decay = _decay(other, shift)
        shifted = (shifted + exponent * total) * decay
        shifted += (other_shifted + other_exponent * other_total) * other_decay
        total = total * decay + other_total * other_decay
        square = square * decay * decay + other_square * other_decay * other_decay
        target_logit = tl.maximum(target_logit, other_target)
        maximum = new_maximum
    tl.store(maximum_out + rows, maximum, mask=inside)
    tl.store(argmax_out + rows, argmax, mask=inside)
    tl.store(total_out + rows, total, mask=inside)
    tl.store(shifted_out + rows, shifted, mask=inside)
    tl.store(square_out + rows, square, mask=inside)
    tl.store(target_out + rows, target_logit, mask=inside)
