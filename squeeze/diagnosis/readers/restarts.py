"""Lines of another run in one file: an aborted start, a second run that writes into the same log.

They are never merged silently: what is recognised is left out with a note, the rest is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from squeeze.diagnosis.readers.records import Table, number
from squeeze.diagnosis.series import Array
from squeeze.errors import InputError

_SHOWN = 6
_LEARNED = 0.3  # of rewards that stand away from the reference's 0


def without_copies(table: Table, telling: Sequence[str]) -> Table:
    """Without lines that repeat an earlier one in every value, as a second run from one seed does.

    Only for logs without steps, and only if the first line is among what is repeated: the untouched
    model is evaluated once a run. A log that repeats itself throughout is a run that does not move.
    """
    if len(telling) < 2:
        return table
    seen: dict[tuple[object, ...], int] = {}
    copies: list[tuple[int, int]] = []
    for i, record in enumerate(table.records):
        key = tuple(record.get(c) for c in telling)
        if all(value is None or value == 0 for value in key):
            continue
        if key in seen:
            copies.append((i, seen[key]))
        else:
            seen[key] = i
    if (
        not copies
        or len(seen) <= 3
        or len(copies) > len(seen) / 2
        or copies[0][1] != min(seen.values())
    ):
        return table
    left = {i for i, _ in copies}
    kept = table.only([i for i in range(len(table.records)) if i not in left])
    listed = ", ".join(f"{table.at(i).split()[-1]}" for i, _ in copies[:_SHOWN])
    listed += f" and {len(copies) - _SHOWN} more" if len(copies) > _SHOWN else ""
    note = (
        f"{table.unit}s {listed} repeat the values of {table.at(copies[0][1])} and those after it: "
        "another run, or an aborted start, wrote into this file; they were left out"
    )
    return kept.noted(note)


def without_aborted_start(
    table: Table, telling: Sequence[str], steps: Array
) -> tuple[Table, Array]:
    """Without a short run before the one that is meant, where the steps begin again with others.

    Raises `InputError` where neither of two runs is short.
    """
    column = max(telling, key=lambda c: sum(r.get(c) is not None for r in table.records))
    rows = [i for i, r in enumerate(table.records) if r.get(column) not in (None, "")]
    if len(rows) < 3:
        return table, steps
    counted = steps[rows]
    again = [k for k in range(1, len(rows)) if counted[k] <= counted[0] < counted[k - 1]]
    if not again or not _conflicting(table, column, rows, counted):
        return table, steps
    start = again[-1]
    if 2 * start > len(rows) - start:
        raise InputError(
            f"{table.source}: the steps begin again at {table.at(rows[start])} with other values "
            f"of {column}; this looks like several runs in one file, so give each run its own file "
            "or a column 'run'"
        )
    note = (
        f"the steps begin again at {table.at(rows[start])}: the {start} values of {column} before "
        "it are an aborted start and were left out"
    )
    keep = list(range(rows[start], len(table.records)))
    return table.only(keep).noted(note), steps[keep]


def require_one_run(table: Table, rewards: Sequence[str]) -> None:
    """Raise `InputError` where all rewards of a log without steps fall back to 0.

    At one line: another run. From the first line to the last: the log is upside down.
    A new run begins with the reference, at rewards of 0; no training takes back all that it learned
    from one line to the next: means of three lines count, and a fall to a tenth.
    """
    columns = [_numbers(table, c) for c in rewards]
    if len(columns) < 2 or any(v.size < 2 * _SHOWN for v in columns):
        return
    size = np.stack([np.convolve(np.abs(v), np.ones(3) / 3, "valid") for v in columns])
    first, last = size[:, 0], size[:, -1]
    if ((first > _LEARNED) & (last < 0.1 * first)).all():
        raise InputError(
            f"{table.source}: the rewards are {_listed(columns, 0)} at {table.at(0)} and end at "
            f"{_listed(columns, -1)}, as in a log whose newest line stands first; turn it round, "
            "or give it a column 'step'"
        )
    before, after = size[:, :-3], size[:, 3:]
    again = np.flatnonzero(((before > _LEARNED) & (after < 0.1 * before)).all(axis=0))
    if again.size:
        raise InputError(
            f"{table.source}: the rewards fall back to 0 at {table.at(int(again[-1]) + 3)}; this "
            "looks like several runs in one file, so give each run its own file or a column 'run'"
        )


def _listed(columns: Sequence[Array], at: int) -> str:
    return " and ".join(f"{values[at]:.3g}" for values in columns)


def _numbers(table: Table, column: str) -> Array:
    """A column's values, one a record; none of a column that lacks some."""
    try:
        values = [number(r.get(column), "", column) for r in table.records]
    except InputError:
        return np.array([])
    return np.array(values if all(map(math.isfinite, values)) else [])


def _conflicting(table: Table, column: str, rows: Sequence[int], steps: Array) -> bool:
    """Whether a step is there twice with other values."""
    values: dict[float, object] = {}
    for i, step in zip(rows, steps.tolist(), strict=True):
        value = table.records[i][column]
        if values.setdefault(step, value) != value and not _nan(value):
            return True
    return False


def _nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value) and not np.isinf(value)
