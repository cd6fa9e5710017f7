"""Compilation of the Triton kernels for sm_90 without a GPU: real launches that stop short of it.

`CompileOnly` stands in for Triton's CUDA driver: a launch on CPU tensors specialises, compiles and
assembles exactly what it would on an H100, and then does nothing.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
SHARED_BYTES = 227 * 1024  # what a block may have on sm_90 (CUDA programming guide, table 30)


@dataclass(frozen=True)
class Compiled:
    """One specialisation of a kernel, with its PTX, its TTIR and what the assembler says of it."""

    name: str
    ptx: str
    ttir: str
    cubin: bytes
    shared_bytes: int
    n_threads: int

    def resources(self, directory: Path) -> dict[str, int]:
        """Registers a thread, bytes of stack and of local memory, by cuobjdump."""
        text = _dump(self.cubin, directory, "-res-usage")
        return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}

    def loop(self, directory: Path) -> list[str]:
        """The instructions of one turn of the longest loop, forward branches taken, in SASS.

        What a branch jumps over is what seldom happens: a new maximum, the row's last block.
        """
        lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", _dump(self.cubin, directory, "-sass"))
        code = [(int(address, 16), text) for address, text in lines]
        loops = []
        for address, text in code:
            target = _jump(text)
            if target is not None and target < address:
                loops.append((target, address))
        position, last = max(loops, key=lambda pair: pair[1] - pair[0])
        turn = []
        for address, text in code:
            if not position <= address <= last:
                continue
            turn.append(text)
            target = _jump(text)
            if target is not None and address < target <= last:
                position = target
        return turn


def _jump(text: str) -> int | None:
    found = re.search(r"\bBRA\S*\s+(?:!?U?P\d+,\s*)?(0x[0-9a-f]+)", text)
    return int(found.group(1), 16) if found else None


def opcodes(instructions: list[str]) -> Counter[str]:
    """How often each operation stands there, its modifiers left out."""
    plain = (re.sub(r"^@!?U?P\d+\s+", "", text).split()[0] for text in instructions)
    return Counter(text.split(".")[0] for text in plain)


def specialisations(kernel: Any) -> list[Compiled]:
    """Every form of a `triton.jit` function that launches in `compile_only` have compiled."""
    return [
        Compiled(
            name=one.name,
            ptx=one.asm["ptx"],
            ttir=one.asm["ttir"],
            cubin=one.asm["cubin"],
            shared_bytes=one.metadata.shared,
            n_threads=32 * one.metadata.num_warps,
        )
        for cache, *_ in kernel.device_caches.values()
        for one in cache.values()
    ]


class _Launcher:
    """A launch that does nothing."""

    def __init__(self, source: Any, metadata: Any) -> None:
        pass

    def __call__(self, *arguments: Any) -> None:
        pass


@contextmanager
def compile_only(*kernels: Any) -> Iterator[None]:
    """Make launches compile for sm_90 and do nothing more; forget what `kernels` had compiled."""
    shared = {"max_shared_mem": SHARED_BYTES, "multiprocessor_count": 132}
    utils = SimpleNamespace(
        load_binary=lambda *arguments: (None, None, 0, 0, 1024),
        unload_module=lambda module: None,
        get_device_properties=lambda device: shared,
    )
    stand_in = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        launcher_cls=_Launcher,
        utils=utils,
    )
    before = driver._active
    driver.set_active(stand_in)
    for kernel in kernels:
        kernel.device_caches.clear()
    try:
        yield
    finally:
        driver._active = before


def _dump(cubin: bytes, directory: Path, option: str) -> str:
    path = directory / "kernel.cubin"
    path.write_bytes(cubin)
    command = [str(TOOLS / "cuobjdump"), option, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr
