"""Columns of a row: the paths to the parts of a preference pair, and the values they lead to."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from squeeze.data.rows import Row, RowError
from squeeze.data.turns import text


@dataclass(frozen=True)
class Columns:
    """Paths to the parts of a pair: `chosen`, `input.messages`, `chosen.0.content`, `a|b`.

    `a|b` is the first of the two that the row has. A *prompt* is a text, a list of messages or a
    rendered dialogue; `query` is put behind it on a line of its own, `system` and `history` before.
    The answers are given in one of these ways:

    - `chosen` and `rejected`: texts, messages, or whole conversations (`rejected_prompt` where the
      rejected answer has a prompt of its own);
    - `answers`: a list (or columns, `a+b`), the text of each in its `answer`, and which is better
      in its `rank` (low is good) or `score` (high is good; of columns, `a+b`), in the row's
      `better` (the name or the end of the name of the better column, or the place in the list) or
      `preference` (negative: the first); without any of these, the best comes first;
    - `completion` and `label`: one answer a row, wanted or not; without `completion` it is the
      prompt's last message; or `completion` and `score`: the answers to one prompt stand in rows of
      their own;
    - `tree`: messages with their ranked replies (OpenAssistant).

    `prefill` is what both answers begin with, where they are written without it (Step-DPO).
    """

    prompt: str = ""
    query: str = ""
    system: str = ""
    history: str = ""
    chosen: str = ""
    rejected: str = ""
    answers: str = ""
    answer: str = ""
    rank: str = ""
    score: str = ""
    better: str = ""
    preference: str = ""
    completion: str = ""
    label: str = ""
    tree: str = ""
    rejected_prompt: str = ""
    prefill: str = ""
    id: str = "id"
    tools: str = "tools|input.tools"

    def names(self) -> frozenset[str]:
        """The names of the row's columns that reading uses."""
        paths = [getattr(self, part) for part in PARTS if part not in ("answer", "tools")]
        single = [one for path in paths for one in path.replace("+", "|").split("|") if one]
        return frozenset({*single, *(one.split(".")[0] for one in single)})


PARTS = tuple(part.name for part in fields(Columns))


def value_at(row: Any, path: str) -> Any:
    """The value that a path leads to, None where there is none; a name with dots in it wins.

    A step into a text goes into the JSON object that it holds.
    """
    if not isinstance(row, dict):
        return None
    value = row.get(path)
    if value is not None or ("|" not in path and "." not in path):
        return value
    for one in path.split("|"):
        value = row.get(one)
        if value is None and "." in one:
            value = row
            for step in one.split("."):
                if isinstance(value, str):
                    value = _parsed(value)
                if isinstance(value, dict):
                    value = value.get(step)
                elif isinstance(value, list) and step.lstrip("-").isdecimal():
                    place = int(step)
                    value = value[place] if -len(value) <= place < len(value) else None
                else:
                    value = None
        if value is not None:
            return value
    return None


def present(row: Row, path: str) -> str:
    """The first of a path's alternatives that the row has; its first one where it has none."""
    names = path.split("|")
    return next((name for name in names if value_at(row, name) is not None), names[0])


def _parsed(text: str) -> Any:
    """The object of a text that holds one as JSON, else None."""
    if not text.startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def entries(value: Any) -> list[Any] | None:
    """The entries of a list, or of an object of lists of one length (`datasets` stores them so)."""
    if not isinstance(value, dict):
        return value if isinstance(value, list) else None
    lists = list(value.values())
    if not lists or not all(isinstance(v, list) and len(v) == len(lists[0]) for v in lists):
        return None
    return [dict(zip(value, entry, strict=True)) for entry in zip(*lists, strict=True)]


def required(row: Row, path: str) -> Any:
    """The value that must be there; raises `RowError` naming the column."""
    value = value_at(row, path)
    if value is None:
        name = path.split("|")[0]
        raise RowError(f"no {name!r}", f"has no {name!r} (it has: {', '.join(row) or 'nothing'})")
    return value


def row_id(row: Row, name: str = "id") -> str | None:
    """The row's own id, if it has one."""
    value = value_at(row, name)
    if isinstance(value, str | int | float) and str(value).strip():
        return text(str(value), "id")
    return None  # another type, or empty
