"""Rows of a data file, streamed: JSONL, a JSON array, Parquet; gzip-compressed JSON too.

What a row *means* is `layouts`' and `formats`' work. Memory stays bounded whatever the file's size.
JSON is read line by line (not through `datasets`, whose JSON builder fails a whole block on one bad
line and forgets line numbers); Parquet goes through `datasets` streaming.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from squeeze.errors import InputError

Row = dict[str, Any]
_BLOCK = 1 << 20
_MAX_ROW = 64 << 20  # one row of a JSON array; more means that a bracket is missing


class RowError(InputError):
    """One row cannot be used; `reason` is the category that summaries count."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def _as_row(value: Any) -> Row | RowError:
    if isinstance(value, dict):
        return value
    return RowError("not an object", f"holds a JSON {type(value).__name__}, not an object")


def _jsonl(stream: IO[bytes]) -> Iterator[tuple[int, Row | RowError]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            yield number, _as_row(json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")))
        except UnicodeDecodeError as error:
            yield number, RowError("not UTF-8", f"is not UTF-8 ({error.reason})")
        except (ValueError, RecursionError) as error:
            yield number, RowError("not JSON", f"is not JSON ({error})")


def _json_array(stream: IO[str], path: Path) -> Iterator[tuple[int, Row | RowError]]:
    """Elements of one big array, decoded from a sliding buffer.

    A syntax error ends the file, because where the next element begins is then unknown.
    """
    decoder = json.JSONDecoder()
    buffer, number, ended = stream.read(_BLOCK).lstrip("\ufeff \t\r\n")[1:], 0, False
    while True:
        buffer = buffer.lstrip(" \t\r\n") if number == 0 else buffer.lstrip(" \t\r\n,")
        if buffer.startswith("]"):
            if (buffer[1:] + stream.read(_BLOCK)).strip():
                raise InputError(f"{path}: there is text behind the closing bracket of the array")
            return
        try:
            value, end = decoder.raw_decode(buffer)
        except (ValueError, RecursionError) as error:
            more = stream.read(max(_BLOCK, len(buffer)))
            if not more or len(buffer) > _MAX_ROW:
                raise InputError(
                    f"{path}, row {number + 1} is not JSON ({error}); the rows behind it cannot "
                    "be found, so fix it (or write one object a line, as .jsonl)"
                ) from None
            buffer += more
            continue
        if end == len(buffer) and not ended:
            # A number may go on in the next block; objects may not, but then this costs nothing.
            more = stream.read(_BLOCK)
            buffer, ended = buffer + more, not more
            continue
        number += 1
        yield number, _as_row(value)
        buffer = buffer[end:]


def _json(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    with _open(path) as stream:
        start = stream.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
        stream.seek(0)
        if not start.startswith(b"["):
            yield from _jsonl(stream)
            return
        import io

        yield from _json_array(io.TextIOWrapper(stream, encoding="utf-8"), path)


def _parquet(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    from datasets import load_dataset

    rows = load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    yield from enumerate(rows, start=1)


def read_rows(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    """Yield (row number, row), numbers from 1: lines of JSONL, elements of an array, Parquet rows.

    A row that cannot be read comes as a `RowError` in the row's place. Raises `InputError` when the
    file is missing, empty, of an unknown kind, or broken beyond the row.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file")
    kind = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if kind == ".parquet":
        rows = _parquet(path)
    elif kind in (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".ndjson"):
        rows = _json(path)
    else:
        raise InputError(f"{path}: data files end in .jsonl, .json, .parquet or .jsonl.gz")
    empty = True
    try:
        for item in rows:
            empty = False
            yield item
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    if empty:
        raise InputError(f"{path} is empty: it holds no rows")
