"""A data file into another format: streamed, counted, bad rows set aside, none silently dropped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from squeeze.data.examples import PreferenceExample, content_id
from squeeze.data.formats import FORMATS
from squeeze.data.layouts import EXTRA_KINDS, Rules
from squeeze.data.probe_set import KINDS
from squeeze.data.rows import Row, RowError
from squeeze.data.sources import Source, named, open_source
from squeeze.data.writing import WRITABLE, check_extension, lossless, open_writer, rows_of
from squeeze.errors import InputError
from squeeze.files import replacing

_LONGEST = 1 << 20  # characters of a side file's first line that are looked at
_EVERY = 1000  # rows between two calls of `progress`
_EXTRA = frozenset(EXTRA_KINDS)
Progress = Callable[[int, int | None], None]


@dataclass
class Lengths:
    """Smallest, mean and largest number of characters, counted in passing."""

    count: int = 0
    total: int = 0
    smallest: int = 0
    largest: int = 0

    def add(self, length: int) -> None:
        """Count one more text."""
        if length < self.smallest or not self.count:
            self.smallest = length
        if length > self.largest:
            self.largest = length
        self.count += 1
        self.total += length

    @property
    def mean(self) -> float:
        """The mean length, in characters."""
        return self.total / self.count


@dataclass
class Summary:
    """What a conversion did.

    `not_carried` counts what the output format has no place for: input columns ("column x"),
    response kinds ("response x") and ids ("id", where they are not made from the text). `refused`
    counts rows: rows_in = filtered + refused + rows_per_example · examples, but that a row of rated
    answers may make several pairs (`pairs_by` says by which rule). `left_out` counts tied pairs
    within such rows, and rows whose images were dropped.
    """

    source_format: str
    target_format: str
    rows_in: int = 0
    rows_out: int = 0
    examples: int = 0
    rows_per_example: int = 1
    filtered: int = 0
    first_refusal: str = ""
    refused: Counter[str] = field(default_factory=Counter)
    not_carried: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    pairs_by: str = ""
    lengths: dict[str, Lengths] = field(
        default_factory=lambda: {part: Lengths() for part in ("prompt", "chosen", "rejected")}
    )

    def measure(self, example: PreferenceExample) -> None:
        """Count an example and its lengths."""
        self.examples += 1
        self.lengths["prompt"].add(sum([len(message.content) for message in example.prompt]))
        self.lengths["chosen"].add(len(example.chosen))
        self.lengths["rejected"].add(len(example.rejected))


class SideFile:
    """Refused rows as JSON lines: row number, reason, detail, value; opened with the first one."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._stack = stack
        self._write: Callable[[str], int] | None = None

    def add(self, number: int, error: RowError) -> None:
        """Write one refusal, in ASCII, so that even lone surrogates can be told."""
        if self._write is None:
            temporary = self._stack.enter_context(replacing(self.path))
            self._write = self._stack.enter_context(temporary.open("w", encoding="ascii")).write
        line = {"row": number, "reason": error.reason, "detail": str(error), "value": error.row}
        self._write(json.dumps(line, default=str) + "\n")

    def clear(self) -> None:
        """Remove an earlier conversion's side file when this one refused nothing."""
        if self._write is None:
            self.path.unlink(missing_ok=True)


def side_path(target: Path) -> Path:
    """Where refused rows go: OUT.refused.jsonl."""
    return target.with_name(target.name + ".refused.jsonl")


_SIDE_KEYS = {"row", "reason", "detail", "value"}


def _same(one: Path, other: Path) -> bool:
    """Whether both are there and one file, by whatever names."""
    return one.exists() and other.exists() and one.samefile(other)


def _check_side(side: Path, source: Path) -> None:
    """Raise `InputError` if the side file would take the place of the input or of a stranger."""
    if not side.exists():
        return
    if _same(side, source):
        raise InputError(
            f"{side} is the input, and refused rows would go there; choose another output"
        )
    with side.open(encoding="utf-8", errors="replace") as stream:
        line = stream.readline(_LONGEST)
    try:
        ours = json.loads(line).keys() == _SIDE_KEYS
    except (ValueError, AttributeError, RecursionError):
        ours = len(line) == _LONGEST and line.startswith('{"row": ')
    if not ours:
        raise InputError(
            f"{side} is no file of refused rows, and they would go there; move it, or choose "
            "another output"
        )


