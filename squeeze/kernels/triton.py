"""The GPU fold: a Triton kernel that reads each logit once and keeps the running sums in registers.

Used on logits as they lie, and on the tiles that cuBLAS makes from hidden states. Correct under
TRITON_INTERPRET=1 on the CPU, where the tests run it; import only where triton is installed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.kernels.online import OnlineState, Tile

# 16 logits a thread; small blocks, so that the registers of triton 3.6 (143) leave room for three.
_BLOCK = 2048
_N_WARPS = 4
# Few rows leave a GPU idle, so their columns are shared out until about this many programs run.
_WANTED_PROGRAMS = 512
_VECTOR_BYTES = 16  # what one thread loads at once, from an address that is a multiple of it
# Constants of the kernels; the floor is online.EXPONENT_FLOOR, which a test holds.
EXPONENT_FLOOR = tl.constexpr(-1000.0)
LOG2E = tl.constexpr(1.4426950408889634)
NO_COLUMN = tl.constexpr(2**31 - 1)


def kernel(plain: Iterable[str], unaligned: Iterable[str] = ()) -> Callable[..., Any]:
    """triton.jit without a compilation for each value of `plain` or alignment of `unaligned`.

    It takes the function itself, not the shape check that a test run wraps it in.
    """
    options = {
        "do_not_specialize": list(plain),
        "do_not_specialize_on_alignment": list(unaligned),
    }
    return lambda function: triton.jit(inspect.unwrap(function), **options)


class TritonFold:
    """Fold a tile of float32, bfloat16 or float16 logits in one read, in float32."""

    streams = True

    def __call__(self, tile: Tile, targets: Int[Tensor, " tokens"], state: OnlineState) -> None:
        """Fold `tile` into `state` in place; see `squeeze.kernels.online.Fold`."""
        n_rows, n_columns = targets.shape[0], tile.values.shape[1]
        if n_rows == 0:
            return
        # Named, so that the copies live until the kernels are launched.
        targets = targets.contiguous()
        rows = targets if tile.rows is None else tile.rows.contiguous()
        bias = state.maximum if tile.bias is None else tile.bias.float().contiguous()
        gain, cap = tile.transform.gain_and_cap
        base, origin, vector = _aligned(tile.values)
        # A row that does not start at a multiple of a vector starts within the first block.
        n_blocks = triton.cdiv(n_columns + vector - 1, _BLOCK)
        wanted = min(n_blocks, triton.cdiv(_WANTED_PROGRAMS, n_rows))
        blocks_per_split = triton.cdiv(n_blocks, wanted)
        partial = PartialSums(n_rows, triton.cdiv(n_blocks, blocks_per_split), targets.device)
        # Kernels are launched on the current device, which need not be the tensors'.
        with torch.cuda.device_of(tile.values):
            _partial_sums[(n_rows, partial.n_splits)](
                base,
                origin,
                tile.values.stride(0),
                tile.values.stride(1) if n_columns > 1 else 1,
                rows,
                bias,
                gain,
                cap,
                targets,
                tile.first_column,
                n_columns,
                n_rows,
                blocks_per_split,
                partial.floats,
                partial.tokens,
                state.target_logit,
                HAS_ROWS=tile.rows is not None,
                HAS_BIAS=tile.bias is not None,
                TRANSFORM=transform_kind(gain, cap),
                VECTOR=vector,
                BLOCK=_BLOCK,
                num_warps=_N_WARPS,
                # The fused multiply-adds are written out, the other roundings are wanted.
                enable_fp_fusion=False,
            )
            partial.merge_into(state)


class PartialSums:
    """The running sums of each row over each split of its columns, until they are merged."""

    def __init__(self, n_rows: int, n_splits: int, device: torch.device) -> None:
        self.n_rows, self.n_splits = n_rows, n_splits
        self.floats: Float[Tensor, "sums splits rows"] = torch.empty(
            (4, n_splits, n_rows), dtype=torch.float32, device=device
        )
        self.tokens: Int[Tensor, "splits rows"] = torch.empty(
            (n_splits, n_rows), dtype=torch.int64, device=device
        )

    def merge_into(self, state: OnlineState) -> None:
        """Fold the splits' sums into `state` in place; the caller has chosen the device."""
        _merge_sums[(triton.cdiv(self.n_rows, 128),)](
            self.floats,
            self.tokens,
            state.maximum,
            state.argmax_token,
            state.sum_exp,
            state.sum_shifted_exp,
            state.sum_square_exp,
            self.n_rows,
            self.n_splits,
            ROWS=128,
            num_warps=4,
        )


