"""CSV and the like: W&B's exports (a column a run and metric), TensorBoard's, plain tables."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from squeeze.diagnosis.names import is_split, is_step, recognise
from squeeze.diagnosis.readers.columns import MOST_COLUMNS
from squeeze.diagnosis.readers.records import (
    TURNED,
    Table,
    is_numeric,
    spread,
    upright,
    values_alone,
    with_points,
)
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.readers.text import Lines
from squeeze.errors import InputError

DELIMITERS = ",\t;|"
_SEPARATOR = re.compile(r"sep=([,;\t|])")  # what Excel writes, and reads, before a header
_NAMES_VALUES = re.compile(r"[:=]\s{0,3}[-+]?\d|\(['\"]")  # no header does
_MARKS = ' "\ufeff'  # around a cell; the last is a byte order mark
_SCALAR = "CSV of one scalar"
_SPREAD = ("__MIN", "__MAX")
# SwanLab's columns: the experiment's name, a dash, the metric.
_DASHED = re.compile(r"(.{1,200}?)-((?:train|eval|val|rewards|logps)/.+)")

_TIMES = {"wall time", "timestamp", "time", "relative time", "relative time (process)"}

MOST_RUNS = 500  # in one export
_SEARCHED = 500  # lines, for the header of a table


def _is_csv(source: Source) -> bool:
    return not source.is_directory and source.suffix in (".csv", ".tsv")


def _has_delimiters(source: Source) -> bool:
    if source.is_directory:
        return False
    return any(mark in line for _, line in source.lines[:_SEARCHED] for mark in DELIMITERS)


@reader("CSV", recognise=_is_csv, order=30)
def read_file(source: Source) -> list[Table]:
    """Read a table with a header; raises `InputError` for a scalar that nothing names."""
    found = read_csv(source.path, source.lines)
    if found[0].format == _SCALAR and recognise(of_file(source.path)[1]) is None:
        raise InputError(
            f"{source.path} holds one metric, and its name does not say which; name the file for "
            "it, such as run-NAME-tag-train_rewards_chosen.csv"
        )
    return [t.noted(*source.notes) for t in found]


@reader("a table without a suffix", recognise=_has_delimiters, order=90)
def read_unnamed(source: Source) -> list[Table] | None:
    """Read a table whose file has another name; None where no column is known."""
    first = _of_table(source.path, source.lines)[0][0][1]
    if not _names_known(first) or _NAMES_VALUES.search(first):
        return None
    return [t.noted(*source.notes) for t in read_csv(source.path, source.lines)]


def read_csv(path: Path, numbered: Lines) -> list[Table]:
    """Read a table with a header into one table a run.

    Raises `InputError` for a missing header, a column that is there twice, or a row with more or
    fewer fields than the header.
    """
    header, table = _rows(path, numbered)
    runs = _wandb_runs(header)
    if len(runs) > MOST_RUNS:
        raise InputError(
            f"{path} holds {len(runs)} runs; export at most {MOST_RUNS} at a time (filter the "
            "chart's runs)"
        )
    if runs:
        return [_wandb_table(table, name, columns) for name, columns in runs.items()]
    kept = [name for name in header if name and not name.endswith(_SPREAD)]
    plain = [{name: r[name] for name in kept if r[name] != ""} for r in table.records]
    if _is_scalar(kept):
        return [_scalar_table(replace(table, records=plain))]
    records = spread(plain, kept)
    return [replace(table, records=records, lines=table.lines if records is plain else ())]


def is_scalar(path: Path) -> bool:
    """Whether a file is one scalar's chart: steps and values, named by the file alone."""
    return _is_scalar(_header(path))


def only_metric(path: Path) -> str:
    """The metric of a table that has steps and nothing else but that; else ""."""
    others = [name for name in _header(path) if not is_step(name) and name.lower() not in _TIMES]
    known = len(others) == 1 and recognise(others[0]) is not None
    return others[0] if known and len(_header(path)) > 1 else ""


def _header(path: Path) -> list[str]:
    """The first row of a table, from the file's first bytes."""
    head = Source(path).head.decode("utf-8-sig", "replace").splitlines()
    if not head:
        return []
    header = _without_separator(_without_comments(list(enumerate(head)))[0])[0][1]
    return [name.strip(_MARKS) for name in header.split(max(DELIMITERS, key=header.count))]


