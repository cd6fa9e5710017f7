"""CSV and the like: W&B's exports (a column a run and metric), TensorBoard's, plain tables.

A directory of exports, a chart each, is one run, or several that each chart holds.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from squeeze.diagnosis.names import is_step, recognise
from squeeze.diagnosis.readers.columns import MOST_COLUMNS
from squeeze.diagnosis.readers.records import Table, spread, with_points
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.readers.text import Lines, read_lines, regular
from squeeze.errors import InputError

DELIMITERS = ",\t;|"
_SEPARATOR = re.compile(r"sep=([,;\t|])")  # what Excel writes, and reads, before a header
_SPREAD = ("__MIN", "__MAX")
# SwanLab's columns: the experiment's name, a dash, the metric.
_DASHED = re.compile(r"(.{1,200}?)-((?:train|eval|val|rewards|logps)/.+)")

MOST_RUNS = 500  # in one export


def _is_csv(source: Source) -> bool:
    return not source.is_directory and source.suffix in (".csv", ".tsv")


def _has_delimiters(source: Source) -> bool:
    if source.is_directory:
        return False
    return any(mark in source.lines[0][1] for mark in DELIMITERS)


@reader("CSV", recognise=_is_csv, order=30)
def read_file(source: Source) -> list[Table]:
    """Read a table with a header."""
    return [t.noted(*source.notes) for t in read_csv(source.path, source.lines)]


@reader("a table without a suffix", recognise=_has_delimiters, order=90)
def read_unnamed(source: Source) -> list[Table] | None:
    """Read a table whose file has another name; None where no column is known."""
    first = source.lines[0][1]
    names = first.split(max(DELIMITERS, key=first.count))
    if not any(recognise(name.strip(' "')) or is_step(name.strip(' "')) for name in names):
        return None
    return [t.noted(*source.notes) for t in read_csv(source.path, source.lines)]


def read_csv(path: Path, numbered: Lines) -> list[Table]:
    """Read a table with a header into one table a run.

    Raises `InputError` for a missing header, a column that is there twice, or a row with more or
    fewer fields than the header.
    """
    header, records, lines, notes = _rows(path, numbered)
    runs = _wandb_runs(header)
    if len(runs) > MOST_RUNS:
        raise InputError(
            f"{path} holds {len(runs)} runs; export at most {MOST_RUNS} at a time (filter the "
            "chart's runs)"
        )
    if runs:
        return [_wandb_table(path, name, columns, records, lines) for name, columns in runs.items()]
    kept = [name for name in header if name and not name.endswith(_SPREAD)]
    plain = [{name: record[name] for name in kept if record[name] != ""} for record in records]
    lowered = {name.lower(): name for name in kept}
    if lowered.keys() == {"wall time", "step", "value"}:
        return [_tensorboard_table(path, plain, lines)]
    return [Table(path.stem, str(path), "CSV", spread(plain, kept), lines, notes)]


def _exports(source: Source) -> list[Path]:
    """The CSV files of a directory that are charts: TensorBoard's, or W&B's of the same runs."""
    if not source.is_directory:
        return []
    files = regular(source.path.glob("*.csv"))
    return [p for p in files if _is_scalar(p)] or [p for p in files if _is_chart(p)]


@reader("a directory of exported charts", recognise=lambda s: len(_exports(s)) > 0, order=20)
def read_charts(source: Source) -> list[Table]:
    """Read exported charts, a metric each, joined by run and step."""
    tables = [t for path in _exports(source) for t in read_csv(path, read_lines(path)[0])]
    if all(t.format.startswith("TensorBoard") for t in tables):
        tables = [replace(t, name=source.path.name) for t in tables]
    joined: dict[str, Table] = {}
    for table in tables:
        known = joined.get(table.name)
        records = [*known.records, *table.records] if known else table.records
        joined[table.name] = replace(
            table, source=str(source.path), records=_by_step(records), lines=(), unit="value"
        )
    return list(joined.values())


def _by_step(records: Sequence[Any]) -> list[dict[str, Any]]:
    """Records of the same step as one."""
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        key = tuple(sorted((k, str(v)) for k, v in record.items() if is_step(k)))
        merged[key] = merged.get(key, {}) | record
    return list(merged.values())


def _is_scalar(path: Path) -> bool:
    return _first_line(path).strip().lower() == b"wall time,step,value"


def _is_chart(path: Path) -> bool:
    return b" - " in _first_line(path) and b"__MIN" in _first_line(path)


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(100_000)


def _rows(
    path: Path, numbered: Lines
) -> tuple[list[str], list[dict[str, str]], list[int], tuple[str, ...]]:
    """Header, records, their lines and notes."""
    excels = _SEPARATOR.fullmatch(numbered[0][1].strip())
    numbered = numbered[1:] if excels and len(numbered) > 1 else numbered
    first = numbered[0][1]
    delimiter = excels[1] if excels else max(DELIMITERS, key=first.count)
    if first.count(delimiter) >= MOST_COLUMNS:
        raise InputError(
            f"{path} has {first.count(delimiter) + 1} columns; a log has at most {MOST_COLUMNS}: "
            "export the metrics of one run"
        )
    try:
        rows = list(csv.reader((line for _, line in numbered), delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"{path} is no CSV that can be read ({error})") from error
    header = [name.strip() for name in rows[0]]
    _require_header(path, header)
    records: list[dict[str, str]] = []
    lines: list[int] = []
    # Where a semicolon separates fields, a comma separates decimals.
    body, notes = with_points(header, rows[1:], certain=delimiter != ";")
    for number, row in zip((n for n, _ in numbered[1:]), body, strict=False):
        if not any(cell.strip() for cell in row) or [cell.strip() for cell in row] == header:
            continue  # a run that goes on in the same file writes its header again
        if len(row) != len(header):
            if number == numbered[-1][0] and records and len(row) < len(header):
                note = f"line {number}, the last, is cut off and was left out"
                return header, records, lines, (*notes, note)
            raise InputError(
                f"{path}, line {number} has {len(row)} fields, but the header has {len(header)}"
            )
        records.append(dict(zip(header, row, strict=True)))
        lines.append(number)
    if not records:
        raise InputError(f"{path} has a header but no values")
    return header, records, lines, notes


def _require_header(path: Path, header: list[str]) -> None:
    known = [name for name in header if recognise(_run_and_metric(name)[1]) or is_step(name)]
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


def _run_and_metric(name: str) -> tuple[str, str]:
    """The parts of "<run> - <metric>"; no run where a name is the metric's alone."""
    run, dash, metric = name.rpartition(" - ")
    dashed = None if dash or recognise(name) else _DASHED.fullmatch(name)
    return (dashed[1], dashed[2]) if dashed else (run, metric)


def _wandb_runs(header: list[str]) -> dict[str, dict[str, str]]:
    """For "<run> - <metric>" headers: run -> column -> metric, without the spread columns."""
    runs: dict[str, dict[str, str]] = {}
    for name in header:
        run, metric = _run_and_metric(name)
        if run and not name.endswith(_SPREAD) and (recognise(metric) or is_step(metric)):
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
            # "Step" is W&B's own count of logged lines, not the optimizer's.
            steps = {
                "_step" if k == "Step" else k: v
                for k, v in record.items()
                if is_step(k) and v != ""
            }
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
