"""The CPU fold: `fold.c`, compiled on first use by the system's C compiler and kept in a cache.

Compiling takes a fraction of a second, once per machine. Where there is no compiler, or
SQUEEZE_NATIVE=0 is set, `load_native` returns None and the eager fold does the work.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from squeeze import cache
from squeeze.errors import InputError
from squeeze.files import file_sha256, write_text
from squeeze.kernels.online import OnlineState, Tile

_SOURCE = Path(__file__).with_name("fold.c")
# -ffp-contract=off: the fused multiply-adds are written out, the other roundings are wanted.
_FLAGS = (
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
)
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class NativeFold:
    """Fold a tile of float32, bfloat16 or float16 logits in one read, in C."""

    streams = True

    def __init__(self, library: ctypes.CDLL) -> None:
        self._fold = library.squeeze_fold
        self._fold.restype = None
        pointer, integer, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
        self._fold.argtypes = [
            *(pointer, ctypes.c_int, integer, integer, integer),
            *(pointer, pointer, number, number),
            *(pointer, integer, ctypes.c_int),
            *(pointer,) * 6,
        ]

    def __call__(self, tile: Tile, targets: Int[Tensor, " tokens"], state: OnlineState) -> None:
        """Fold `tile` into `state` in place; see `squeeze.kernels.online.Fold`."""
        # Named, so that the copies live until the call has returned.
        values = tile.values if tile.values.stride(-1) == 1 else tile.values.contiguous()
        rows = None if tile.rows is None else tile.rows.contiguous()
        bias = None if tile.bias is None else tile.bias.float().contiguous()
        targets = targets.contiguous()
        gain, cap = tile.transform.gain_and_cap
        self._fold(
            values.data_ptr(),
            _DTYPES[values.dtype],
            targets.shape[0],
            values.shape[1],
            values.stride(0),
            None if rows is None else rows.data_ptr(),
            None if bias is None else bias.data_ptr(),
            gain,
            cap,
            targets.data_ptr(),
            tile.first_column,
            torch.get_num_threads(),
            state.maximum.data_ptr(),
            state.argmax_token.data_ptr(),
            state.sum_exp.data_ptr(),
            state.sum_shifted_exp.data_ptr(),
            state.sum_square_exp.data_ptr(),
            state.target_logit.data_ptr(),
        )


@functools.cache
def load_native() -> NativeFold | None:
    """Return the compiled fold, or None where it is switched off or cannot be compiled."""
    if os.environ.get("SQUEEZE_NATIVE") == "0":
        return None
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    try:
        return NativeFold(ctypes.CDLL(str(_compiled(compiler))))
    except (OSError, InputError, subprocess.SubprocessError):
        # No OpenMP, an unwritable disk, a foreign compiler: slower, not wrong, so no error.
        return None


def _compiled(compiler: str) -> Path:
    """Return the compiled library, from the cache when this source was compiled on this CPU."""
    runtime = _torch_openmp()
    command = [compiler, *_FLAGS, "-fopenmp", str(_SOURCE)]
    arguments = [*command[1:-1], *runtime, "-lm"]
    key = hashlib.sha256(
        "\n".join([_SOURCE.read_text(), compiler, *arguments, _cpu()]).encode()
    ).hexdigest()[:16]
    library = _directory() / f"fold-{key}.so"
    if library.exists() and not _is_whole(library):
        if _sum_file(library).exists():  # an earlier version left none
            cache.say_damaged(library)
        library.unlink()
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            output = Path(scratch) / library.name
            subprocess.run(
                [*command, "-o", str(output), *runtime, "-lm"],
                check=True,
                capture_output=True,
                timeout=60,
            )
            write_text(_sum_file(library), file_sha256(output) + "\n")
            output.replace(library)
    return library


def _sum_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _is_whole(library: Path) -> bool:
    """Whether the library is the one that was compiled: a cut one would end the process."""
    expected = _sum_file(library)
    return expected.is_file() and expected.read_text().strip() == file_sha256(library)


def _torch_openmp() -> list[str]:
    """The OpenMP runtime that torch brought along: two runtimes would fight over the cores."""
    package = Path(torch.__file__).parent
    bundled = [*package.glob("lib/libgomp*.so*"), *package.parent.glob("torch.libs/libgomp*.so*")]
    return [str(path) for path in bundled[:1]]


def _directory() -> Path:
    """A directory that nobody else may write into: the cache's, else one for this process."""
    with contextlib.suppress(InputError):
        directory = cache.private(cache.cache_directory() / "kernels")
        if cache.only_ours(directory):
            return directory
    scratch = tempfile.mkdtemp(prefix="squeeze-kernels-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return Path(scratch)


def _cpu() -> str:
    """What -march=native depends on, so that a shared home directory serves different CPUs."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
