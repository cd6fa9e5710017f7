"""Watching of logs that grow: they are judged again whenever their files change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from squeeze.diagnosis.readers import load
from squeeze.diagnosis.verdict import Diagnosis, diagnose
from squeeze.errors import InputError


def watch(
    paths: Sequence[Path],
    seconds: float,
    *,
    beta: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[Diagnosis] | str]:
    """Yield the diagnoses after every change of the files, or a sentence while one has no log yet.

    It never ends by itself; `sleep` is called with `seconds` between two looks.
    """
    seen: tuple[object, ...] = ()
    while True:
        state = tuple(map(_state, paths))
        if state != seen:
            seen = state
            try:
                yield [diagnose(run, beta=beta) for path in paths for run in load(path)]
            except InputError as error:
                yield f"not yet: {error}"
        sleep(seconds)


def _state(path: Path) -> object:
    """What changes when a log grows: sizes and times of the file, or of a directory's files."""
    if not path.exists():
        return None
    files = sorted(path.glob("*")) if path.is_dir() else [path]
    found = []
    for file in (*files, *(path.glob("checkpoint-*/trainer_state.json") if path.is_dir() else ())):
        with suppress(OSError):  # gone meanwhile, or a link to nothing
            about = file.stat()
            found.append((str(file), about.st_size, about.st_mtime_ns))
    return tuple(found)
