"""Local databases of experiment trackers: trackio's and MLflow's SQLite, and MLflow's files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from squeeze.diagnosis.readers.records import Table
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.errors import InputError
from squeeze.files import parse_json

_SQLITE = b"SQLite format 3\0"
MOST_RUNS = 500
MOST_VALUES = 2_000_000
_LONGEST = 2**24  # bytes of a cell
_STEPS, _PATIENCE = 10**6, 1000  # of SQLite's machine, so many times: some 20 s
_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'metrics'"


def _is_sqlite(source: Source) -> bool:
    return source.head.startswith(_SQLITE)


@reader("tracker's database", recognise=_is_sqlite, order=10)
def read(source: Source) -> list[Table]:
    """Read the runs of trackio's or MLflow's database, opened for reading only.

    Raises `InputError` for a database of something else, or one that is damaged.
    """
    path = source.path
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as opened:
            _bound(opened)
            stored = opened.execute(_TABLE).fetchone()  # a view may calculate without end
            about = opened.execute("PRAGMA table_info(metrics)") if stored else ()
            columns = {row[1] for row in about}
            if {"run_name", "step", "metrics"} <= columns:
                return _tables(path, "trackio", _trackio(opened))
            if {"key", "value", "run_uuid", "step"} <= columns:
                return _tables(path, "MLflow", _mlflow(opened))
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    raise InputError(
        f"{path} is a database without a table of metrics; give trackio's PROJECT.db or MLflow's "
        "mlflow.db"
    )


def _bound(opened: sqlite3.Connection) -> None:
    """Limits on what a database may ask of this process, whatever stands in it."""
    opened.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    looks = iter(range(_PATIENCE))
    opened.set_progress_handler(lambda: next(looks, None) is None, _STEPS)


def _trackio(opened: sqlite3.Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """A row a logged line, its metrics as JSON."""
    found = opened.execute("SELECT run_name, step, metrics FROM metrics ORDER BY run_name, step")
    for name, step, metrics in found:
        logged = parse_json(metrics) if isinstance(metrics, (str, bytes)) else {}
        if isinstance(logged, dict):
            # trackio's step counts logged lines, unless the trainer logged its own beside.
            yield (
                str(name),
                {"_step": step}
                | {k: v for k, v in logged.items() if isinstance(v, (int, float, str))},
            )


def _mlflow(opened: sqlite3.Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """A row a value."""
    names = dict(opened.execute("SELECT run_uuid, name FROM runs").fetchall())
    found = opened.execute(
        "SELECT run_uuid, step, key, value, is_nan FROM metrics ORDER BY run_uuid, step, timestamp"
    )
    for run, step, key, value, is_nan in found:
        yield str(names.get(run) or run), {"step": step, key: float("nan") if is_nan else value}


def _tables(path: Path, kind: str, rows: Iterator[tuple[str, dict[str, Any]]]) -> list[Table]:
    runs: dict[str, dict[Any, dict[str, Any]]] = {}
    try:
        for i, (name, record) in enumerate(rows):
            if i >= MOST_VALUES or len(runs) > MOST_RUNS:
                raise InputError(
                    f"{path} holds more than {MOST_RUNS} runs or {MOST_VALUES} values; export the "
                    "runs that are meant as CSV"
                )
            steps = runs.setdefault(name, {})
            step = record.get("step", record.get("_step"))
            steps[step] = steps.get(step, {}) | record
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} holds a row that is no record of metrics ({error})") from error
    if not runs:
        raise InputError(f"{path} holds no metrics yet")
    return [
        Table(name, str(path), f"{kind} database", list(steps.values()), unit="record")
        for name, steps in runs.items()
    ]


# --- MLflow's directories -----------------------------------------------------------------------


def _metric_directories(source: Source) -> list[Path]:
    """The metrics/ of MLflow's runs at most three levels below: mlruns/EXPERIMENT/RUN/metrics."""
    if not source.is_directory:
        return []
    found = [p for depth in range(4) for p in source.path.glob("*/" * depth + "metrics")]
    return sorted(p for p in found if p.is_dir() and (p.parent / "meta.yaml").is_file())


@reader("MLflow store", recognise=lambda s: len(_metric_directories(s)) > 0, order=25)
def read_store(source: Source) -> list[Table]:
    """Read the runs of an mlruns directory: a file a metric, a line a value."""
    tables = []
    for metrics in _metric_directories(source)[:MOST_RUNS]:
        steps: dict[int, dict[str, Any]] = {}
        for file in sorted(p for p in metrics.rglob("*") if p.is_file()):
            name = file.relative_to(metrics).as_posix()
            for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
                step, value = _value(file, number, line)
                steps.setdefault(step, {"step": step})[name] = value
        if steps:
            records = [steps[step] for step in sorted(steps)]
            name = _run_name(metrics.parent)
            tables.append(Table(name, str(metrics.parent), "MLflow store", records, unit="record"))
    if not tables:
        raise InputError(f"{source.path} holds runs of MLflow without a metric")
    return tables


def _value(file: Path, number: int, line: str) -> tuple[int, float]:
    try:
        _, value, step = line.split()[:3]
        return int(step), float(value)
    except ValueError:
        raise InputError(
            f"{file}, line {number} is no 'timestamp value step' as MLflow writes it"
        ) from None


def _run_name(directory: Path) -> str:
    for line in (directory / "meta.yaml").read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == "run_name" and value.strip():
            return value.strip().strip("'\"")
    return directory.name
