"""The Triton kernels as compiled for sm_90: resources, wide loads, 64-bit offsets, instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from squeeze.kernels.inputs import IDENTITY, LogitTransform
from squeeze.kernels.online import OnlineState, Tile

pytestmark = pytest.mark.cpu
pytest.importorskip(
    "triton", reason="triton is not installed (pip install triton; it has wheels for Linux only)"
)

import squeeze.kernels.triton as kernels  # noqa: E402
from squeeze.kernels import fused  # noqa: E402
from tests.kernels.ahead_of_time import (  # noqa: E402
    SHARED_BYTES,
    TOOLS,
    Compiled,
    compile_only,
    opcodes,
    specialisations,
)

if not (TOOLS / "cuobjdump").exists():
    pytest.skip("this triton comes without NVIDIA's tools", allow_module_level=True)

BF16, FP32 = torch.bfloat16, torch.float32


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile here and now: what an earlier run has left in the user's cache proves nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        patch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # silences a warning of triton 3.9
        yield


def _fold(
    shape: tuple[int, int],
    dtype: torch.dtype,
    transform: LogitTransform = IDENTITY,
    **options: bool,
) -> None:
    """Launch the fold on logits of a shape, as `chunked_statistics` does."""
    n_rows, n_columns = shape
    bias = torch.zeros(n_columns) if options.get("bias") else None
    rows = torch.arange(n_rows) if options.get("rows") else None
    tile = Tile(torch.zeros(shape, dtype=dtype), 0, transform, bias, rows)
    state = OnlineState.empty(n_rows, 0, FP32, torch.device("cpu"))
    kernels.TritonFold()(tile, torch.zeros(n_rows, dtype=torch.int64), state)


@pytest.fixture(scope="module")
def folds(_own_cache: None) -> dict[torch.dtype, Compiled]:
    """The fold of plain logits for each dtype."""
    found = {}
    for dtype in (BF16, FP32):
        with compile_only(kernels._partial_sums):
            _fold((3, 50_257), dtype)
            (found[dtype],) = specialisations(kernels._partial_sums)
    return found


def _within_limits(compiled: Compiled, directory: Path, n_blocks: int) -> None:
    """Fail unless `n_blocks` blocks fit a multiprocessor, or where a register is spilled."""
    used = compiled.resources(directory)
    assert used["LOCAL"] == 0
    assert used["STACK"] == 0
    # 65,536 registers a multiprocessor, handed out in units of 8 a thread
    assert n_blocks * compiled.n_threads * -(-used["REG"] // 8) * 8 <= 65_536
    assert n_blocks * compiled.shared_bytes <= SHARED_BYTES


@pytest.mark.parametrize("dtype", [BF16, FP32], ids=str)
def test_three_blocks_of_the_fold_fit_a_multiprocessor_without_spills(
    dtype: torch.dtype, folds: dict[torch.dtype, Compiled], tmp_path: Path
) -> None:
    _within_limits(folds[dtype], tmp_path, n_blocks=3)


@pytest.mark.parametrize("dtype", [BF16, FP32], ids=str)
def test_the_fold_takes_fourteen_instructions_a_logit(
    dtype: torch.dtype, folds: dict[torch.dtype, Compiled], tmp_path: Path
) -> None:
    # 29.6 before: every block rescaled, and every lane kept its own argmax.
    logits = kernels._BLOCK // folds[dtype].n_threads
    turn = folds[dtype].loop(tmp_path)
    assert opcodes(turn)["MUFU"] == logits  # it is the loop over logits: one exponential each
    assert len(turn) <= 14 * logits


@pytest.mark.parametrize("dtype", [BF16, FP32], ids=str)
def test_rows_of_any_length_are_loaded_in_vectors(
    dtype: torch.dtype, folds: dict[torch.dtype, Compiled], tmp_path: Path
) -> None:
    # 50,257 columns: no row but the first is aligned
    loads = [text for text in folds[dtype].loop(tmp_path) if "LDG" in text]
    assert loads
    assert all(".128" in text for text in loads)


def test_offsets_of_rows_are_64_bits_wide(folds: dict[torch.dtype, Compiled]) -> None:
    ttir = folds[BF16].ttir
    (stride,) = re.findall(r"(%row_stride\w*): i32", ttir)
    (wide,) = re.findall(rf"(%\w+) = arith.extsi {stride} : i32 to i64", ttir)
    assert re.search(rf"arith.muli %\w+, {wide} : i64", ttir)
    assert not re.search(rf"arith.muli .*{stride}\b", ttir)


def test_one_form_serves_every_shape_and_alignment() -> None:
    with compile_only(kernels._partial_sums, kernels._merge_sums):
        for shape in ((1, 1), (1, 16), (3, 17), (16, 4096), (2, 50_257), (700, 33)):
            _fold(shape, BF16)
        logits = torch.zeros(9, 101, dtype=BF16)
        state = OnlineState.empty(9, 0, FP32, torch.device("cpu"))
        targets = torch.zeros(9, dtype=torch.int64)
        for first in (0, 1, 16, 4096):  # tiles of a larger head, and rows in the middle of a state
            tile = Tile(logits[1:4, 5:], first)
            kernels.TritonFold()(tile, targets[1:4], state.rows(1, 4))
        assert len(specialisations(kernels._partial_sums)) == 1
        assert len(specialisations(kernels._merge_sums)) == 1


def test_every_option_compiles_without_spills(tmp_path: Path) -> None:
    with compile_only(kernels._partial_sums):
        _fold((3, 5000), BF16, LogitTransform(softcap=30.0), bias=True, rows=True)
        _fold((3, 5000), torch.float16, LogitTransform(temperature=0.5))
        forms = specialisations(kernels._partial_sums)
    assert len(forms) == 2
    for form in forms:
        _within_limits(form, tmp_path, n_blocks=1)


def _fuse(n_tokens: int, vocab: int, width: int, transform: LogitTransform, bias: bool) -> None:
    """Launch both fused kernels as a training step would."""
    hidden, head = torch.zeros(n_tokens, width, dtype=BF16), torch.zeros(vocab, width, dtype=BF16)
    targets, of_rows = torch.zeros(n_tokens, dtype=torch.int64), torch.zeros(n_tokens)
    biases = torch.zeros(vocab) if bias else None
    state = OnlineState.empty(n_tokens, 0, FP32, torch.device("cpu"))
    fold = fused.FusedFold()
    assert fold.takes(hidden, head)
    fold.fold_hidden(hidden, head, biases, transform, targets, state)
    fold.logits_gradient(hidden, head, biases, transform, targets, of_rows, of_rows)


def test_the_fused_kernels_use_tensor_cores_and_tma_without_spills(tmp_path: Path) -> None:
    kernels_ = (fused._fused_sums, fused._fused_gradient)
    with compile_only(*kernels_):
        _fuse(300, 5001, 576, IDENTITY, bias=False)
        _fuse(1, 151_936, 2560, IDENTITY, bias=False)  # another shape: no other form
        forms = [specialisations(one) for one in kernels_]
    for (form,) in forms:
        _within_limits(form, tmp_path, n_blocks=1)
        assert "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16" in form.ptx
        assert "cp.async.bulk.tensor" in form.ptx


def test_the_gradient_s_offsets_are_64_bits_wide() -> None:
    with compile_only(fused._fused_sums, fused._fused_gradient):
        _fuse(300, 5001, 64, IDENTITY, bias=False)
        (form,) = specialisations(fused._fused_gradient)
    # every address in `out` [T, V] is made from 64-bit offsets
    assert re.search(r"arith.muli %\w+, %\w+ : tensor<128x1xi64", form.ttir)
    assert not re.search(r"tt.addptr %\w+, %\w+ : tensor<128x256x!tt.ptr<bf16>>, .*i32", form.ttir)
