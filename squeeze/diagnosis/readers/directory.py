"""Run directories: which of their files is the log with the most evidence."""

from __future__ import annotations

import re
from pathlib import Path

from squeeze.diagnosis.readers.registry import Found, Source, reader, readers
from squeeze.diagnosis.readers.text import require_file
from squeeze.errors import InputError

_LOG_SUFFIXES = (".jsonl", ".csv", ".tsv", ".json", ".log", ".txt", ".out", ".md", ".ipynb")


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
    """Scores of single examples first (ours, the callback's), then the trainer's own log.

    Then its newest checkpoint's, and a log that is the only one.
    """
    for name in ("trajectory.parquet", "squeeze/trajectory.parquet", "trainer_state.json"):
        if (directory / name).is_file():
            return directory / name
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
        for p in sorted(directory.iterdir())
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