def _is_scalar(names: Sequence[str]) -> bool:
    lowered = {name.lower() for name in names}
    steps = {name for name in lowered if is_step(name)}
    return bool(steps) and "value" in lowered and lowered - steps <= {"value", *_TIMES}


def is_chart(path: Path) -> bool:
    """Whether a file is W&B's export of a chart of several runs."""
    return b" - " in _first_line(path) and b"__MIN" in _first_line(path)


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(100_000)


def _rows(path: Path, numbered: Lines) -> tuple[list[str], Table]:
    """The header, and a table of all its columns."""
    numbered, delimiter, notes = _of_table(path, numbered)
    first = numbered[0][1]
    if first.count(delimiter) >= MOST_COLUMNS:
        raise InputError(
            f"{path} has {first.count(delimiter) + 1} columns; a log has at most {MOST_COLUMNS}: "
            "export the metrics of one run"
        )
    try:
        rows = list(csv.reader((line for _, line in numbered), delimiter=delimiter))
    except csv.Error as error:
        raise InputError(f"{path} is no CSV that can be read ({error})") from error
    numbers, unit = [n for n, _ in numbered], "line"
    if (turned := upright(rows)) is not None:
        rows, numbers, unit = turned, [*range(1, len(turned) + 1)], "column"
        notes = (*notes, TURNED)
    header = [name.strip(_MARKS) for name in rows[0]]
    _require_header(path, header)
    body = [_without_empty_end(row, len(header)) for row in rows[1:]]
    # Where a semicolon separates fields, a comma separates decimals.
    body, commas = with_points(header, body, certain=delimiter != ";")
    kept, left = values_alone(header, list(zip(numbers[1:], body, strict=False)), unit)
    notes = (*notes, *left, *commas)
    records: list[dict[str, str]] = []
    lines: list[int] = []
    for number, row in kept:
        if not any(cell.strip() for cell in row) or [cell.strip() for cell in row] == header:
            continue  # a run that goes on in the same file writes its header again
        if len(row) != len(header):
            if number == numbers[-1] and records and len(row) < len(header):
                notes = (*notes, f"line {number}, the last, is cut off and was left out")
                break
            raise InputError(
                f"{path}, line {number} has {len(row)} fields, but the header has {len(header)}"
            )
        records.append(dict(zip(header, row, strict=True)))
        lines.append(number)
    if not records:
        raise InputError(f"{path} has a header but no values")
    return header, Table(path.stem, str(path), "CSV", records, lines, notes, unit)


def _without_empty_end(row: list[str], width: int) -> list[str]:
    """A row without the empty fields that separators behind its last value make."""
    return row[:width] if not any(cell.strip() for cell in row[width:]) else row


def _of_table(path: Path, numbered: Lines) -> tuple[Lines, str, tuple[str, ...]]:
    """The lines of the table in a file, what separates its fields, and what was left out."""
    numbered, left = _without_comments(numbered)
    notes = (f"comment lines ({left}) were left out",) if left else ()
    excels = _SEPARATOR.fullmatch(numbered[0][1].strip(_MARKS))
    if excels and len(numbered) > 1:
        return numbered[1:], excels[1], notes
    start = _header_at(numbered)
    if start:
        notes = (*notes, f"the text above line {numbered[start][0]} was left out")
    numbered = numbered[start:]
    first = numbered[0][1]
    delimiter = max(DELIMITERS, key=first.count)
    if path.suffix.lower() in (".csv", ".tsv") or not _names_known(first):
        return numbered, delimiter, notes
    width = first.count(delimiter)
    end = next((i for i, (_, line) in enumerate(numbered) if line.count(delimiter) != width), None)
    if end is not None:
        if any(line.strip() == first.strip() for _, line in numbered[end:]):
            raise InputError(
                f"{path} holds several tables; copy the one that is meant into a file of its own"
            )
        notes = (*notes, f"the text from line {numbered[end][0]} on was left out")
    return numbered[:end], delimiter, notes


