"""Jupyter notebooks: the table or the printed lines that a training left in a cell's output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from squeeze.diagnosis.readers import markup
from squeeze.diagnosis.readers.columns import tells
from squeeze.diagnosis.readers.records import Table
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.readers.wrapped import read_shown
from squeeze.errors import InputError

_NAME = "Jupyter notebook"


def _output(path: Path, text: str) -> Source:
    """One output of a cell, as if it were a file."""
    return Source.of_lines(path, list(enumerate(text.replace("\r", "\n").split("\n"), 1)))


@reader(_NAME, recognise=lambda s: s.suffix == ".ipynb", order=15)
def read(source: Source) -> list[Table]:
    """Read what the cells show.

    Raises `InputError` if no output tells of a run, and asks which where several do.
    """
    try:
        document = source.document
    except ValueError as error:
        raise InputError(f"{source.path} is no notebook that can be read ({error})") from error
    cells = document.get("cells") if isinstance(document, Mapping) else None
    if not isinstance(cells, list):
        raise InputError(f"{source.path} is no notebook that can be read (it lists no cells)")
    found = [
        (number, table)
        for number, cell in enumerate(cells, 1)
        for table in _tables(source.path, cell)
    ]
    telling = [(number, t) for number, t in found if tells(t)]
    distinct = {str(t.records): (number, t) for number, t in telling or found}
    if not distinct:
        raise InputError(
            f"{source.path}: no cell's output holds a table or printed lines with chosen and "
            "rejected; run it with its outputs saved, or give the trainer's trainer_state.json"
        )
    if len(distinct) > 1:
        listed = "; ".join(
            f"cell {number} ({len(t.records)} rows)" for number, t in list(distinct.values())[:8]
        )
        raise InputError(
            f"{source.path} shows {len(distinct)} runs: {listed}; which one? Save that cell's "
            "output to a file of its own"
        )
    ((number, table),) = distinct.values()
    return [replace(table, unit=f"cell {number}, line", notes=(*source.notes, *table.notes))]


def _tables(path: Path, cell: Any) -> Iterator[Table]:
    """The tables of one cell; of HTML and text of the same output the first that has one."""
    listed = cell.get("outputs") if isinstance(cell, Mapping) else None
    outputs = [o for o in listed if isinstance(o, Mapping)] if isinstance(listed, list) else []
    streamed = "".join(_text(o.get("text")) for o in outputs)
    kept = [o.get("data") for o in outputs]
    shown = [data for data in kept if isinstance(data, dict)]
    for data in shown:
        yield from _first(path, _text(data.get("text/html")), _text(data.get("text/plain")))
    if not shown or streamed.strip():
        yield from _first(path, "", streamed)


def _first(path: Path, html: str, text: str) -> Iterator[Table]:
    if html:
        shown = list(markup.html_tables(html))
        rows = markup.telling(shown) or markup.known(shown)
        if rows:
            yield markup.as_table(_output(path, html), rows[0], _NAME)
            return
    if not text.strip():
        return
    tables = read_shown(_output(path, text))
    if tables:
        yield replace(tables[0], format=_NAME)


def _text(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value or "")
