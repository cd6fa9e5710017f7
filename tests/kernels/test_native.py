"""The compiled fold: where it comes from, what stands in for it, and what memory they take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from squeeze.bench.measure import peak_extra_bytes
from squeeze.kernels import dispatch, native
from squeeze.kernels.chunked import chunked_statistics
from squeeze.kernels.inputs import check_inputs
from squeeze.kernels.online import EagerFold, Fold

pytestmark = pytest.mark.cpu

CPU = torch.device("cpu")
MEGABYTE = 2**20


@pytest.fixture
def uncached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache directory, and a loader that has forgotten what it loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SQUEEZE_CACHE", raising=False)
    native.load_native.cache_clear()
    yield tmp_path
    native.load_native.cache_clear()


def _best_fold() -> Fold:
    return dispatch.best_fold(check_inputs(torch.tensor([0]), logits=torch.zeros(1, 3)))


def test_the_library_is_compiled_into_the_cache_and_nothing_else_is_left(uncached: Path) -> None:
    if native.load_native() is None:
        pytest.skip("no C compiler with OpenMP here")
    files = [path for path in uncached.rglob("*") if path.is_file()]
    assert sorted(path.suffix for path in files) == [".sha256", ".so"]


@pytest.mark.parametrize("harm", ["flip", "truncate"])
def test_a_damaged_library_is_compiled_again_and_never_loaded(
    harm: str, uncached: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if native.load_native() is None:
        pytest.skip("no C compiler with OpenMP here")
    (library,) = uncached.rglob("*.so")
    whole = library.read_bytes()
    library.unlink()  # this process has it open
    half = len(whole) // 2
    changed = whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
    library.write_bytes(changed if harm == "flip" else whole[:half])
    native.load_native.cache_clear()
    assert native.load_native() is not None
    assert library.read_bytes() == whole
    assert "is damaged; it is made again" in capsys.readouterr().err


def test_a_library_is_never_loaded_from_where_another_user_may_write(
    uncached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squeeze.cache.only_ours", lambda path: False)
    if native.load_native() is None:
        pytest.skip("no C compiler with OpenMP here")
    assert list(uncached.rglob("*.so")) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SQUEEZE_NATIVE", "0"), ("CC", "a-compiler-nobody-has"), ("CC", "false")],
)
def test_without_a_working_compiler_the_eager_fold_does_the_work(
    variable: str, value: str, uncached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert native.load_native() is None
    assert isinstance(_best_fold(), EagerFold)


def test_an_unwritable_cache_is_no_error(uncached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = uncached / "file"
    blocked.write_text("in the way of the directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    _best_fold()  # compiled for this process alone, where there is a compiler

    def full(**options: str) -> str:
        raise OSError("no room")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    native.load_native.cache_clear()
    assert isinstance(_best_fold(), EagerFold)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("n_tokens", "vocab", "width"), [(4096, 2000, 24), (16, 40_000, 256), (300, 1500, 4096)]
)
def test_extra_memory_stays_below_64_megabytes(
    n_tokens: int, vocab: int, width: int, dtype: torch.dtype, fold: Fold
) -> None:
    hidden, head = torch.zeros(n_tokens, width, dtype=dtype), torch.zeros(vocab, width, dtype=dtype)
    inputs = check_inputs(torch.zeros(n_tokens, dtype=torch.int64), hidden=hidden, head=head)
    assert peak_extra_bytes(lambda: chunked_statistics(inputs, fold), CPU) <= 64 * MEGABYTE


def test_logits_are_folded_in_one_tile_s_memory(fold: Fold) -> None:
    inputs = check_inputs(torch.zeros(200, dtype=torch.int64), logits=torch.zeros(200, 50_000))
    extra = peak_extra_bytes(lambda: chunked_statistics(inputs, fold), CPU)
    # the native fold only needs its sums; the eager one, copies of a half-megabyte tile
    assert extra <= (0.1 if fold.streams else 3) * MEGABYTE


def test_peak_extra_bytes_counts_what_is_held_at_once() -> None:
    source = torch.zeros(MEGABYTE // 4)

    def two_at_once() -> None:
        first = source + 1
        second = first + 1
        del first
        third = second + 1
        del third

    # torch boxes each 1 for a moment: a few bytes
    assert 0 <= peak_extra_bytes(two_at_once, CPU) - 2 * MEGABYTE < 100
