"""The formats of preference data: which one a file has, and the stream of its examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from squeeze.data import layouts
from squeeze.data.examples import PreferenceExample
from squeeze.data.rows import RowError, read_rows


def read_examples(
    path: Path, format: str | None = None
) -> Iterator[tuple[int, PreferenceExample | RowError]]:
    """Stream (row number, example), a `RowError` in the place of a row that cannot be used."""
    for number, row in read_rows(path):
        try:
            if isinstance(row, RowError):
                raise row
            yield number, layouts.parse_trl(row)
        except RowError as error:
            yield number, error