def transform_kind(gain: float, cap: float) -> int:
    """0 for logits as they are, 1 for gain · z, 2 for cap · tanh(gain · z)."""
    return 2 if cap else int(gain != 1.0)


def _aligned(values: Float[Tensor, "rows columns"]) -> tuple[Tensor, int, int]:
    """Return a tensor that starts on a vector's boundary at or before `values`.

    With it come the number of elements from there to `values`, and the elements of a vector: 1
    where columns do not lie side by side, or memory that is not torch's own is not aligned.
    """
    vector = _VECTOR_BYTES // values.itemsize
    origin = int(values.storage_offset()) % vector
    base = values.as_strided((1,), (1,), values.storage_offset() - origin)
    if values.stride(1) == 1 and base.data_ptr() % _VECTOR_BYTES == 0:
        return base, origin, vector
    return values, 0, 1


@kernel(plain=())
def decay(maximum, shift):  # type: ignore[no-untyped-def]
    """(d, e^d) for d = maximum − shift, and (0, 0) while the maximum is still −inf."""
    seen = maximum > -float("inf")
    exponent = tl.where(seen, maximum - shift, 0.0)
    return exponent, tl.where(seen, tl.exp2(exponent * LOG2E), 0.0)


@kernel(plain=())
def shifted_exp(z, shift):  # type: ignore[no-untyped-def]
    """(x, e^x) for x = z − shift, floored so that (−inf) · 0 never appears; NaN stays NaN."""
    x = tl.maximum(z - shift, EXPONENT_FLOOR, propagate_nan=tl.PropagateNan.ALL)
    return x, tl.exp2(x * LOG2E)


@kernel(plain=())
def transformed(z, gain, cap, TRANSFORM: tl.constexpr):  # type: ignore[no-untyped-def]
    """Apply `transform_kind`'s transform."""
    if TRANSFORM >= 1:
        z *= gain
    if TRANSFORM == 2:
        t = tl.exp2(tl.abs(z) * (-2.0 * LOG2E))
        capped = cap * (1.0 - t) / (1.0 + t)
        z = tl.where(z < 0.0, -capped, capped)
    return z


