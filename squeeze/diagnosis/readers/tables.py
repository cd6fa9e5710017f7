"""From records (one dict a logged line) to a `RunSeries`: naming, ordering and cleaning.

Every reader hands its records to `build`; what is mended is noted, what cannot be is an
`InputError`, so that no verdict is ever made of numbers that are not what they seem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from squeeze.diagnosis.names import RUN_NAMES, Meaning, is_step, of_fixed_set
from squeeze.diagnosis.names import STEP_NAMES as STEPS_BY_RANK
from squeeze.diagnosis.readers.columns import meanings as recognised
from squeeze.diagnosis.readers.columns import method, some
from squeeze.diagnosis.readers.records import Table, number
from squeeze.diagnosis.readers.restarts import without_aborted_start, without_copies
from squeeze.diagnosis.series import (
    LOG_PROBS,
    LOSS,
    NLL,
    OTHER,
    TELLING,
    Array,
    Finding,
    RunSeries,
    Series,
)
from squeeze.errors import InputError

# More than this share of steps logged twice with other values is two runs, not a resumed one.
_RESUMED_AT_MOST = 0.5
_ROUNDING = 1e-6  # a log-prob of +1e-7 is float noise about 0, not a positive log-prob


def build(table: Table) -> RunSeries:
    """Return the run's series.

    Raises `InputError` if no column is recognised, a value is not a number, log-probs are
    positive, or the file mixes runs.
    """
    table = _without_summary(table)
    columns = list(dict.fromkeys(str(c) for record in table.records for c in record))
    meanings = recognised(table)
    telling = [c for c, m in meanings.items() if m.quantity in TELLING] or list(meanings)
    axis, positions, axis_notes = _axis(table, columns, list(meanings))
    if axis == table.unit:
        table = without_copies(table, telling)
        positions = np.arange(len(table.records), dtype=np.float64)
    else:
        table, positions = without_aborted_start(table, telling, positions)
    notes = [*table.notes, *axis_notes]
    broken: list[_Broken] = []
    found: dict[tuple[str, str], Series] = {}
    for column, meaning in meanings.items():
        series = _series(table, column, meaning, positions, notes, broken)
        if series is None:
            continue
        key = (meaning.quantity, meaning.split)
        if key in found:
            # The longer series; of two alike the plainer name ("chosen" before "chosen_sum").
            kept, left = sorted((found[key], series), key=lambda s: (-len(s), len(s.column)))
            found[key] = kept
            notes.append(
                f"{left.column} seems to be the same quantity as {kept.column} and was left out"
            )
        else:
            found[key] = series
    if not found:
        raise InputError(
            f"{table.source}: the columns {some(list(meanings))} hold no finite number; "
            "give a log of a run that did not end in NaN from its first line"
        )
    return RunSeries(
        name=table.name,
        source=table.source,
        format=table.format,
        axis=axis,
        series=tuple(found.values()),
        notes=tuple(dict.fromkeys(notes)),
        method=method(table, columns),
        findings=_diverged(table, axis, positions, broken),
    )


@dataclass(frozen=True)
class _Broken:
    """A column that is NaN or infinite from record `row` to the end, `tail` values long."""

    column: str
    split: str
    row: int
    tail: int


def _diverged(
    table: Table, axis: str, positions: Array, broken: Sequence[_Broken]
) -> tuple[Finding, ...]:
    if not broken:
        return ()
    first = min(broken, key=lambda b: b.row)
    place = table.at(first.row)
    if axis != table.unit:
        place = f"{axis} {positions[first.row]:.6g}, {place}"
    named = some([b.column for b in broken], 4).replace("'", "")
    return (
        Finding(
            "diverged",
            f"diverged at {place}: {named} {'is' if len(broken) == 1 else 'are'} NaN or infinite "
            f"from there to the end ({first.tail} values)",
            cause="a learning rate that is too high, half precision that overflows, or a batch "
            "whose answers are empty; only what came before is judged",
            split=first.split,
        ),
    )


def _without_summary(table: Table) -> Table:
    """Without transformers' closing line: the mean loss and runtimes, at the last step again."""
    rows = [
        i
        for i, record in enumerate(table.records)
        if not {"train_runtime", "train/train_runtime"} & set(record)
    ]
    return table.only(rows) if 0 < len(rows) < len(table.records) else table


