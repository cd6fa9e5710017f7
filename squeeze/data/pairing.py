"""Unpaired (KTO-style) rows to pairs, and ids seen before: what must be remembered across rows.

Both live in SQLite's temporary on-disk databases, so that millions of rows take bounded memory.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.layouts import (
    CHAT,
    SHAREGPT,
    Tags,
    Turns,
    alpaca_prompt,
    column,
    content_id,
    one_answer,
    row_id,
    system_turn,
    text,
)
from squeeze.data.layouts import example as checked_example
from squeeze.data.rows import Row, RowError


@dataclass(frozen=True)
class Unpaired:
    """One answer to one prompt, wanted (`label` true) or not."""

    id: str | None
    prompt: Turns
    completion: str
    label: bool


LABELS = ("label", "kto_tag")
_TEXTS = {"true": True, "1": True, "false": False, "0": False}


def parse_label(value: Any, field: str) -> bool:
    """A KTO label: true/false or 1/0, as text too; raises `RowError` otherwise."""
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _TEXTS:
        return _TEXTS[value.strip().lower()]
    raise RowError("bad label", f"has {value!r} in {field!r}, neither true nor false")


def _label(row: Row, name: str | None = None) -> bool:
    """The label in this column, by default the one of `LABELS` that the row has."""
    name = name or next((name for name in LABELS if row.get(name) is not None), LABELS[0])
    return parse_label(column(row, name), name)


def parse_unpaired(row: Row) -> Unpaired:
    """TRL's unpaired format (prompt, completion, label), as texts or message lists."""
    label = _label(row)
    prompt, completion = column(row, "prompt"), column(row, "completion")
    return Unpaired(
        row_id(row),
        (Message("user", text(prompt, "prompt")),)
        if isinstance(prompt, str)
        else CHAT.read(prompt, "prompt"),
        text(completion, "completion")
        if isinstance(completion, str)
        else one_answer(CHAT.read(completion, "completion"), "completion"),
        label,
    )


def parse_unpaired_messages(
    row: Row, tags: Tags = SHAREGPT, messages: str = "conversations", label: str | None = None
) -> Unpaired:
    """A whole conversation, ending in the answer, and a label (LLaMA-Factory's KTO format)."""
    turns = tags.read(column(row, messages), messages)
    completion = one_answer(turns[-1:], messages)
    prompt = (*system_turn(row), *turns[:-1])
    return Unpaired(row_id(row), prompt, completion, _label(row, label))


def parse_unpaired_alpaca(row: Row, label: str | None = None) -> Unpaired:
    """LLaMA-Factory's KTO format in Alpaca's columns: instruction, input, output and a label."""
    output = text(column(row, "output"), "output")
    return Unpaired(row_id(row), alpaca_prompt(row), output, _label(row, label))


def write_unpaired(example: PreferenceExample) -> list[Row]:
    """Two rows of TRL's unpaired format, message lists, the chosen one first."""
    prompt = CHAT.write(example.prompt)

    def row(completion: str, label: bool) -> Row:
        answer = CHAT.write([Message("assistant", completion)])
        return {"id": example.id, "prompt": prompt, "completion": answer, "label": label}

    return [row(example.chosen, True), row(example.rejected, False)]


