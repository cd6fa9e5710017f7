"""CSV and the like: W&B's exports (a column a run and metric), TensorBoard's, plain tables."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from squeeze.diagnosis.names import is_step, recognise
from squeeze.diagnosis.readers.records import Table
from squeeze.diagnosis.readers.text import read_text
from squeeze.diagnosis.series import TELLING
from squeeze.errors import InputError

DELIMITERS = ",\t;"
_SPREAD = ("__MIN", "__MAX")
_TAGS = ("tag", "metric", "key", "name")


def read_csv(path: Path, text: str) -> list[Table]:
    """Read a table with a header into one table a run.

    Raises `InputError` for a missing header, a column that is there twice, or a row with more or
    fewer fields than the header.
    """
    header, records, lines, notes = _rows(path, text)
    runs = _wandb_runs(header)
    if runs:
        return [_wandb_table(path, name, columns, records, lines) for name, columns in runs.items()]
    kept = [name for name in header if name and not name.endswith(_SPREAD)]
    plain = [{name: record[name] for name in kept if record[name] != ""} for record in records]
    lowered = {name.lower(): name for name in kept}
    if lowered.keys() == {"wall time", "step", "value"}:
        return [_tensorboard_table(path, plain, lines)]
    tag = next((lowered[name] for name in _TAGS if name in lowered), None)
    if tag is not None and "value" in lowered:
        plain = [_spread(record, tag, lowered["value"]) for record in plain]
    return [Table(path.stem, str(path), "CSV", plain, lines, notes)]


def markdown_table(text: str) -> str | None:
    """The table of a model card (tab-separated), whose unprefixed metrics are evaluations; or None.

    transformers writes one with the columns Training Loss, Epoch, Step and what was evaluated.
    """
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.split("\n")
        if line.lstrip().startswith("|") and not re.fullmatch(r"[\s|:-]+", line)
    ]
    first = next((i for i, row in enumerate(rows) if _is_telling(row)), None)
    if first is None:
        return None
    header = [n if is_step(n) or n.startswith("Training") else f"eval_{n}" for n in rows[first]]
    block = [header, *(row for row in rows[first + 1 :] if len(row) == len(header))]
    return "\n".join("\t".join(row) for row in block)


def _is_telling(header: list[str]) -> bool:
    meanings = [recognise(name) for name in header]
    return any(m is not None and m.quantity in TELLING for m in meanings)


def read_tensorboard(paths: Sequence[Path]) -> Table:
    """Read TensorBoard's CSV exports, a scalar each, as one run."""
    tables = [read_csv(path, read_text(path))[0] for path in paths]
    records = [record for table in tables for record in table.records]
    directory = paths[0].parent
    return replace(tables[0], name=directory.name, source=str(directory), records=records, lines=())


def is_tensorboard(path: Path) -> bool:
    """Whether that is a scalar as TensorBoard exports it."""
    if path.suffix != ".csv":
        return False
    with path.open("rb") as file:
        return file.readline(100).strip().lower() == b"wall time,step,value"


def _rows(
    path: Path, text: str
) -> tuple[list[str], list[dict[str, str]], list[int], tuple[str, ...]]:
    """Header, records, their lines and notes."""
    numbered = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    first = numbered[0][1]
    delimiter = max(DELIMITERS, key=first.count)
    try:
        rows = list(csv.reader((line for _, line in numbered), delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"{path} is no CSV that can be read ({error})") from error
    header = [name.strip() for name in rows[0]]
    _require_header(path, header)
    records: list[dict[str, str]] = []
    lines: list[int] = []
    for number, row in zip((n for n, _ in numbered[1:]), rows[1:], strict=False):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            if number == numbered[-1][0] and records and len(row) < len(header):
                note = f"line {number}, the last, is cut off and was left out"
                return header, records, lines, (note,)
            raise InputError(
                f"{path}, line {number} has {len(row)} fields, but the header has {len(header)}"
            )
        if delimiter == ";":  # where it separates fields, the comma separates decimals
            row = [re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", cell) for cell in row]
        records.append(dict(zip(header, row, strict=True)))
        lines.append(number)
    if not records:
        raise InputError(f"{path} has a header but no values")
    return header, records, lines, ()


def _require_header(path: Path, header: list[str]) -> None:
    known = [name for name in header if recognise(_metric(name)) or is_step(name)]
    if not known:
        raise InputError(
            f"{path}: the first row is no header that a diagnosis knows ({', '.join(header[:6])}); "
            "export the chart with its column names"
        )
    twice = [name for name, n in Counter(known).items() if n > 1]
    if twice:
        raise InputError(
            f"{path} has the column {twice[0]!r} twice; rename or delete one, so that it is known "
            "which is meant"
        )


def _metric(name: str) -> str:
    return name.rpartition(" - ")[2]


def _wandb_runs(header: list[str]) -> dict[str, dict[str, str]]:
    """For "<run> - <metric>" headers: run -> column -> metric, without the spread columns."""
    runs: dict[str, dict[str, str]] = {}
    for name in header:
        run, dash, metric = name.rpartition(" - ")
        if dash and not name.endswith(_SPREAD) and (recognise(metric) or is_step(metric)):
            runs.setdefault(run, {})[name] = metric
    return runs


def _wandb_table(
    path: Path,
    run: str,
    columns: dict[str, str],
    records: list[dict[str, str]],
    lines: list[int],
) -> Table:
    kept: list[dict[str, Any]] = []
    numbers: list[int] = []
    for record, number in zip(records, lines, strict=True):
        values = {metric: record[name] for name, metric in columns.items() if record[name] != ""}
        values = {k: v for k, v in values.items() if not is_step(k)}
        if values:
            steps = {k: v for k, v in record.items() if is_step(k) and v != ""}
            kept.append(steps | values)
            numbers.append(number)
    return Table(run, str(path), "W&B CSV export", kept, numbers)


def _tensorboard_table(path: Path, records: list[dict[str, str]], lines: list[int]) -> Table:
    """The tag is in the file's name alone: "run-NAME-tag-train_rewards_chosen.csv"."""
    tag = re.split("tag[-_]", path.stem)[-1]
    named = [
        {("step" if name.lower() == "step" else tag): value for name, value in record.items()}
        for record in ({k: v for k, v in r.items() if k.lower() != "wall time"} for r in records)
    ]
    return Table(path.stem, str(path), "TensorBoard CSV export", named, lines)


def _spread(record: dict[str, str], tag: str, value: str) -> dict[str, str]:
    """A row of the long form (a tag and its value) under the tag's own name."""
    rest = {k: v for k, v in record.items() if k not in (tag, value)}
    return rest | ({record[tag]: record[value]} if tag in record and value in record else {})
