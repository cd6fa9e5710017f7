"""Rows of a data file, streamed: JSONL, a JSON array, CSV, Parquet, Arrow; gzipped JSON too.

What a row *means* is `layouts`' and `formats`' work. Memory stays bounded whatever the file's size.
JSON is read line by line (not through `datasets`, whose JSON builder fails a whole block on one bad
line and forgets line numbers); Parquet goes through `datasets` streaming.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from squeeze.data import containers
from squeeze.errors import InputError
from squeeze.parquet import require_bounded

Row = dict[str, Any]
_BLOCK = 1 << 20
_MAX_ROW = 64 << 20  # one row of a JSON array; more means that a bracket is missing
_BLANK = 1_000_000  # lines on end
_UNPACKED, _RATIO = 64 << 20, 200  # gzip files may unpack to as many bytes, or so many times
_JSON = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz")
_KINDS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".tsv": "csv"}


class RowError(InputError):
    """One row cannot be used; `reason` is the category that summaries count.

    `row` is what the file holds there, as far as it could be read; `rows` counts the rows that are
    lost (two where a pair was made of two).
    """

    def __init__(self, reason: str, detail: str, row: Any = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.row = row
        self.rows = 1


def kind_of(path: Path) -> str:
    """The kind of data file by its name: "json", "csv", "parquet" or "arrow".

    Raises `InputError` for others.
    """
    name = path.name.lower()
    if name.endswith(_JSON):
        return "json"
    if path.suffix.lower() in _KINDS:
        return _KINDS[path.suffix.lower()]
    raise InputError(
        f"{path}: data files end in .jsonl, .json, .csv, .tsv, .parquet, .arrow or .jsonl.gz"
    )


def _as_row(value: Any) -> Row | RowError:
    if isinstance(value, dict):
        return value if is_unicode("".join(value)) else RowError(*_BAD_NAME, value)
    return RowError("not an object", f"holds a JSON {type(value).__name__}, not an object", value)


def _decode_line(line: bytes, number: int) -> Row | RowError:
    try:
        return _as_row(json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")))
    except UnicodeDecodeError as error:
        detail = f"is not UTF-8 ({error.reason})"
        return RowError("not UTF-8", detail, line.decode("utf-8", "backslashreplace"))
    except (ValueError, RecursionError) as error:
        return RowError("not JSON", f"is not JSON ({error})", line.decode("utf-8").rstrip("\n"))


_BAD_NAME = ("not Unicode", "has a lone surrogate in a column's name")


def is_unicode(text: str) -> bool:
    """Whether the text holds no lone surrogate, so that it can be written to a file."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class RowReader:
    """Iterates (row number, row), numbers from 1: JSONL lines, array elements, rows of tables.

    A row that cannot be read comes as a `RowError` in its place. `position` of `extent` (bytes, or
    rows of Parquet) tells how far it is; `extent` is None for compressed files. Raises `InputError`
    when the file is missing, empty, of an unknown kind, or broken beyond the row.
    """

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            files = ", ".join(sorted(file.name for file in path.iterdir())[:5])
            raise InputError(f"{path} is a directory; give one of its files ({files or 'none'})")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is a pipe or a device, not a file; write its rows to a file")
        if not path.is_file():
            raise InputError(f"the data file {path} does not exist")
        self.path = path
        self.kind = kind_of(path)
        self.position = 0
        self.extent: int | None = None
        self.compressed = path.name.lower().endswith(".gz")
        self._most = max(_UNPACKED, _RATIO * path.stat().st_size)  # of bytes unpacked
        if self.kind in ("json", "csv") and not self.compressed:
            self.extent = path.stat().st_size

    def n_bytes(self) -> int:
        """About how many bytes of text the rows are: the file's size, or what it unpacks to."""
        return self.path.stat().st_size * (5 if self.compressed or self.kind == "parquet" else 1)

    def __iter__(self) -> Iterator[tuple[int, Row | RowError]]:
        empty = True
        try:
            reading = {"json": self._json, "csv": self._csv}.get(self.kind, self._table)
            for item in reading():
                empty = False
                yield item
        except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
            raise InputError(f"{self.path} cannot be read ({error})") from error
        if empty:
            raise InputError(f"{self.path} is empty: it holds no rows")

    def _table(self) -> Iterator[tuple[int, Row | RowError]]:
        import pyarrow
        import pyarrow.parquet
        from datasets import load_dataset

        try:
            if self.kind == "parquet":
                self.extent = pyarrow.parquet.read_metadata(self.path).num_rows
                require_bounded(self.path)
            else:
                with pyarrow.OSFile(str(self.path)) as file:
                    pyarrow.ipc.open_stream(file).schema  # noqa: B018
        except ValueError as error:  # pyarrow's ArrowInvalid is one
            raise InputError(
                f"{self.path} is not a file of {self.kind.capitalize()} that can be read ({error})"
            ) from error
        try:
            rows = load_dataset(self.kind, data_files=str(self.path), split="train", streaming=True)
            for number, row in enumerate(rows, start=1):
                self.position = number
                yield number, row
        except (pyarrow.ArrowException, ValueError) as error:  # a damaged part behind the header
            raise InputError(f"{self.path} cannot be read ({error})") from error

    def _csv(self) -> Iterator[tuple[int, Row | RowError]]:
        """Rows of a table with a header; all cells are texts, and an empty one is none."""
        with self.path.open(encoding="utf-8-sig", newline="") as stream:
            lines = iter(lambda: self._read_line(stream), "")
            head = next(lines, "")
            between = max("\t" if self.path.suffix.lower() == ".tsv" else ",", ";", key=head.count)
            csv.field_size_limit(_MAX_ROW)
            names = next(csv.reader([head], delimiter=between), [])
            if len(set(names)) < len(names) or "" in names[1:]:
                raise InputError(f"{self.path} has no header of distinct names in its first line")
            table = csv.reader(lines, delimiter=between)
            for number, cells in enumerate(table, start=1):
                if len(cells) == len(names):
                    yield number, {n: c for n, c in zip(names, cells, strict=True) if n and c}
                elif cells:
                    detail = f"has {len(cells)} cells under a header of {len(names)}"
                    yield number, RowError("not as wide as the header", detail, cells)

    def _read_line(self, stream: io.TextIOWrapper) -> str:
        line = stream.readline(_MAX_ROW)
        self._count(len(line))
        return line

    def _json(self) -> Iterator[tuple[int, Row | RowError]]:
        opener = gzip.open if self.compressed else open
        with cast(io.BufferedIOBase, opener(self.path, "rb")) as stream:
            start = stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
            if start.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise InputError(f"{self.path} is not UTF-8 but UTF-16; save it as UTF-8")
            stream.seek(0)
            if start.startswith(b"["):
                raw = cast(io.BufferedReader, stream)
                with io.TextIOWrapper(raw, encoding="utf-8-sig") as text:
                    yield from self._array(text)
            elif start.startswith(b"{") and (rows := self._of_one_object(stream)) is not None:
                yield from enumerate(map(_as_row, rows), start=1)
            else:
                stream.seek(0)
                yield from self._lines(stream)

    def _of_one_object(self, stream: io.BufferedIOBase) -> list[Any] | None:
        """The rows of a small file that is one object, or objects over many lines; else None."""
        if self.extent is None or self.extent > _MAX_ROW:
            return None
        first, behind = stream.readline(_MAX_ROW), stream.read(1024)
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            pass
        else:
            if behind.strip() or len(behind) == 1024:
                return None  # a row a line
        stream.seek(0)
        try:
            values = containers.objects(stream.read().decode("utf-8-sig").strip())
        except UnicodeDecodeError:
            return None
        if not values:
            return None
        try:
            inner = containers.unwrapped(values[0]) if len(values) == 1 else None
        except InputError as error:
            raise InputError(f"{self.path} {error}") from None
        return values if inner is None else inner

    def _lines(self, stream: io.BufferedIOBase) -> Iterator[tuple[int, Row | RowError]]:
        blank = 0
        for number, line in enumerate(iter(lambda: stream.readline(_MAX_ROW), b""), start=1):
            self._count(len(line))
            blank = 0 if line.strip() else blank + 1
            if blank == _BLANK:
                raise InputError(f"{self.path} has {_BLANK:,} blank lines up to row {number}")
            if len(line) == _MAX_ROW:
                raise InputError(
                    f"{self.path}, row {number} is longer than {_MAX_ROW >> 20} MB; a row is a line"
                )
            if line.strip():
                yield number, _decode_line(line, number)

    def _count(self, length: int) -> None:
        """Count what was read; raises `InputError` for a file that unpacks beyond all text."""
        self.position += length
        if self.compressed and self.position > self._most:
            raise InputError(
                f"{self.path} unpacks to more than {_RATIO} times its size, which no text does; "
                "unpack it yourself (gunzip) if it is what it should be"
            )

    def _read(self, stream: io.TextIOWrapper, size: int) -> str:
        block = stream.read(size)
        self._count(len(block))  # characters: an underestimate of bytes that a bar can bear
        return block

    def _array(self, stream: io.TextIOWrapper) -> Iterator[tuple[int, Row | RowError]]:
        """Elements of one big array, decoded from a sliding buffer that begins at '[' or ','.

        A syntax error ends the file, because where the next element begins is then unknown.
        """
        buffer, place, number = self._read(stream, max(_BLOCK, 512)).lstrip(), 0, 0
        while True:
            try:
                value, end = _element(buffer, place + 1)
            except ValueError as error:  # not JSON, or not all of it is in the buffer yet
                more = self._read(stream, max(_BLOCK, len(buffer) - place))
                if not more or len(buffer) - place > _MAX_ROW:
                    raise InputError(
                        f"{self.path}, row {number + 1} is not JSON ({error}); the rows behind it "
                        "cannot be found, so correct it (or write one object a line, as .jsonl)"
                    ) from None
                buffer, place = buffer[place:] + more, 0
                continue
            if value is not _NOTHING:
                number += 1
                yield number, _as_row(value)
            if buffer[end] == "]":
                if buffer[end + 1 :].strip() or self._read(stream, _BLOCK).strip():
                    raise InputError(f"{self.path}: text stands behind the array's closing bracket")
                return
            place = end


_NOTHING = object()
_SPACE = re.compile(r"[ \t\r\n]*")


def _element(buffer: str, start: int) -> tuple[Any, int]:
    """The element at `start` (`_NOTHING` at the closing bracket) and where ',' or ']' follows.

    Raises `ValueError` when either is not in the buffer.
    """
    start = cast(re.Match[str], _SPACE.match(buffer, start)).end()
    if buffer.startswith("]", start):
        return _NOTHING, start
    try:
        value, end = json.JSONDecoder().raw_decode(buffer, start)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    end = cast(re.Match[str], _SPACE.match(buffer, end)).end()
    if buffer[end : end + 1] not in (",", "]"):
        raise ValueError("no ',' or ']' follows it")
    return value, end