def _key(value: str) -> int:
    """A 63-bit hash: two of 10 million strings collide with a probability of 5e-6."""
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class SeenIds:
    """The rows in which ids occurred first."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")  # "" is a temporary file that SQLite deletes itself
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA cache_size = -32000")  # kilobytes
        self._db.execute("CREATE TABLE seen (key INTEGER PRIMARY KEY, row INTEGER, copies INTEGER)")

    def close(self) -> None:
        """Let the temporary database go."""
        self._db.close()

    def _first(self, identity: str, number: int) -> int:
        """Remember the id; return the row where it occurred first (`number` itself if new)."""
        key = _key(identity)
        added = self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, 1)", (key, number))
        if added.rowcount == 1:
            return number
        return int(self._db.execute("SELECT row FROM seen WHERE key = ?", (key,)).fetchone()[0])

    def distinct(self, example: PreferenceExample, number: int) -> PreferenceExample:
        """The example of this row; a repeated pair that has its id from its text gets `-2`, `-3`.

        Raises `RowError` when the row's own id occurred before.
        """
        first = self._first(example.id, number)
        if first == number:
            return example
        if example.id != content_id(example.prompt, example.chosen, example.rejected):
            raise RowError("duplicate id", f"has the id {example.id!r}, which row {first} has too")
        while True:
            copy = self._copy(example.id)
            if self._first(f"{example.id}-{copy}", number) == number:
                return replace(example, id=f"{example.id}-{copy}")

    def _copy(self, identity: str) -> int:
        """Count one more copy of an id: 2, 3, …, in the same time for the thousandth one."""
        counted = "UPDATE seen SET copies = copies + 1 WHERE key = ? RETURNING copies"
        return int(self._db.execute(counted, (_key(identity),)).fetchone()[0])


class Waiting:
    """Unpaired rows that wait for an answer of the other label to the same prompt."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE waiting (row INTEGER PRIMARY KEY, key, label, value)")
        self._db.execute("CREATE INDEX by_key ON waiting (key, label, row)")

    def close(self) -> None:
        """Let the temporary database go."""
        self._db.close()

    def put(self, number: int, prompt: str, label: bool, value: str) -> None:
        """Let a row wait."""
        entry = (number, _key(prompt), label, value)
        self._db.execute("INSERT INTO waiting VALUES (?, ?, ?, ?)", entry)

    def take(self, prompt: str, label: bool) -> tuple[int, str] | None:
        """Take the first row with this prompt and label away, if one waits: (number, value)."""
        found: tuple[int, str] | None = self._db.execute(
            "SELECT row, value FROM waiting WHERE key = ? AND label = ? ORDER BY row LIMIT 1",
            (_key(prompt), label),
        ).fetchone()
        if found:
            self._db.execute("DELETE FROM waiting WHERE row = ?", found[:1])
        return found

    def rest(self) -> Iterator[tuple[int, bool, str]]:
        """The rows still waiting, in order: (number, label, value)."""
        for number, label, value in self._db.execute(
            "SELECT row, label, value FROM waiting ORDER BY row"
        ):
            yield number, bool(label), value


def pair_rows(
    rows: Iterator[tuple[int, Row | RowError]], parse: Callable[[Row], Unpaired]
) -> Iterator[tuple[int, PreferenceExample | RowError]]:
    """Pair wanted with unwanted answers to the same prompt, first come, first served.

    A pair comes with the number of its later row; rows left alone come last, as `RowError`.
    """
    with closing(Waiting()) as waiting:
        for number, row in rows:
            if isinstance(row, RowError):
                yield number, row
            else:
                yield from _meet(number, row, parse, waiting)
        for number, label, value in waiting.rest():
            missing = "rejected (label false)" if label else "chosen (label true)"
            reason = f"unpaired: no {missing} answer"
            detail = f"is the only answer left to its prompt: no {missing} one pairs with it"
            yield number, RowError(reason, detail, json.loads(value))


def _meet(
    number: int, row: Row, parse: Callable[[Row], Unpaired], waiting: Waiting
) -> Iterator[tuple[int, PreferenceExample | RowError]]:
    """Pair a row with one that waits for it, or let it wait; a bad pair costs both rows."""
    involved = [(number, row)]
    try:
        one = parse(row)
        prompt = json.dumps([(m.role, m.content) for m in one.prompt])
        waited = waiting.take(prompt, not one.label)
        if waited is None:
            # `default`: Parquet has dates and bytes; columns with a part in the pair have none.
            waiting.put(number, prompt, one.label, json.dumps(row, default=str))
            return
        involved.insert(0, (waited[0], json.loads(waited[1])))
        other = parse(involved[0][1])
        yield number, _pair(one, other) if one.label else _pair(other, one)
    except RowError as error:
        for place, refused in involved:
            yield place, RowError(error.reason, str(error), refused)


def _pair(chosen: Unpaired, rejected: Unpaired) -> PreferenceExample:
    identity = chosen.id if chosen.id == rejected.id else None
    return checked_example(identity, chosen.prompt, chosen.completion, rejected.completion)