def _select(
    source: Source, where: Mapping[str, str], summary: Summary, progress: Progress
) -> Iterator[tuple[int, Row | RowError]]:
    """The source's rows that `where` lets through, counted."""
    readable = None if source.columns is None else source.columns.union(where)
    for number, row in source.rows():
        summary.rows_in += 1
        if summary.rows_in % _EVERY == 0:
            progress(source.reader.position, source.reader.extent)
        if isinstance(row, RowError):
            yield number, row
            continue
        missing = [name for name in where if name not in row]
        if missing:
            name = missing[0]
            yield number, RowError(f"no {name!r}", f"has no {name!r} to filter by", row)
        elif any(row[name] != wanted for name, wanted in where.items()):
            summary.filtered += 1
        else:
            if not (readable and readable.issuperset(row) and _EXTRA.isdisjoint(row)):
                summary.not_carried.update(f"column {name}" for name in _unread(row, readable))
            yield number, row


def _unread(row: Row, readable: frozenset[str] | None) -> list[str]:
    """The columns that are not read: unknown ones, and responses that are no text."""
    unread = []
    for name, value in row.items():
        known = readable is None or name in readable
        response = name in _EXTRA or readable is None
        if not known or (response and not isinstance(value, str | None)):
            unread.append(name)
    return unread


def _lost(example: PreferenceExample, carries: frozenset[str]) -> list[str]:
    """What of the example a format that holds only `carries` leaves behind."""

    def carried(kind: str) -> bool:
        named = "kinds" in carries and kind in KINDS
        return named or "responses" in carries or ("ranks" in carries and kind.startswith("rank_"))

    lost = [f"response {kind}" for kind in example.responses if not carried(kind)]
    if "id" not in carries:
        derived = content_id(example.prompt, example.chosen, example.rejected)
        lost += [] if example.id.startswith(derived) else ["id"]
    return lost


def convert(
    path: Path,
    target: Path,
    to: str,
    *,
    format: str | None = None,
    name: str | None = None,
    where: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    rules: Rules | None = None,
    force: bool = False,
    progress: Progress = lambda position, extent: None,
) -> Summary:
    """Convert a data file; rows that cannot be used go to OUT.refused.jsonl with their numbers.

    `format` names the input's format (recognised otherwise), `name` the data set of a
    dataset_info.json, `where` the values that columns must have; `columns` and `rules` are
    `open_source`'s. Both files appear only when all
    is done. Raises `InputError` when a format or file is wrong, OUT exists (and not `force`), or
    no row can be converted.
    """
    named(to, WRITABLE, "--to")
    check_extension(target)
    if _same(target, path):
        raise InputError(f"{target} is the input; choose another output")
    if target.exists() and not force:
        raise InputError(f"{target} exists; choose another output, or overwrite it with --force")
    _check_side(side_path(target), path)
    source = open_source(path, format, name, columns=columns, rules=rules)
    if _same(target, source.reader.path):  # which a dataset_info.json names
        raise InputError(f"{target} holds the rows; choose another output")
    _check_side(side_path(target), source.reader.path)
    summary = Summary(source.format, to, rows_per_example=source.rows_per_example)
    summary.pairs_by = source.pairs_by()
    with ExitStack() as stack:
        side = SideFile(side_path(target), stack)
        temporary = stack.enter_context(replacing(target))
        write = stack.enter_context(open_writer(temporary, target.suffix, to))
        rows = _select(source, where or {}, summary, progress)
        for number, item in source.examples(rows):
            try:
                written = _written(item, to, summary)
            except RowError as error:
                summary.first_refusal = summary.first_refusal or f"row {number} {error}"
                summary.refused[error.reason] += error.rows
                side.add(number, error)
            else:
                for row in written:
                    write(row)
        if not summary.examples:
            why = summary.first_refusal or "the filter kept none"
            raise InputError(f"no row of {path} could be converted to {to}: {why}")
        side.clear()
    summary.left_out += source.layout.rules.counts
    return summary


def _written(item: PreferenceExample | RowError, target: str, summary: Summary) -> list[Row]:
    """The rows of one example, counted; raises `RowError` when there is none to write."""
    if isinstance(item, RowError):
        raise item
    try:
        rows = rows_of(item, target)
    except RowError as error:
        error.row = lossless(item)
        error.rows = summary.rows_per_example
        raise
    summary.rows_out += len(rows)
    summary.measure(item)
    summary.not_carried.update(_lost(item, FORMATS[target].carries))
    return rows
