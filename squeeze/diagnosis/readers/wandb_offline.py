"""W&B offline runs: `run-ID.wandb` in wandb/offline-run-DATE-ID, without the wandb package.

The file is LevelDB's log format (blocks of 32 KiB, records in parts) of `wandb_internal.Record`
messages, of which history and run records are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from squeeze.diagnosis.readers.records import Table
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.readers.text import regular
from squeeze.diagnosis.readers.wire import Value, fields, text
from squeeze.errors import InputError
from squeeze.files import parse_json

_MAGIC = b":W&B"
_BLOCK, _HEADER = 32 * 1024, 7
_LONGEST = 2**26  # bytes of a record
MOST_RECORDS = 2_000_000
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# Field numbers of wandb_internal.Record, HistoryRecord, HistoryItem and RunRecord.
_HISTORY, _RUN = 2, 17
_ITEM, _KEY, _NESTED, _JSON = 1, 1, 2, 16
_DISPLAY_NAME = 8


def _run_files(source: Source) -> list[Path]:
    if source.is_directory:
        own = regular(source.path.glob("*.wandb"))
        runs = regular(source.path.glob("wandb/*run-*/*.wandb"))
        if own:
            return own
        held = regular(source.path.glob("*run-*/*.wandb"))
        return held or ([] if (source.path / "trainer_state.json").exists() else runs)
    return [source.path] if source.suffix == ".wandb" else []


@reader("W&B offline run", recognise=lambda s: len(_run_files(s)) > 0, order=20)
def read(source: Source) -> list[Table]:
    """Read the history of every run in a file or a wandb directory."""
    files = dict.fromkeys(p.resolve() for p in _run_files(source))  # latest-run is a link
    return [_table(path) for path in files]


def _table(path: Path) -> Table:
    records: list[dict[str, Any]] = []
    name, notes = path.stem, list[str]()
    try:
        for message in _messages(path):
            if len(records) == MOST_RECORDS:
                raise ValueError(f"it has more than {MOST_RECORDS:,} history records")
            for number, value in fields(message):
                if number == _HISTORY and isinstance(value, bytes):
                    records.append(_history(value))
                elif number == _RUN and isinstance(value, bytes):
                    name = text(dict(fields(value)).get(_DISPLAY_NAME, b"")) or name
    except EOFError:
        notes = ["the file ends in mid-record (a run that goes on, or was killed)"]
    except ValueError as error:
        raise InputError(f"{path} is no W&B run file that can be read ({error})") from error
    if not records:
        raise InputError(f"{path} holds no history; was anything logged yet?")
    return Table(name, str(path), "W&B offline run", records, (), tuple(notes), "history record")


def _history(message: bytes) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for number, value in fields(message):
        if number == _ITEM and isinstance(value, bytes):
            name, logged = _item(value)
            if name and isinstance(logged, (int, float, str)):
                record[name] = logged
    return record


def _item(message: bytes) -> tuple[str, Any]:
    names: list[str] = []
    raw: Value = b"null"
    for number, value in fields(message):
        if number in (_KEY, _NESTED):
            names.append(text(value))
        elif number == _JSON:
            raw = value
    try:
        return "/".join(names), parse_json(text(raw))
    except ValueError:
        return "", None


def _messages(path: Path) -> Iterator[bytes]:
    """Whole records; raises `EOFError` at a cut one, `ValueError` for another format."""
    with path.open("rb") as file:
        if file.read(_HEADER)[:4] != _MAGIC:
            raise ValueError("it does not begin as one")
        at = _HEADER
        parts: list[bytes] = []
        size = 0
        while True:
            left = _BLOCK - at % _BLOCK
            if left < _HEADER:
                at += len(file.read(left))
                continue
            header = file.read(_HEADER)
            if not header:
                return
            if len(header) < _HEADER:
                raise EOFError
            _, length, kind = struct.unpack("<IHB", header)
            data = file.read(length)
            at += _HEADER + length
            if len(data) < length or kind == 0:
                raise EOFError
            if kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
                raise ValueError(f"a part of the unknown kind {kind}")
            if kind in (_FULL, _FIRST):
                parts, size = [], 0
            parts.append(data)
            size += length
            if size > _LONGEST:
                raise ValueError("a record has no sensible length")
            if kind in (_FULL, _LAST):
                yield b"".join(parts)
                parts, size = [], 0
