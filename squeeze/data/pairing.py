"""Unpaired (KTO-style) rows to pairs, and ids seen before: what must be remembered across rows.

Millions of rows take bounded memory: rows that may pair are sorted into files by their prompt, and
one file after the other is paired in memory; ids lie in a temporary SQLite database on disk.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from squeeze.data import rating
from squeeze.data.examples import Message, PreferenceExample, Turns, content_id, make_example
from squeeze.data.layouts import Rules, Unpaired
from squeeze.data.rows import Row, RowError

PART = 4 << 20  # bytes of rows that are paired in memory together
_MOST_PARTS = 256


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

    def _before(self, identity: str, number: int) -> int | None:
        """The row where the id occurred before; None if it is new, and remembered from now on."""
        key = _key(identity)
        added = self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, 1)", (key, number))
        if added.rowcount == 1:
            return None
        return int(self._db.execute("SELECT row FROM seen WHERE key = ?", (key,)).fetchone()[0])

    def distinct(self, example: PreferenceExample, number: int) -> PreferenceExample:
        """The example of this row; a repeated pair that has its id from its text gets `-2`, `-3`.

        Raises `RowError` when the row's own id occurred before.
        """
        before = self._before(example.id, number)
        if before is None:
            return example
        if example.id != content_id(example.prompt, example.chosen, example.rejected):
            raise RowError("duplicate id", f"has the id {example.id!r}, which row {before} has too")
        while True:
            copy = f"{example.id}-{self._copy(example.id)}"
            if self._before(copy, number) is None:
                return replace(example, id=copy)

    def _copy(self, identity: str) -> int:
        """Count one more copy of an id: 2, 3, …, in the same time for the thousandth one."""
        counted = "UPDATE seen SET copies = copies + 1 WHERE key = ? RETURNING copies"
        return int(self._db.execute(counted, (_key(identity),)).fetchone()[0])


def n_parts(n_bytes: int) -> int:
    """How many files to sort this many bytes of rows into."""
    return min(n_bytes // PART + 1, _MOST_PARTS)


Entry = tuple[int, Unpaired, str]  # the row as JSON


def pair_rows(
    rows: Iterator[tuple[int, Row | RowError]],
    parse: Callable[[Row], Unpaired],
    parts: int = 1,
    rated_by: Rules | None = None,
) -> Iterator[tuple[int, PreferenceExample | RowError]]:
    """Pair wanted with unwanted answers to the same prompt, first come, first served.

    Where the rows have grades in place of labels, `rated_by` says which of them make pairs.

    Rows that cannot be read come first; then part by part (of `parts`, by the prompt) the pairs,
    each with the number of its later row, and the rows left alone, as `RowError`.
    """
    with ExitStack() as stack:
        files = [
            stack.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
            for _ in range(parts)
        ]
        for number, row in rows:
            try:
                if isinstance(row, RowError):
                    raise row
                one = parse(row)
            except RowError as error:
                error.row = row if isinstance(row, dict) else error.row
                yield number, error
                continue
            prompt = [(m.role, m.content) for m in one.prompt]
            # `default`: Parquet has dates and bytes; columns with a part in the pair have none.
            told = json.dumps(row, default=str)
            held = (number, one.id, prompt, one.completion, one.label, one.grade, told)
            line = json.dumps(held)
            files[_key(json.dumps(prompt)) % parts].write(line + "\n")
        for file in files:
            file.seek(0)
            entries = map(_entry, file)
            yield from _rank_part(entries, rated_by) if rated_by else _pair_part(entries)


def _entry(line: str) -> Entry:
    number, identity, prompt, completion, label, grade, row = json.loads(line)
    turns = tuple(Message(role, content) for role, content in prompt)
    return number, Unpaired(identity, turns, completion, label, grade), row


def _rank_part(
    entries: Iterable[Entry], rules: Rules
) -> Iterator[tuple[int, PreferenceExample | RowError]]:
    """The pairs of rated answers, and the rows whose prompt has no two that differ in rating."""
    by_prompt: dict[Turns, list[Entry]] = {}
    for entry in entries:
        by_prompt.setdefault(entry[1].prompt, []).append(entry)
    for prompt, group in by_prompt.items():
        try:
            if len(group) == 1:
                raise RowError("unpaired: no other answer", "is the only answer to its prompt")
            rated = [(one.grade or 0.0, (number, one)) for number, one, _ in group]
            pairs, ties = rating.pairs(rated, rules.pairs_by)
            made = [
                (
                    max(best[0], worst[0]),
                    make_example(
                        None,
                        prompt,
                        best[1].completion,
                        worst[1].completion,
                        {f"rank_{n}": one.completion for n, (_, one) in enumerate(between, 2)},
                    ),
                )
                for best, worst, between in pairs
            ]
        except RowError as error:
            for number, _, row in group:
                yield number, RowError(error.reason, str(error), json.loads(row))
        else:
            rules.counts["tied pairs"] += ties
            yield from made


def _pair_part(entries: Iterable[Entry]) -> Iterator[tuple[int, PreferenceExample | RowError]]:
    waiting: dict[tuple[Turns, bool], deque[Entry]] = {}
    for entry in entries:
        number, one, _ = entry
        others = waiting.get((one.prompt, not one.label))
        if not others:
            waiting.setdefault((one.prompt, one.label), deque()).append(entry)
            continue
        met = (others.popleft(), entry)
        chosen, rejected = sorted((e[1] for e in met), key=lambda e: not e.label)
        identity = chosen.id if chosen.id == rejected.id else None
        try:
            pair = make_example(identity, one.prompt, chosen.completion, rejected.completion)
        except RowError as error:  # a bad pair costs both rows
            for place, _, row in met:
                yield place, RowError(error.reason, str(error), json.loads(row))
        else:
            yield number, pair
    for number, one, row in sorted((e for left in waiting.values() for e in left), key=_number):
        missing = "rejected (label false)" if one.label else "chosen (label true)"
        reason = f"unpaired: no {missing} answer"
        detail = f"is the only answer left to its prompt: no {missing} one pairs with it"
        yield number, RowError(reason, detail, json.loads(row))


def _number(entry: tuple[int, Any, Any]) -> int:
    return entry[0]
