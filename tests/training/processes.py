"""The squeeze command in processes of its own; several have the environment that torchrun gives.

A fork server imports torch, transformers and TRL once for all of them, which torchrun cannot.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

# At most so long; a healthy pair needs some seconds, on a busy machine minutes.
PATIENCE = 900
_IMPORTED = (
    *(
        "trl.trainer.dpo_trainer",
        "trl.trainer.sft_trainer",
        "peft",
        "datasets",
        "matplotlib.figure",
    ),
    *(
        "squeeze.cli",
        "squeeze.replicate",
        "squeeze.training.loss_trainer",
        "squeeze.report",
        __name__,
    ),
)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun tells process `rank` of `count` on one machine, which meet at `port`."""
    return {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank)},
        **{"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }


class Group:
    """`count` processes of `squeeze ARGUMENTS`; each one's output and writes stand in `notes`.

    `variables` join their environment.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        notes: Path,
        count: int = 2,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        notes.mkdir(parents=True, exist_ok=True)
        self.notes = notes
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_IMPORTED))
        port = free_port()
        given = [str(argument) for argument in arguments]
        self.processes: list[BaseProcess] = [
            context.Process(
                target=_work,
                args=(given, notes, rank, count, port, dict(variables or {})),
                daemon=True,
            )
            for rank in range(count)
        ]
        for process in self.processes:
            process.start()

    def wait(self) -> list[int | None]:
        """Exit codes, by rank; None for one that hangs."""
        for process in self.processes:
            process.join(PATIENCE)
        return [process.exitcode for process in self.processes]

    def output(self, rank: int) -> str:
        """What a process printed."""
        return (self.notes / f"{rank}.out").read_text()

    def written(self, rank: int) -> list[Path]:
        """The files and directories that a process opened for writing, made, moved or removed."""
        lines = (self.notes / f"{rank}.files").read_text().splitlines()
        return [Path(line) for line in dict.fromkeys(lines)]


def run_pair(work: Callable[..., None], out: Path, *arguments: object, preload: str) -> None:
    """Run `work(out, rank, *arguments)` in two processes that can join; they print into `out`.

    `preload` names the module that holds `work`, which is imported once for both. Raises
    `RuntimeError` with what they printed if one of them fails or hangs.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    port = free_port()
    processes = [
        context.Process(target=_joined, args=(work, out, rank, port, arguments), daemon=True)
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    if [process.exitcode for process in processes] != [0, 0]:
        raise RuntimeError("\n".join(path.read_text()[-3000:] for path in out.glob("rank-*.out")))


def _joined(
    work: Callable[..., None], out: Path, rank: int, port: int, arguments: Sequence[object]
) -> None:
    os.environ |= environment(rank, 2, port)
    output = os.open(out / f"rank-{rank}.out", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    warnings.simplefilter("ignore")
    work(out, rank, *arguments)


def _work(
    arguments: list[str], notes: Path, rank: int, count: int, port: int, variables: dict[str, str]
) -> None:
    os.environ |= variables
    if count > 1:
        os.environ |= environment(rank, count, port)
    output = os.open(notes / f"{rank}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _note_writes(notes / f"{rank}.files")
    gc.freeze()  # accelerate collects after every training, which is slow with all that is imported
    sys.argv = ["squeeze", *arguments]
    from squeeze.cli import main

    main()


def _note_writes(path: Path) -> None:
    """Note every path that Python writes to from now on."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    changing = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            _, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes and not set(str(mode)) & set("wax+"):
                return
        elif event not in changing:
            return
        if not isinstance(arguments[0], int):
            os.write(file, f"{os.fsdecode(arguments[0])}\n".encode())  # type: ignore[arg-type]

    sys.addaudithook(hook)