# --- steps --------------------------------------------------------------------------------------


def _axis(table: Table, columns: list[str], telling: list[str]) -> tuple[str, Array, list[str]]:
    """Return what the x axis counts, its value for every record, and notes."""
    order = np.arange(len(table.records), dtype=np.float64)
    used = [i for i, r in enumerate(table.records) if any(r.get(c) is not None for c in telling)]
    candidates = sorted(
        (c for c in columns if is_step(c)), key=lambda c: STEPS_BY_RANK.index(c.strip().lower())
    )
    notes: list[str] = []
    for column in candidates:
        values = [
            number(r.get(column), f"{table.source}, {table.at(i)}", column)
            for i, r in enumerate(table.records)
        ]
        steps = np.array(values, dtype=np.float64)
        missing = [i for i in used if not math.isfinite(steps[i])]
        if missing:
            if len(missing) < len(used):
                notes.append(
                    f"{column!r} is missing in {len(missing)} of {len(used)} lines, "
                    "so it was not used to order them"
                )
            continue
        if "epoch" in column.lower() and _rounded(steps[used]):
            continue
        if len(used) > 1 and np.ptp(steps[used]) == 0:  # it counts something else
            continue
        return _counts(column), steps, notes
    return table.unit, order, notes


def _counts(column: str) -> str:
    """What a step column counts; a logger's own "_step" counts its lines."""
    name = column.strip().lower()
    if name == "_step":
        return "logged line"
    return name.removesuffix("/max_steps").rpartition("/")[2]


def _rounded(steps: Array) -> bool:
    """Whether an epoch column repeats because it was printed with two decimals."""
    return bool(steps.size > 1 and np.all(np.diff(steps) >= 0) and np.any(np.diff(steps) == 0))


# --- values -------------------------------------------------------------------------------------


def _series(
    table: Table,
    column: str,
    meaning: Meaning,
    positions: Array,
    notes: list[str],
    broken: list[_Broken],
) -> Series | None:
    rows = [i for i, r in enumerate(table.records) if column in r]
    try:
        values = np.array(
            [
                number(table.records[i][column], f"{table.source}, {table.at(i)}", column)
                for i in rows
            ]
        )
    except InputError as error:
        if meaning.quantity in TELLING:
            raise
        notes.append(f"{column} was left out: {str(error).partition(';')[0]}")
        return None
    rows, values = _finite(table, column, meaning, np.array(rows, dtype=int), values, notes, broken)
    if values.size == 0:
        return None
    if meaning.negate:
        values = -values
    if meaning.quantity in LOG_PROBS or meaning.quantity.startswith(OTHER):
        _require_log_probs(table, column, meaning, rows, values)
    steps, values = _ordered(table, column, positions[rows], rows, values, notes)
    batches = meaning.split == "train" and not of_fixed_set(column)
    return Series(meaning.quantity, meaning.split, steps, values, column, batches=batches)


