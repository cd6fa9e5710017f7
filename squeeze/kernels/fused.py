"""The fused GPU kernels: logits made tile by tile on tensor cores and used up where they arise.

Forward, a tile of hidden @ head.T is folded into its rows' running sums in the matmul's epilogue;
backward, it is made again and leaves as the 16-bit gradient of the logits, the operand of the two
matmuls that follow. Never run on a GPU so far: `dispatch` keeps cuBLAS tiles and the Triton fold
unless asked. Import only where triton is installed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from squeeze.kernels.inputs import LogitTransform
from squeeze.kernels.online import OnlineState
from squeeze.kernels.triton import (
    LOG2E,
    NO_COLUMN,
    PartialSums,
    TritonFold,
    decay,
    kernel,
    shifted_exp,
    transform_kind,
    transformed,
)

# 128 tokens × 256 labels, half in each warpgroup's registers; 64 of the width at a time. Triton
# compiles it for sm_90 without a spill, with 254 registers: one program fills a multiprocessor.
_ROWS, _COLUMNS = 128, 256
_FORM = {
    "ROWS": _ROWS,
    "COLUMNS": _COLUMNS,
    "WIDTH": 64,
    # Triton's interpreter cannot multiply bfloat16; in float32 the products are the same.
    "WIDENS": triton.knobs.runtime.interpret,
    "num_warps": 8,
    "num_stages": 3,
    "enable_fp_fusion": False,
}


class FusedFold(TritonFold):
    """The Triton fold, and for 16-bit hidden states a matmul that folds its own tiles."""

    def takes(self, hidden: Tensor, head: Tensor) -> bool:
        """Whether the fused kernels can read these: 16-bit rows at multiples of 16 bytes."""
        return all(
            one.dtype in (torch.bfloat16, torch.float16)
            and one.stride(1) == 1
            and one.shape[1] > 0
            and (one.stride(0) * one.itemsize) % 16 == 0
            and one.data_ptr() % 16 == 0
            for one in (hidden, head)
        )

    def fold_hidden(
        self,
        hidden: Float[Tensor, "tokens width"],
        head: Float[Tensor, "vocab width"],
        bias: Float[Tensor, " vocab"] | None,
        transform: LogitTransform,
        targets: Int[Tensor, " tokens"],
        state: OnlineState,
    ) -> None:
        """Fold all of hidden @ head.T into `state` in place, without writing a logit."""
        n_rows, n_columns = hidden.shape[0], head.shape[0]
        if n_rows == 0:
            return
        targets = targets.contiguous()
        biases = state.maximum if bias is None else bias.float().contiguous()
        gain, cap = transform.gain_and_cap
        n_row_blocks, n_tiles = triton.cdiv(n_rows, _ROWS), triton.cdiv(n_columns, _COLUMNS)
        n_programs = _n_processors(hidden.device)
        # Where there are few rows, the vocabulary is split until every processor has work.
        wanted = min(n_tiles, triton.cdiv(n_programs, n_row_blocks))
        tiles_per_split = triton.cdiv(n_tiles, wanted)
        partial = PartialSums(n_rows, triton.cdiv(n_tiles, tiles_per_split), hidden.device)
        with torch.cuda.device_of(hidden):
            _fused_sums[(min(n_programs, n_row_blocks * partial.n_splits),)](
                TensorDescriptor.from_tensor(hidden, [_ROWS, _FORM["WIDTH"]]),
                TensorDescriptor.from_tensor(head, [_COLUMNS, _FORM["WIDTH"]]),
                biases,
                gain,
                cap,
                targets,
                n_rows,
                n_columns,
                hidden.shape[1],
                n_row_blocks,
                partial.n_splits,
                tiles_per_split,
                partial.floats,
                partial.tokens,
                state.target_logit,
                HAS_BIAS=bias is not None,
                TRANSFORM=transform_kind(gain, cap),
                **_FORM,
            )
            partial.merge_into(state)

    def logits_gradient(
        self,
        hidden: Float[Tensor, "tokens width"],
        head: Float[Tensor, "columns width"],
        bias: Float[Tensor, " columns"] | None,
        transform: LogitTransform,
        targets: Int[Tensor, " tokens"],
        logsumexp: Float[Tensor, " tokens"],
        grad_logps: Float[Tensor, " tokens"],
    ) -> Float[Tensor, "tokens columns"]:
        """Return grad · ∂log π(target)/∂logit in the operands' dtype, from logits made again.

        `targets` count from the head's first row; those outside it only contribute −π.
        """
        n_rows, n_columns = hidden.shape[0], head.shape[0]
        out = hidden.new_empty((n_rows, n_columns))
        if n_rows == 0:
            return out
        gain, cap = transform.gain_and_cap
        with torch.cuda.device_of(hidden):
            _fused_gradient[(triton.cdiv(n_rows, _ROWS) * triton.cdiv(n_columns, _COLUMNS),)](
                TensorDescriptor.from_tensor(hidden, [_ROWS, _FORM["WIDTH"]]),
                TensorDescriptor.from_tensor(head, [_COLUMNS, _FORM["WIDTH"]]),
                logsumexp if bias is None else bias.float().contiguous(),
                gain,
                cap,
                targets.contiguous(),
                logsumexp.contiguous(),
                grad_logps.float().contiguous(),
                n_rows,
                n_columns,
                hidden.shape[1],
                triton.cdiv(n_rows, _ROWS),
                out,
                HAS_BIAS=bias is not None,
                TRANSFORM=transform_kind(gain, cap),
                **_FORM,
            )
        return out


def _n_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1  # Triton's interpreter
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@kernel(plain=())
def _raw_logits(  # type: ignore[no-untyped-def]
    hidden,
    head,
    row,
    column,
    width,
    bias,
    n_columns,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDENS: tl.constexpr,
):
    """A tile of hidden @ head.T + bias in float32; what lies outside either reads as 0."""
    logits = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, width, WIDTH):
        states = hidden.load([row, start])
        weights = head.load([column, start])
        if WIDENS:
            states, weights = states.to(tl.float32), weights.to(tl.float32)
        logits = tl.dot(states, weights.T, logits)
    if HAS_BIAS:
        columns = column + tl.arange(0, COLUMNS)
        logits += tl.load(bias + columns, mask=columns < n_columns, other=0.0)[None, :]
    return logits


@kernel(
    plain=(
        *("gain", "cap", "n_rows", "n_columns", "width", "n_row_blocks", "n_splits"),
        "tiles_per_split",
    ),
    unaligned=("bias", "targets", "floats", "tokens", "target_out"),
)
def _fused_sums(  # type: ignore[no-untyped-def]
    hidden,
    head,
    bias,
    gain,
    cap,
    targets,
    n_rows,
    n_columns,
    width,
    n_row_blocks,
    n_splits,
    tiles_per_split,
    floats,
    tokens,
    target_out,
    HAS_BIAS: tl.constexpr,
    TRANSFORM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDENS: tl.constexpr,
):
    """Sum blocks of rows over splits of the vocabulary, one item of work after the other.

    Row blocks run fastest, so that programs that run at once read the same tiles of the head.
    """
    size = tl.cast(n_rows, tl.int64) * n_splits
    for item in range(tl.program_id(0), n_row_blocks * n_splits, tl.num_programs(0)):
        row = item % n_row_blocks * ROWS
        split = item // n_row_blocks
        rows = row + tl.arange(0, ROWS)
        present = rows < n_rows
        target = tl.load(targets + rows, mask=present, other=-1)
        maximum = tl.full([ROWS], -float("inf"), tl.float32)
        argmax = tl.zeros([ROWS], tl.int32)
        total = tl.zeros([ROWS], tl.float32)
        shifted = tl.zeros([ROWS], tl.float32)
        square = tl.zeros([ROWS], tl.float32)
        first = split * tiles_per_split * COLUMNS
        last = tl.minimum(first + tiles_per_split * COLUMNS, n_columns)
        for column in range(first, last, COLUMNS):
            z = _raw_logits(
                *(hidden, head, row, column, width, bias, n_columns),
                *(HAS_BIAS, ROWS, COLUMNS, WIDTH, WIDENS),
            )
            z = transformed(z, gain, cap, TRANSFORM)
            columns = column + tl.arange(0, COLUMNS)
            if column + COLUMNS > n_columns:
                z = tl.where((columns < n_columns)[None, :], z, -float("inf"))
            local = target - column
            if tl.max(((local >= 0) & (local < COLUMNS)).to(tl.int32), 0) > 0:
                found = columns[None, :] == target[:, None]
                logit = tl.sum(tl.where(found, z, 0.0), 1)
                here = (local >= 0) & (local < COLUMNS) & present
                tl.store(target_out + rows, logit, mask=here)
            highest = tl.max(z, 1)
            places = tl.where(z == highest[:, None], columns[None, :], NO_COLUMN)
            argmax = tl.where(highest > maximum, tl.min(places, 1), argmax)
            new_maximum = tl.maximum(maximum, highest)
            shift = tl.where(new_maximum > -float("inf"), new_maximum, 0.0)
            exponent, factor = decay(maximum, shift)
            x, e = shifted_exp(z, shift[:, None])
            shifted = (shifted + exponent * total) * factor + tl.sum(x * e, 1)
            total = total * factor + tl.sum(e, 1)
            square = square * factor * factor + tl.sum(e * e, 1)
            maximum = new_maximum
        cell = tl.cast(n_rows, tl.int64) * split + rows
        tl.store(floats + cell, maximum, mask=present)
        tl.store(floats + size + cell, total, mask=present)
        tl.store(floats + 2 * size + cell, shifted, mask=present)
        tl.store(floats + 3 * size + cell, square, mask=present)
        tl.store(tokens + cell, argmax.to(tl.int64), mask=present)


@kernel(
    plain=("gain", "cap", "n_rows", "n_columns", "width", "n_row_blocks"),
    unaligned=("bias", "targets", "logsumexp", "grad_logps"),
)
def _fused_gradient(  # type: ignore[no-untyped-def]
    hidden,
    head,
    bias,
    gain,
    cap,
    targets,
    logsumexp,
    grad_logps,
    n_rows,
    n_columns,
    width,
    n_row_blocks,
    out,
    HAS_BIAS: tl.constexpr,
    TRANSFORM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDENS: tl.constexpr,
):
    """One tile of grad · (1[target] − π) · ∂z/∂logit; see training._logits_gradient."""
    row = tl.program_id(0) % n_row_blocks * ROWS
    column = tl.program_id(0) // n_row_blocks * COLUMNS
    rows, columns = row + tl.arange(0, ROWS), column + tl.arange(0, COLUMNS)
    z = _raw_logits(
        *(hidden, head, row, column, width, bias, n_columns),
        *(HAS_BIAS, ROWS, COLUMNS, WIDTH, WIDENS),
    )
    z = transformed(z, gain, cap, TRANSFORM)
    present = rows < n_rows
    target = tl.load(targets + rows, mask=present, other=-1)
    normaliser = tl.load(logsumexp + rows, mask=present, other=0.0)
    weight = tl.load(grad_logps + rows, mask=present, other=0.0)
    probs = tl.exp2((z - normaliser[:, None]) * LOG2E)
    gradient = tl.where(columns[None, :] == target[:, None], 1.0 - probs, -probs)
    gradient *= weight[:, None]
    if TRANSFORM == 1:
        gradient *= gain
    if TRANSFORM == 2:
        tanh = z / cap
        gradient *= (1.0 - tanh * tanh) * (gain * cap)
    inside = present[:, None] & (columns < n_columns)[None, :]
    cells = rows.to(tl.int64)[:, None] * n_columns + columns[None, :]
    tl.store(out + cells, gradient.to(out.dtype.element_ty), mask=inside)
