"""Lines of a console inside of JSON: what container engines, clusters and Kaggle keep of a run.

Docker writes {"log": "..."} a line, Kaggle a list of {"stream_name": ..., "data": ...}, log
services {"message": ...}. The lines are then read as if they stood by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from squeeze.diagnosis.readers import console, markup
from squeeze.diagnosis.readers.records import Table
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.readers.text import parse_json

_FIELDS = ("log", "data", "message", "msg", "text", "line", "textPayload", "@message")


def _field(record: Any) -> str:
    """The field of a record that holds a console's line; "" where none does."""
    if not isinstance(record, dict):
        return ""
    return next((name for name in _FIELDS if isinstance(record.get(name), str)), "")


def _recognise(source: Source) -> bool:
    if source.is_directory or source.suffix in (".csv", ".tsv", ".md", ".ipynb"):
        return False
    first = source.lines[0][1].strip()
    try:
        return bool(_field(parse_json(first.lstrip("[").rstrip(",]"))))
    except ValueError:
        return False


@reader("console lines inside of JSON", recognise=_recognise, order=38)
def read(source: Source) -> list[Table] | None:
    """Read the lines that JSON Lines or a JSON list hold; None if they tell of no run."""
    lines: list[tuple[int, str]] = []
    for number, line in source.lines:
        try:
            record = parse_json(line.strip().strip(",").removeprefix("[").removesuffix("]"))
        except ValueError:
            continue
        name = _field(record)
        if name:
            lines += [(number, part) for part in record[name].replace("\r", "\n").split("\n")]
    return read_shown(Source.of_lines(source.path, lines), source.notes)


def read_shown(source: Source, notes: Sequence[str] = ()) -> list[Table] | None:
    """What a console or a cell shows: printed dicts, a table, or named values."""
    for read_text in (
        console.read_dicts,
        markup.read_markdown,
        markup.read_aligned,
        console.read_pairs,
        markup.read_accompanying,
    ):
        tables = read_text(source)
        if tables:
            return [replace(t, notes=(*notes, *t.notes)) for t in tables if isinstance(t, Table)]
    return None