def _finite(
    table: Table,
    column: str,
    meaning: Meaning,
    rows: Any,
    values: Array,
    notes: list[str],
    broken: list[_Broken],
) -> tuple[Any, Array]:
    """The finite values; a tail of others in what training hangs on is noted in `broken`."""
    finite = np.isfinite(values)
    # A column that other lines leave empty (W&B, CSV) is sparse, not broken.
    logged = [table.records[i][column] not in (None, "") for i in rows]
    wrong = ~finite & np.array(logged, dtype=bool)
    if wrong.any() and finite.any():
        last = int(np.flatnonzero(finite)[-1])
        tail = np.flatnonzero(wrong[last + 1 :])
        if tail.size:
            first = int(rows[last + 1 + tail[0]])
            if meaning.quantity in (*TELLING, LOSS, NLL):
                broken.append(_Broken(column, meaning.split, first, int(tail.size)))
            else:
                notes.append(f"{column} is NaN or infinite from {table.at(first)} to the end")
        if wrong.sum() > tail.size:
            notes.append(f"{column}: {wrong.sum() - tail.size} NaN or infinite values left out")
    elif wrong.any():
        notes.append(f"{column} holds only NaN and was left out")
    return rows[finite], values[finite]


def _require_log_probs(
    table: Table, column: str, meaning: Meaning, rows: Any, values: Array
) -> None:
    positive = np.flatnonzero(values > _ROUNDING)
    if positive.size == 0:
        return
    first = int(positive[0])
    value = values[first] * (-1 if meaning.negate else 1)
    where = f"{table.source}, {table.at(int(rows[first]))}"
    if meaning.negate:
        raise InputError(
            f"{where}: {column} is {value:g}, but a negative log-likelihood is never negative; "
            "name the column logps/... if it holds log-probs"
        )
    kind = "probabilities" if values.max() <= 1 and values.min() >= 0 else "something else"
    if positive.size == values.size and values.max() > 1:
        kind = "negative log-likelihoods (name the column nll/chosen or nll/rejected then)"
    raise InputError(
        f"{where}: {column} is {value:g}, but a log-prob is never positive; "
        f"the column seems to hold {kind}"
    )


def _ordered(
    table: Table, column: str, steps: Array, rows: Any, values: Array, notes: list[str]
) -> tuple[Array, Array]:
    """Return steps and values with steps strictly increasing; the last of repeated steps wins."""
    back = np.flatnonzero(np.diff(steps) < 0)
    unique = np.unique(steps)
    if back.size == 0 and unique.size == steps.size:
        return steps, values
    order = np.argsort(steps, kind="stable")
    sorted_steps, sorted_values = steps[order], values[order]
    last = np.flatnonzero(np.r_[np.diff(sorted_steps) > 0, True])
    repeated = unique.size < steps.size
    if repeated:
        conflicts = _conflicts(sorted_steps, sorted_values, unique)
        if conflicts > _RESUMED_AT_MOST * unique.size:
            line = table.at(int(rows[back[0] + 1])) if back.size else table.at(int(rows[1]))
            raise InputError(
                f"{table.source}: {conflicts} of {unique.size} steps are logged more than once "
                f"with different {column} (first at {line}); this looks like several runs in one "
                "file, so give each run its own file or a column 'run'"
            )
        notes.append(
            f"{steps.size - unique.size} of {steps.size} lines repeat a step (a resumed or "
            "re-logged run); the last value of each step was kept"
        )
    elif back.size:
        notes.append("the lines were not in the order of their steps and have been sorted")
    return sorted_steps[last], sorted_values[last]


def _conflicts(steps: Array, values: Array, unique: Array) -> int:
    low = np.full(unique.size, np.inf)
    high = np.full(unique.size, -np.inf)
    where = np.searchsorted(unique, steps)
    np.minimum.at(low, where, values)
    np.maximum.at(high, where, values)
    return int(np.count_nonzero(high - low > 1e-9 * np.maximum(1.0, np.abs(high))))


def split_by_run(table: Table) -> list[Table]:
    """One table a run where a column names the run; else the table itself."""
    columns = {str(c).lower(): c for record in table.records for c in record}
    name = next((columns[c] for c in RUN_NAMES if c in columns), None)
    if name is None:
        return [table]
    groups: dict[str, list[int]] = {}
    for i, record in enumerate(table.records):
        groups.setdefault(str(record.get(name, "")), []).append(i)
    return [table.only(rows, run) for run, rows in groups.items()]
