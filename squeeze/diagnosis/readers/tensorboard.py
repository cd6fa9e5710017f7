"""TensorBoard event files: scalars by tag and step; a directory of them is a run each.

The format is TFRecord (length, checksum, bytes, checksum) of `tensorflow.Event` messages.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from squeeze.diagnosis.readers.columns import tells
from squeeze.diagnosis.readers.records import Table
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.readers.text import regular
from squeeze.diagnosis.readers.wire import fields, floating, text
from squeeze.errors import InputError

_PREFIX = "events.out.tfevents"
_LONGEST = 2**26  # bytes of one event; images are that large, scalars are not
MOST_EVENTS = 2_000_000
MOST_FILES = 100_000  # below a directory
_FLOAT, _DOUBLE = 1, 2  # tensorflow.DataType
# Field numbers of tensorflow.Event, Summary.Value and TensorProto.
_STEP, _SUMMARY = 2, 5
_TAG, _SIMPLE, _TENSOR = 1, 2, 8
_DTYPE, _CONTENT, _FLOATS = 1, 4, 5


def _event_files(source: Source) -> list[Path]:
    """Event files; those of a directory only where it holds no better log."""
    if not source.is_directory:
        return [source.path] if source.path.name.startswith(_PREFIX) else []
    if (source.path / "trainer_state.json").exists():
        return []
    if any(source.path.glob("checkpoint-*/trainer_state.json")):
        return []
    return regular(p for p in _below(source.path) if p.name.startswith(_PREFIX))


def _below(directory: Path) -> Iterator[Path]:
    """The files below a directory, those that cannot be listed left out."""
    files = (Path(place, name) for place, _, names in os.walk(directory) for name in names)
    for n, path in enumerate(files):
        if n == MOST_FILES:
            raise InputError(
                f"{directory} has more than {MOST_FILES:,} files below it; give the directory of "
                "the run, or its log"
            )
        yield path


@reader("TensorBoard event files", recognise=lambda s: len(_event_files(s)) > 0, order=20)
def read(source: Source) -> list[Table]:
    """Read event files, a run for each directory that holds some.

    Raises `InputError` for a file that is none, and where there is no scalar.
    """
    by_directory: dict[Path, list[Path]] = {}
    for path in _event_files(source):
        by_directory.setdefault(path.parent, []).append(path)
    tables = [_table(directory, paths) for directory, paths in by_directory.items()]
    held = [t for t in tables if t.records]
    if not held:
        raise InputError(f"{source.path} holds no scalar; was anything logged yet?")
    return [t for t in held if tells(t)] or held


def _table(directory: Path, paths: list[Path]) -> Table:
    """Scalars of one directory, a record a step; of two writers' files the later one counts."""
    records: dict[int, dict[str, Any]] = {}
    notes: list[str] = []
    for path in paths:
        for step, tag, value in _scalars(path, notes):
            records.setdefault(step, {"step": step})[tag] = value
    if len(paths) > 1:
        notes.append(f"{len(paths)} event files of {directory} were joined by step (a resumed run)")
    ordered = [records[step] for step in sorted(records)]
    kind = "TensorBoard event files"
    return Table(directory.name or "run", str(directory), kind, ordered, (), tuple(notes), "record")


def _scalars(path: Path, notes: list[str]) -> Iterator[tuple[int, str, float]]:
    try:
        for event in _records(path, notes):
            yield from _of_event(event)
    except ValueError as error:
        raise InputError(f"{path} is no TensorBoard event file ({error})") from error


def _records(path: Path, notes: list[str]) -> Iterator[bytes]:
    n = 0
    with path.open("rb") as file:
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else _LONGEST
            if not 0 < length < _LONGEST:
                raise ValueError("a record has no sensible length")
            if (n := n + 1) > MOST_EVENTS:
                raise ValueError(f"it has more than {MOST_EVENTS:,} events")
            data = file.read(length)
            if len(data) < length or len(file.read(4)) < 4:
                notes.append(f"{path.name} ends in mid-record (a run that goes on, or was killed)")
                return
            yield data


def _of_event(event: bytes) -> Iterator[tuple[int, str, float]]:
    step, summaries = 0, []
    for number, value in fields(event):
        if number == _STEP and isinstance(value, int):
            step = value
        elif number == _SUMMARY and isinstance(value, bytes):
            summaries.append(value)
    for summary in summaries:
        for number, value in fields(summary):
            if number == 1 and isinstance(value, bytes):
                found = _scalar(value)
                if found is not None:
                    yield step, *found


def _scalar(message: bytes) -> tuple[str, float] | None:
    tag, scalar = "", None
    for number, value in fields(message):
        if number == _TAG:
            tag = text(value)
        elif number == _SIMPLE:
            scalar = floating(value)
        elif number == _TENSOR and isinstance(value, bytes):
            scalar = _of_tensor(value)
    # A tensor that is no scalar (text, a histogram) tells nothing here.
    return (tag, scalar) if tag and scalar is not None else None


def _of_tensor(message: bytes) -> float | None:
    kind, content = 0, b""
    for number, value in fields(message):
        if number == _DTYPE and isinstance(value, int):
            kind = value
        elif number in (_CONTENT, _FLOATS) and isinstance(value, bytes):
            content = value
    size = {_FLOAT: 4, _DOUBLE: 8}.get(kind)
    return floating(content) if size == len(content) else None
