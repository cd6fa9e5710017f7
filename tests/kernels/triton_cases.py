"""The Triton fold against the reference: on a GPU, or in Triton's interpreter.

The interpreter must be chosen before triton is first imported, so `test_triton.py` runs this file
in a process of its own, with TRITON_INTERPRET=1; with a GPU, run it directly.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from squeeze.bench.accuracy import KINDS, error_bounds, make_logits, make_targets
from squeeze.kernels.chunked import chunked_statistics
from squeeze.kernels.inputs import check_inputs
from squeeze.kernels.online import EXPONENT_FLOOR, OnlineState, Tile
from squeeze.kernels.reference import reference_statistics
from tests.kernels.assertions import assert_argmax_is_a_maximiser, assert_close

pytest.importorskip("triton", reason="triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)

import squeeze.kernels.triton  # noqa: E402
from squeeze.kernels.triton import TritonFold  # noqa: E402

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
# The GPU's exp is off by up to 2 ulp and |x|·2⁻²³ more: less than twice the bound's own share.
UNIT = 2.0**-24 * (1 if INTERPRETED else 2)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, torch.float32) for kind in KINDS]
    + [("random", torch.bfloat16), ("masked_finite", torch.float16)],
    ids=str,
)
def test_logits_give_the_reference_statistics(kind: str, dtype: torch.dtype) -> None:
    logits = make_logits(kind, 3, 4999, dtype).to(DEVICE)
    targets = make_targets(3, 4999).to(DEVICE)
    inputs = check_inputs(targets, logits=logits)
    found = chunked_statistics(inputs, TritonFold())
    bounds = error_bounds(logits.double(), targets, UNIT)
    assert_close(found, reference_statistics(inputs), bounds)
    assert_argmax_is_a_maximiser(found, logits)


# 130 rows: more than one program of the merging kernel
@pytest.mark.parametrize(("n_tokens", "vocab"), [(0, 7), (1, 1), (1, 4097), (2, 12_289), (130, 5)])
def test_any_shape_is_covered_once(n_tokens: int, vocab: int) -> None:
    logits = make_logits("random", n_tokens, vocab, torch.float32).to(DEVICE)
    targets = make_targets(n_tokens, vocab).to(DEVICE)
    inputs = check_inputs(targets, logits=logits)
    bounds = error_bounds(logits.double(), targets, UNIT)
    assert_close(chunked_statistics(inputs, TritonFold()), reference_statistics(inputs), bounds)


def test_bias_cap_temperature_ignored_rows_and_strides() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden, head, bias = (
        torch.randn(*shape, generator=generator).to(DEVICE)
        for shape in ((5, 8), (6000, 8), (6000,))
    )
    targets = torch.tensor([5999, -100, 0, 4096, 17], device=DEVICE)
    inputs = check_inputs(
        targets, hidden=hidden, head=head, bias=bias, softcap=6.0, temperature=0.5, top_k=3
    )
    found, expected = chunked_statistics(inputs, TritonFold()), reference_statistics(inputs)
    for name in ("target_logp", "argmax_logp", "logsumexp", "entropy", "peakiness"):
        # logits below 12 after the cap, widths of 8: 1e-4 is 10 times accuracy.py's bounds
        torch.testing.assert_close(
            getattr(found, name).double(), getattr(expected, name), atol=1e-4, rtol=0
        )
    assert torch.equal(found.argmax_token, expected.argmax_token)
    transposed = check_inputs(targets, logits=(hidden @ head.T).T.contiguous().T, softcap=6.0)
    again = chunked_statistics(transposed, TritonFold())
    torch.testing.assert_close(
        again.entropy.double(), reference_statistics(transposed).entropy, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "view",
    [lambda z: z[:, 3:], lambda z: z[1:, :-2], lambda z: z[:, ::2], lambda z: z.T.contiguous().T],
    ids=["offset", "inner", "strided", "transposed"],
)
def test_rows_that_start_anywhere_give_the_reference_statistics(
    view: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    # 4107 columns: no row but the first starts on a vector's boundary
    logits = view(make_logits("random", 4, 4107, dtype).to(DEVICE))
    targets = make_targets(*logits.shape).to(DEVICE)
    inputs = check_inputs(targets, logits=logits)
    found = chunked_statistics(inputs, TritonFold())
    bounds = error_bounds(logits.double(), targets, UNIT)
    assert_close(found, reference_statistics(inputs), bounds)
    assert_argmax_is_a_maximiser(found, logits)


@pytest.mark.parametrize("kind", ["ascending", "descending", "masked"])
def test_a_maximum_that_moves_in_any_block_rescales_what_came_before(kind: str) -> None:
    logits = torch.linspace(-300, 300, 13_000).repeat(2, 1)
    if kind == "descending":
        logits = logits.flip(1)
    elif kind == "masked":  # whole blocks of −inf before, between and after
        logits[:, :5000] = logits[:, 9000:] = float("-inf")
    logits, targets = logits.to(DEVICE), torch.tensor([6000, 8999], device=DEVICE)
    inputs = check_inputs(targets, logits=logits)
    found = chunked_statistics(inputs, TritonFold())
    assert_close(found, reference_statistics(inputs), error_bounds(logits.double(), targets, UNIT))
    assert_argmax_is_a_maximiser(found, logits)


def test_strided_targets_and_bias_are_read_by_their_strides() -> None:
    generator = torch.Generator().manual_seed(2)
    hidden, head, biases = (
        torch.randn(*shape, generator=generator).to(DEVICE) for shape in ((3, 8), (50, 8), (50, 2))
    )
    targets = torch.tensor([[7, 1], [49, 2], [0, 3]], device=DEVICE)
    state = OnlineState.empty(3, 0, torch.float32, DEVICE)
    bias, first = biases[:, 0], targets[:, 0]
    TritonFold()(Tile(hidden @ head.T, 0, bias=bias), first, state)
    inputs = check_inputs(first.clone(), hidden=hidden, head=head, bias=bias.clone())
    found, expected = state.finish(), reference_statistics(inputs)
    for name in ("target_logp", "logsumexp", "entropy"):
        torch.testing.assert_close(
            getattr(found, name).double(), getattr(expected, name), atol=1e-4, rtol=0
        )
    assert torch.equal(found.argmax_token, expected.argmax_token)


def test_the_kernels_are_launched_on_the_device_of_the_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[Any] = []
    inside = contextlib.contextmanager(lambda value: (yield chosen.append(value)))
    monkeypatch.setattr(torch.cuda, "device_of", inside)
    launched = squeeze.kernels.triton._partial_sums
    launches: list[int] = []

    class Recorded:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            launches.append(len(chosen))  # 1: within the guard
            return launched[grid]

    monkeypatch.setattr(squeeze.kernels.triton, "_partial_sums", Recorded())
    logits = torch.zeros(2, 9, device=DEVICE)
    chunked_statistics(
        check_inputs(torch.tensor([0, 1], device=DEVICE), logits=logits), TritonFold()
    )
    assert launches == [1]
    assert chosen[0] is logits


def test_the_floor_is_that_of_the_other_folds() -> None:
    assert squeeze.kernels.triton.EXPONENT_FLOOR.value == EXPONENT_FLOOR


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_without_a_distribution_is_nan_and_spoils_no_other(bad: float) -> None:
    logits = make_logits("random", 2, 5000, torch.float32)
    logits[0, 4500] = bad
    inputs = check_inputs(make_targets(2, 5000).to(DEVICE), logits=logits.to(DEVICE))
    found = chunked_statistics(inputs, TritonFold())
    for name in ("target_logp", "argmax_logp", "logsumexp", "entropy", "peakiness"):
        value = getattr(found, name)
        assert value[0].isnan(), name
        assert value[1].isfinite(), name
