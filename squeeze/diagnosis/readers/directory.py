"""Run directories: which of their files is the log with the most evidence."""

from __future__ import annotations

import re
from pathlib import Path

from squeeze.diagnosis.readers.registry import Found, Source, reader, readers
from squeeze.diagnosis.readers.text import regular, require_file
from squeeze.errors import InputError

_LOG_SUFFIXES = (".jsonl", ".csv", ".tsv", ".json", ".log", ".txt", ".out", ".md", ".ipynb")


_SCORES = ("trajectory.parquet", "squeeze/trajectory.parquet")


def _scores(source: Source) -> list[Path]:
    """Scores of single examples in a directory: ours, the callback's."""
    found = [source.path / name for name in _SCORES] if source.is_directory else []
    return [path for path in found if path.is_file()]


@reader("scores of single examples", recognise=lambda s: len(_scores(s)) > 0, order=5)
def read_scores(source: Source) -> Found:
    """Read the best evidence that a directory can hold, whatever else lies in it."""
    return read_source(Source(_scores(source)[0]))


@reader("run directory", recognise=lambda s: s.is_directory, order=95)
def read(source: Source) -> Found:
    """Read the log of a run directory: `log_in` says which.

    Raises `InputError` if there is none, or if it is not known which is meant.
    """
    return read_source(Source(log_in(source.path)))


def read_source(source: Source) -> Found:
    """What the first reader that recognises a source makes of it; None if none does."""
    if not source.is_directory:
        require_file(source.path)
    for candidate in readers():
        if candidate.recognise(source):
            found = candidate.read(source)
            if found:
                return found
    return None


def log_in(directory: Path) -> Path:
    """The trainer's own log first, then its newest checkpoint's, and a log that is the only one."""
    if (directory / "trainer_state.json").is_file():
        return directory / "trainer_state.json"
    checkpoints = sorted(
        directory.glob("checkpoint-*/trainer_state.json"), key=lambda p: _step(p.parent.name)
    )
    if checkpoints:
        return checkpoints[-1]
    for name in ("trainer_log.jsonl", "logging.jsonl"):
        if (directory / name).is_file():
            return directory / name
    logs = [
        p
        for p in regular(directory.iterdir())
        if p.suffix in _LOG_SUFFIXES and "config" not in p.name
    ]
    if len(logs) == 1:
        return logs[0]
    listed = f"; give one of {', '.join(p.name for p in logs[:6])}" if logs else ""
    raise InputError(
        f"{directory} has no trajectory.parquet, trainer_state.json, checkpoint-*/ or "
        f"trainer_log.jsonl{listed}"
    )


def _step(name: str) -> int:
    found = re.search(r"(\d{1,18})$", name)
    return int(found[1]) if found else -1
