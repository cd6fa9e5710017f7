"""Rows within one JSON object (under a key, as columns, over many lines), and lists within cells.

Pure functions of values; `rows` and `sources` say when they are asked.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from typing import Any

from squeeze.errors import InputError

_OUTER = {
    *("data", "rows", "train", "test", "validation", "eval", "dev", "examples", "instances"),
    *("items", "samples", "dataset", "records", "entries", "pairs", "preferences"),
}


def objects(text: str) -> list[Any] | None:
    """The JSON values that stand one after the other in a text, over lines; None if others do."""
    decoder, place, found = json.JSONDecoder(), 0, []
    while place < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return None
        found.append(value)
        while text[place : place + 1].isspace():
            place += 1
    return found


def unwrapped(value: Any) -> list[Any] | None:
    """The rows of an object that holds rows and is none itself; None where it is a row.

    Read are {"data": [rows]}, the answers of the datasets server, an object of columns
    ({"prompt": [...], "chosen": [...]}) and pandas' ({"prompt": {"0": ...}}). Raises `InputError`
    where several lists of rows stand side by side.
    """
    if not isinstance(value, dict) or not value:
        return None
    lists = {name: part for name, part in value.items() if _holds_rows(part)}
    if not lists.keys() <= _OUTER:
        lists = {}
    if len(lists) > 1 and len(lists) == len(value):
        raise InputError(
            f"holds several lists of rows ({', '.join(lists)}); write one of them to a file"
        )
    if len(lists) == 1:
        (rows,) = lists.values()
        return [row["row"] if set(row) >= {"row", "row_idx"} else row for row in rows]
    columns = list(value.values())
    if all(isinstance(part, dict) and part and _is_numbered(part) for part in columns):
        columns = [list(part.values()) for part in columns]
    if len(columns) < 2 or not all(isinstance(part, list) and part for part in columns):
        return None
    plain = not any(isinstance(cell, dict) for part in columns for cell in part)
    if not plain or len({len(part) for part in columns}) > 1:
        return None
    return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _holds_rows(part: Any) -> bool:
    """Whether it is a list of objects that are no messages."""
    return (
        isinstance(part, list)
        and bool(part)
        and all(isinstance(row, dict) and {"role", "from"}.isdisjoint(row) for row in part)
    )


def _is_numbered(part: dict[str, Any]) -> bool:
    return list(part) == [str(n) for n in range(len(part))]


_LONGEST = 4 << 20  # characters of a cell that is parsed


def parse_cell(value: Any) -> Any:
    """The list that a text holds, as JSON or as Python prints it; the value itself otherwise.

    Only lists of texts or of messages: what `to_csv` and some data sets make of conversations.
    """
    if not isinstance(value, str) or not value.startswith("[") or len(value) > _LONGEST:
        return value
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        texts = all(isinstance(one, str | None) for one in parsed)
        return parsed if parsed and (texts or _are_messages(parsed)) else value
    return value


def _are_messages(parsed: Iterable[Any]) -> bool:
    return all(
        isinstance(turn, dict)
        and any(key in turn for key in ("role", "from"))
        and any(key in turn for key in ("content", "value"))
        for turn in parsed
    )
