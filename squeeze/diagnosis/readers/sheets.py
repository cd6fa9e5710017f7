"""CSV and TSV: W&B's chart exports (a column a run and metric) and plain tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from squeeze.diagnosis.names import is_step, recognise
from squeeze.diagnosis.readers.tables import Table
from squeeze.errors import InputError

_SPREAD = ("__MIN", "__MAX")


def read_csv(path: Path, text: str) -> list[Table]:
    """Read a CSV or TSV file into one table a run.

    Raises `InputError` for a missing header or a row with more or fewer fields than it.
    """
    delimiter = "\t" if text.splitlines()[0].count("\t") > text.splitlines()[0].count(",") else ","
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    header = [name.strip().lstrip("\ufeff") for name in rows[0]]
    if not any(recognise(_metric(name)) or is_step(name) for name in header):
        raise InputError(
            f"{path}: the first row is no header that a diagnosis knows ({', '.join(header[:6])}); "
            "export the chart with its column names"
        )
    records: list[dict[str, str]] = []
    lines: list[int] = []
    notes: tuple[str, ...] = ()
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            if number == len(rows) and records and len(row) < len(header):
                notes = (f"line {number}, the last, is cut off and was left out",)
                break
            raise InputError(
                f"{path}, line {number} has {len(row)} fields, but the header has {len(header)}"
            )
        records.append(dict(zip(header, row, strict=True)))
        lines.append(number)
    if not records:
        raise InputError(f"{path} has a header but no values")
    runs = _wandb_runs(header)
    if runs:
        return [_wandb_table(path, name, columns, records, lines) for name, columns in runs.items()]
    kept = [name for name in header if not name.endswith(_SPREAD)]
    plain = [{name: record[name] for name in kept if record[name] != ""} for record in records]
    return [Table(path.stem, str(path), "CSV", plain, lines, notes)]


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
