"""Rows to a data file, streamed: JSONL, a JSON array or Parquet, by the file's extension."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from squeeze.data.layouts import EXTRA_KINDS
from squeeze.data.rows import Row
from squeeze.errors import InputError

if TYPE_CHECKING:
    import pyarrow

_BATCH = 2000  # rows of a Parquet row group


def _schema(format: str) -> pyarrow.Schema:
    """The Parquet schema of a format that is written; every extra response kind is a column."""
    import pyarrow as pa

    text = pa.string()

    def messages(role: str = "role", content: str = "content") -> pyarrow.DataType:
        return pa.list_(pa.struct([(role, text), (content, text)]))

    answer = pa.struct([("from", text), ("value", text)])
    kinds = [(kind, text) for kind in EXTRA_KINDS]
    chat = messages()
    columns = {
        "squeeze": [
            *(("id", text), ("prompt", chat), ("chosen", text), ("rejected", text)),
            ("responses", pa.list_(pa.struct([("kind", text), ("text", text)]))),
        ],
        "trl": [(name, text) for name in ("id", "prompt", "chosen", "rejected")] + kinds,
        "trl-conversational": [
            *(("id", text), ("prompt", chat), ("chosen", chat), ("rejected", chat)),
            *kinds,
        ],
        "alpaca": [
            *((name, text) for name in ("instruction", "input", "chosen", "rejected", "system")),
            ("history", pa.list_(pa.list_(text))),
        ],
        "comparison": [("instruction", text), ("input", text), ("output", pa.list_(text))],
        "sharegpt": [
            ("conversations", messages("from", "value")),
            *(("chosen", answer), ("rejected", answer)),
        ],
        "openai": [
            ("input", pa.struct([("messages", chat)])),
            *(("preferred_output", chat), ("non_preferred_output", chat)),
        ],
        "hh": [("chosen", text), ("rejected", text)],
        "kto": [("id", text), ("prompt", chat), ("completion", chat), ("label", pa.bool_())],
    }
    return pa.schema(columns[format])


def _for_parquet(row: Row) -> Row:
    """Parquet has no open-ended objects: responses become a list of kind and text."""
    if isinstance(row.get("responses"), dict):
        return row | {"responses": [{"kind": k, "text": t} for k, t in row["responses"].items()]}
    return row


Write = Callable[[Row], None]


@contextmanager
def _parquet(path: Path, format: str) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet

    schema = _schema(format)
    batch: list[Row] = []
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            batch.clear()

        def write(row: Row) -> None:
            batch.append(_for_parquet(row))
            if len(batch) == _BATCH:
                flush()

        yield write
        if batch:
            flush()


@contextmanager
def _json(path: Path, array: bool) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        encode = json.JSONEncoder(ensure_ascii=False).encode
        before = "[\n" if array else ""

        def write(row: Row) -> None:
            nonlocal before
            stream.write(before + encode(row))
            before = ",\n" if array else "\n"

        yield write
        stream.write("" if before == "" else "\n]\n" if array else "\n")


def check_extension(path: Path) -> None:
    """Raise `InputError` unless the file can be written: .jsonl, .json or .parquet."""
    if path.suffix not in (".jsonl", ".json", ".parquet"):
        raise InputError(f"{path}: the output must end in .jsonl, .json or .parquet")


@contextmanager
def open_writer(path: Path, suffix: str, format: str) -> Iterator[Write]:
    """A function that writes one row of the format to `path`; `suffix` says how (".jsonl", …)."""
    if suffix == ".parquet":
        with _parquet(path, format) as write:
            yield write
    else:
        with _json(path, array=suffix == ".json") as write:
            yield write