def _header_at(numbered: Lines) -> int:
    """Where a table begins below a title or a text; 0 if it is not known."""
    if _names_known(numbered[0][1]):
        return 0
    for i, ((_, line), (_, below)) in enumerate(itertools.pairwise(numbered[:_SEARCHED])):
        delimiter = max(DELIMITERS, key=line.count)
        width = line.count(delimiter)
        cells = [cell.strip(_MARKS) for cell in line.split(delimiter)]
        if width and below.count(delimiter) == width and _names_known(line):
            alone = all(
                above.count(delimiter) != width or len(above.strip(_MARKS + delimiter)) == 0
                for _, above in numbered[:i]
            )
            return i if alone and not any(map(is_numeric, filter(None, cells))) else 0
    return 0


def _without_comments(numbered: Lines) -> tuple[Lines, int]:
    """A table's lines without comments, and how many there were.

    A header that is one (numpy's) loses its mark; a row whose first field is Excel's "#N/A" stays.
    """
    kept = [(n, line) for n, line in numbered if not line.lstrip(_MARKS).startswith("#")]
    if not kept or len(kept) == len(numbered):
        return numbered, 0
    before = [(n, line.lstrip(_MARKS + "#")) for n, line in numbered if n < kept[0][0]]
    left = len(numbered) - len(kept)
    if before and not _names_known(kept[0][1]) and _names_known(before[-1][1]):
        return [before[-1], *kept], left - 1
    first = kept[0][1]
    delimiter = max(DELIMITERS, key=first.count)
    width = first.count(delimiter)
    kept = [
        (n, line)
        for n, line in numbered
        if not line.lstrip(_MARKS).startswith("#")
        or (n > kept[0][0] and width and line.count(delimiter) == width)
    ]
    return kept, len(numbered) - len(kept)


def _without_separator(numbered: Lines) -> Lines:
    excels = _SEPARATOR.fullmatch(numbered[0][1].strip(_MARKS))
    return numbered[1:] if excels and len(numbered) > 1 else numbered


def _names_known(line: str) -> bool:
    """Whether a line has a name that a log's header has."""
    cells = [cell.strip(_MARKS) for cell in line.split(max(DELIMITERS, key=line.count))]
    return any(recognise(cell) or is_step(cell) for cell in cells)


def _require_header(path: Path, header: list[str]) -> None:
    known = [name for name in header if recognise(_run_and_metric(name)[1]) or is_step(name)]
    if not known:
        shown = ", ".join(name[:40] for name in header[:6])
        raise InputError(
            f"{path}: the first row is no header that a diagnosis knows ({shown}); "
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
        if run and not name.endswith(_SPREAD):
            runs.setdefault(run, {})[name] = metric
    known = {run for run, of_run in runs.items() if any(map(_is_known, of_run.values()))}
    return {run: of_run for run, of_run in runs.items() if run in known}


def _is_known(metric: str) -> bool:
    return recognise(metric) is not None or is_step(metric)


def _wandb_table(table: Table, run: str, columns: dict[str, str]) -> Table:
    kept: list[dict[str, Any]] = []
    rows: list[int] = []
    for i, record in enumerate(table.records):
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
            rows.append(i)
    return replace(table.only(rows, run), records=kept, format="W&B CSV export")


def of_file(path: Path) -> tuple[str, str]:
    """Run and metric of a file: "run-NAME-tag-train_rewards_chosen.csv", or the metric alone."""
    stem = re.sub(r" ?\(\d{1,3}\)$", "", path.stem)  # a browser's second download
    before, tagged, tag = stem.rpartition("tag-")
    if not tagged:
        return "", re.split("tag[-_]", stem)[-1]
    run = before.removeprefix("run-").strip("-_.")
    name, last = re.split(r"[_./-]?([^_./-]*)$", run, maxsplit=1)[:2]
    return (name, f"{last}_{tag}") if is_split(last) else (run, tag)


def _scalar_table(table: Table) -> Table:
    run, tag = of_file(Path(table.source))
    records = [
        {tag if name.lower() == "value" else name: value for name, value in record.items()}
        for record in table.records
    ]
    records = [{k: v for k, v in r.items() if k == tag or is_step(k)} for r in records]
    return replace(table, name=run or table.name, records=records, format=_SCALAR)