@kernel(plain=())
def _block(  # type: ignore[no-untyped-def]
    start,
    lead,
    column_stride,
    block,
    bias,
    gain,
    cap,
    n_columns,
    HAS_BIAS: tl.constexpr,
    TRANSFORM: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """(columns, finished logits) of a block; −inf outside the row.

    `start` lies `lead` elements before the row, on a vector's boundary. Whole vectors are loaded,
    also where the row ends within one: that vector holds a logit, so its memory is there to read.
    """
    position = block * BLOCK + tl.arange(0, BLOCK)
    columns = position - lead
    stop = lead + n_columns
    pointers = start + position.to(tl.int64) * column_stride
    # Whole vectors have one mask: loads stay wide.
    loaded = position // VECTOR * VECTOR < stop
    z = tl.load(pointers, mask=loaded, other=-float("inf")).to(tl.float32)
    if HAS_BIAS:
        inside = (columns >= 0) & (columns < n_columns)
        z += tl.load(bias + columns, mask=inside, other=0.0)
    z = transformed(z, gain, cap, TRANSFORM)
    if (block == 0) | ((block + 1) * BLOCK > stop):
        z = tl.where((columns >= 0) & (columns < n_columns), z, -float("inf"))
    return columns, z


@kernel(
    plain=(
        *("origin", "row_stride", "gain", "cap", "first_column", "n_columns", "n_rows"),
        "blocks_per_split",
    ),
    unaligned=("rows", "bias", "targets", "floats", "tokens", "target_out"),
)
def _partial_sums(  # type: ignore[no-untyped-def]
    values,
    origin,
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
    blocks_per_split,
    floats,
    tokens,
    target_out,
    HAS_ROWS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    TRANSFORM: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum one row over one split of its columns; every lane keeps its own sums until the end.

    The sums are rescaled only when a block raises the row's maximum, seldom after the first few.
    """
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    source = tl.load(rows + row) if HAS_ROWS else row
    # 64 bits: T·V exceeds 2³¹. In whole vectors, so that the compiler sees the alignment.
    element = origin + source * row_stride
    lead = (element % VECTOR).to(tl.int32)
    start = values + element // VECTOR * VECTOR
    maximum = -float("inf")
    best_block = split * blocks_per_split
    total = tl.zeros([BLOCK], tl.float32)
    shifted = tl.zeros([BLOCK], tl.float32)
    square = tl.zeros([BLOCK], tl.float32)
    for block in range(split * blocks_per_split, (split + 1) * blocks_per_split):
        _, z = _block(
            *(start, lead, column_stride, block, bias, gain, cap, n_columns),
            *(HAS_BIAS, TRANSFORM, VECTOR, BLOCK),
        )
        block_maximum = tl.max(z, 0)
        if block_maximum > maximum:
            exponent, factor = decay(maximum, block_maximum)
            shifted = (shifted + exponent * total) * factor
            total = total * factor
            square = square * (factor * factor)
            maximum = block_maximum
            best_block = block
        # While the row has shown only −inf, shift by 0: the sums stay 0 instead of turning NaN.
        x, e = shifted_exp(z, tl.where(maximum > -float("inf"), maximum, 0.0))
        total += e
        shifted = tl.fma(x, e, shifted)
        square = tl.fma(e, e, square)
    # The argmax, from the block that was the last to raise the maximum; in a row of NaN, column 0.
    columns, z = _block(
        *(start, lead, column_stride, best_block, bias, gain, cap, n_columns),
        *(HAS_BIAS, TRANSFORM, VECTOR, BLOCK),
    )
    highest = (z == tl.max(z, 0)) & (columns >= 0) & (columns < n_columns)
    column = tl.min(tl.where(highest, columns, NO_COLUMN), 0)
    column = tl.where(column == NO_COLUMN, 0, column)
    size = tl.cast(n_rows, tl.int64) * tl.num_programs(1)
    cell = split * n_rows + row
    tl.store(floats + cell, maximum)
    tl.store(floats + size + cell, tl.sum(total, 0))
    tl.store(floats + 2 * size + cell, tl.sum(shifted, 0))
    tl.store(floats + 3 * size + cell, tl.sum(square, 0))
    tl.store(tokens + cell, column.to(tl.int64) + first_column)
    # One program of the row picks up the target's logit, if it lies in this tile.
    target = tl.load(targets + row) - first_column
    found = (split == 0) & (target >= 0) & (target < n_columns)
    logit = tl.load(start + (lead + target) * column_stride, mask=found, other=0.0).to(tl.float32)
    if HAS_BIAS:
        logit += tl.load(bias + target, mask=found, other=0.0)
    tl.store(target_out + row, transformed(logit, gain, cap, TRANSFORM), mask=found)


@kernel(
    plain=("n_rows", "n_splits"),
    unaligned=(
        *("floats", "tokens", "maximum_out", "argmax_out", "total_out", "shifted_out"),
        "square_out",
    ),
)
def _merge_sums(  # type: ignore[no-untyped-def]
    floats,
    tokens,
    maximum_out,
    argmax_out,
    total_out,
    shifted_out,
    square_out,
    n_rows,
    n_splits,
    ROWS: tl.constexpr,
):
    """Fold the splits' sums into the state, one lane a row."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < n_rows
    size = tl.cast(n_rows, tl.int64) * n_splits
    maximum = tl.load(maximum_out + rows, mask=inside, other=0.0)
    argmax = tl.load(argmax_out + rows, mask=inside, other=0)
    total = tl.load(total_out + rows, mask=inside, other=0.0)
    shifted = tl.load(shifted_out + rows, mask=inside, other=0.0)
    square = tl.load(square_out + rows, mask=inside, other=0.0)
    for split in range(0, n_splits):
        cell = tl.cast(n_rows, tl.int64) * split + rows
        other = tl.load(floats + cell, mask=inside, other=0.0)
        other_total = tl.load(floats + size + cell, mask=inside, other=0.0)
        other_shifted = tl.load(floats + 2 * size + cell, mask=inside, other=0.0)
        other_square = tl.load(floats + 3 * size + cell, mask=inside, other=0.0)
        other_argmax = tl.load(tokens + cell, mask=inside, other=0)
        argmax = tl.where(other > maximum, other_argmax, argmax)
        new_maximum = tl.maximum(maximum, other)
        shift = tl.where(new_maximum > -float("inf"), new_maximum, 0.0)
        exponent, factor = decay(maximum, shift)
        other_exponent, other_factor = decay(other, shift)
        shifted = (shifted + exponent * total) * factor
        shifted += (other_shifted + other_exponent * other_total) * other_factor
        total = total * factor + other_total * other_factor
        square = square * factor * factor + other_square * other_factor * other_factor
        maximum = new_maximum
    tl.store(maximum_out + rows, maximum, mask=inside)
    tl.store(argmax_out + rows, argmax, mask=inside)
    tl.store(total_out + rows, total, mask=inside)
    tl.store(shifted_out + rows, shifted, mask=inside)
    tl.store(square_out + rows, square, mask=inside)
