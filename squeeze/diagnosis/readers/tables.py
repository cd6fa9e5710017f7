"""From records (one dict a logged line) to a `RunSeries`: naming, ordering and cleaning.

Every reader hands its records to `build`; what is mended is noted, what cannot be is an
`InputError`, so that no verdict is ever made of numbers that are not what they seem.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from squeeze.diagnosis.names import RUN_NAMES, SETTINGS, Meaning, is_step, of_fixed_set
from squeeze.diagnosis.names import STEP_NAMES as STEPS_BY_RANK
from squeeze.diagnosis.readers.columns import (
    by_value,
    like_scores,
    method,
    some,
    with_split_of_lines,
    with_split_of_rows,
)
from squeeze.diagnosis.readers.columns import meanings as recognised
from squeeze.diagnosis.readers.records import Table, missing, number
from squeeze.diagnosis.readers.restarts import (
    require_one_run,
    without_aborted_start,
    without_copies,
)
from squeeze.diagnosis.series import (
    CHOSEN,
    CHOSEN_REWARD,
    DIVERGES,
    LOG_PROBS,
    LOSS,
    MARGIN,
    NLL,
    OTHER,
    REJECTED,
    REJECTED_REWARD,
    REWARD_MODEL,
    TELLING,
    Array,
    Finding,
    RunSeries,
    Series,
)
from squeeze.errors import InputError

# More than this share of steps logged twice with other values is two runs, not a resumed one.
_RESUMED_AT_MOST = 0.5
_REWARDS = (CHOSEN_REWARD, REJECTED_REWARD)
_ROUNDING = 1e-6  # a log-prob of +1e-7 is float noise about 0, not a positive log-prob


def build(table: Table) -> RunSeries:
    """Return the run's series.

    Raises `InputError` if no column is recognised, a value is not a number, log-probs are
    positive, or the file mixes runs.
    """
    table = with_split_of_lines(with_split_of_rows(_without_summary(table)))
    columns = list(dict.fromkeys(str(c) for record in table.records for c in record))
    meanings = by_value(table, recognised(table))
    telling = [c for c, m in meanings.items() if m.quantity in TELLING] or list(meanings)
    axis, positions, axis_notes = _axis(table, columns, list(meanings))
    table, positions = _without_another_phase(table, telling, positions)
    if axis == table.unit:
        table = without_copies(table, telling)
        require_one_run(table, [c for c in telling if meanings[c].quantity in _REWARDS])
        positions = np.arange(len(table.records), dtype=np.float64)
    else:
        table, positions = without_aborted_start(table, telling, positions)
    notes = [*table.notes, *axis_notes]
    reading = _Reading(table, meanings, positions, notes)
    found: dict[tuple[str, str], Series] = {}
    for column, meaning in meanings.items():
        series = _series(reading, column)
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
    trained_by = method(table, columns)
    if not trained_by and any(
        like_scores(table, found.get((CHOSEN_REWARD, split)), found.get((REJECTED_REWARD, split)))
        for _, split in found
        if (CHOSEN, split) not in found
    ):
        trained_by = f"{REWARD_MODEL}?"
    both = _both_sides(reading.broken, len(table.records))
    ended = [
        b
        for b in reading.broken
        if b.column in both or _counts_as_end(b, found, trained_by == "kto")
    ]
    return RunSeries(
        name=table.name,
        source=table.source,
        format=table.format,
        axis=axis,
        series=tuple(found.values()),
        notes=tuple(dict.fromkeys(notes)),
        method=trained_by,
        findings=_diverged(table, axis, positions, ended),
    )


@dataclass(frozen=True)
class _Broken:
    """A column that is NaN or infinite from record `row` to the end, at those `steps`."""

    column: str
    meaning: Meaning
    row: int
    steps: Array
    always: bool  # from its first value on
    earlier: int  # NaN or infinite values before


@dataclass(frozen=True)
class _Reading:
    """A table that is being read, with what was mended (`notes`) and what ended in NaN."""

    table: Table
    meanings: Mapping[str, Meaning]
    positions: Array
    notes: list[str]
    broken: list[_Broken] = field(default_factory=list)
    _elsewhere: dict[tuple[int, str], bool] = field(default_factory=dict)

    def of_another_split(self, row: int, split: str) -> bool:
        """Whether a line is another split's: NaN is a table's word for an empty cell (pandas')."""
        known = self._elsewhere.get((row, split))
        if known is None:
            record = self.table.records[row]
            known = any(
                math.isfinite(number(record.get(column), self.table.at(row), column))
                for column, meaning in self.meanings.items()
                if meaning.split != split and meaning.quantity in (*TELLING, LOSS)
            )
            self._elsewhere[row, split] = known
        return known


def _diverged(
    table: Table, axis: str, positions: Array, broken: Sequence[_Broken]
) -> tuple[Finding, ...]:
    if not broken:
        return ()
    first = min(broken, key=lambda b: positions[b.row])
    place = table.at(first.row)
    if axis != table.unit:
        place = f"{axis} {positions[first.row]:.6g}, {place}"
    named = some([b.column for b in broken], 4).replace("'", "")
    judged = "nothing of it can be judged" if first.always else "only what came before is judged"
    return (
        Finding(
            "diverged",
            f"diverged at {place}: {named} {'is' if len(broken) == 1 else 'are'} NaN or infinite "
            f"from there to the end ({first.steps.size} values)",
            cause=f"{DIVERGES}; {judged}",
            split=first.meaning.split,
        ),
    )


_SIDES = ((CHOSEN_REWARD, REJECTED_REWARD), (CHOSEN, REJECTED))


def _both_sides(broken: Sequence[_Broken], n: int) -> set[str]:
    """Columns of chosen and of rejected that both end in NaN from one line on, for good.

    That is no batch without answers of one side, whatever the loss says (a reference that gives
    NaN); three lines and a tenth of the log, as what is logged rarely is missing in the last lines.
    """
    at = {(b.meaning.quantity, b.meaning.split): b for b in broken}
    found = set()
    for (quantity, split), b in at.items():
        for one, other in _SIDES:
            twin = at.get((other, split)) if quantity == one else None
            if twin is None or twin.row != b.row or b.earlier * 3 > b.steps.size:
                continue
            if b.steps.size >= max(3, 0.1 * n):
                found |= {b.column, twin.column}
    return found


def _counts_as_end(b: _Broken, found: Mapping[tuple[str, str], Series], unpaired: bool) -> bool:
    """Whether the weights are no numbers any more, rather than one side's mean of no answers.

    A batch without rejected answers (KTO) has no reward of theirs, but chosen's and a loss.
    """
    if b.earlier >= b.steps.size and b.meaning.quantity not in (LOSS, NLL):
        return False  # logged now and then: no longer a gap than those before
    split, sides = b.meaning.split, [CHOSEN, CHOSEN_REWARD]
    if unpaired:
        sides += [REJECTED, REJECTED_REWARD]
    loss = found.get((LOSS, split))
    if b.meaning.quantity in (LOSS, NLL) or loss is None:
        return True
    losses = _all_at(loss, b.steps)
    if losses.size == 0 or not losses.all():  # 0 is what transformers logs for NaN
        return True
    others = [s for (quantity, at), s in found.items() if at == split and quantity in sides]
    if unpaired and b.meaning.quantity == MARGIN:
        return not any(np.isin(s.steps, b.steps).any() for s in others)
    return not any(_all_at(s, b.steps).size for s in others)


def _all_at(series: Series, steps: Array) -> Array:
    """A series' values at those steps; none if it lacks one."""
    values = series.values[np.isin(series.steps, steps)]
    return values if values.size == steps.size else values[:0]


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
        absent = [i for i in used if not math.isfinite(steps[i])]
        if absent:
            if len(absent) < len(used):
                notes.append(
                    f"{column!r} is missing in {len(absent)} of {len(used)} lines, "
                    "so it was not used to order them"
                )
            continue
        if "epoch" in column.lower() and _rounded(steps[used]):
            continue
        if len(used) > 1 and np.ptp(steps[used]) == 0:  # it counts something else
            continue
        if "epoch" not in column.lower():
            steps = _over_epochs(table, columns, steps, used)
        return _counts(column), steps, notes
    return table.unit, order, notes


def _without_another_phase(
    table: Table, telling: Sequence[str], steps: Array
) -> tuple[Table, Array]:
    """Without what comes before the first line on pairs, where the steps then begin again (SFT)."""
    first = next(
        (i for i, r in enumerate(table.records) if any(not missing(r.get(c)) for c in telling)), 0
    )
    before = steps[:first][np.isfinite(steps[:first])]
    if before.size == 0 or not steps[first] < before.max():
        return table, steps
    rest = range(first, len(table.records))
    note = f"the {first} lines before {table.at(first)} are of another training and were left out"
    return table.only(rest).noted(note), steps[first:]


def _over_epochs(table: Table, columns: list[str], steps: Array, used: Sequence[int]) -> Array:
    """Steps that begin again with every epoch, counted on over all of them; else the same."""
    counted = steps[used]
    back = np.flatnonzero(np.diff(counted) < 0)
    epoch = next((c for c in columns if c.strip().lower() in ("epoch", "epochs")), None)
    if back.size == 0 or epoch is None:
        return steps
    epochs = np.array([number(table.records[i].get(epoch), "", epoch) for i in used])
    grows = np.flatnonzero(np.diff(epochs) > 0)
    whole = np.isfinite(epochs).all() and np.all(epochs == np.round(epochs))
    if not whole or np.any(np.diff(epochs) < 0) or not np.array_equal(grows, back):
        return steps
    longest = np.maximum.reduceat(counted, np.r_[0, back + 1])
    before = np.r_[0.0, np.cumsum(longest)]
    going = steps.copy()
    going[used] = counted + before[np.searchsorted(back, np.arange(len(used)) - 1, side="right")]
    return going


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


def _series(reading: _Reading, column: str) -> Series | None:
    table, meaning, notes = reading.table, reading.meanings[column], reading.notes
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
    rows, values = _finite(reading, column, np.array(rows, dtype=int), values)
    if values.size == 0:
        return None
    if meaning.negate:
        values = -values
    if meaning.quantity in LOG_PROBS or meaning.quantity.startswith(OTHER):
        _require_log_probs(table, column, meaning, rows, values)
    steps, values = _ordered(table, column, reading.positions[rows], rows, values, notes)
    batches = meaning.split == "train" and not of_fixed_set(column)
    return Series(meaning.quantity, meaning.split, steps, values, column, batches=batches)


def _finite(reading: _Reading, column: str, rows: Any, values: Array) -> tuple[Any, Array]:
    """The finite values; a tail of others in what training hangs on is noted as broken."""
    table, meaning, notes = reading.table, reading.meanings[column], reading.notes
    finite = np.isfinite(values)
    # A column that other lines leave empty (W&B, CSV) is sparse, not broken.
    wrong = ~finite & np.array([not missing(table.records[i][column]) for i in rows], dtype=bool)
    for k in np.flatnonzero(wrong):
        wrong[k] = not reading.of_another_split(int(rows[k]), meaning.split)
    # To the end means of the steps, in whatever order the lines stand.
    order = np.argsort(reading.positions[rows], kind="stable")
    last = int(np.flatnonzero(finite[order])[-1]) if finite.any() else -1
    tail = order[last + 1 :][wrong[order[last + 1 :]]]
    if tail.size:
        first = int(rows[tail[0]])
        if meaning.quantity in (*TELLING, LOSS, NLL):
            reading.broken.append(
                _Broken(
                    *(column, meaning, first, reading.positions[rows[tail]], last < 0),
                    earlier=int(wrong.sum()) - tail.size,
                )
            )
        else:
            notes.append(f"{column} is NaN or infinite from {table.at(first)} to the end")
    if wrong.sum() > tail.size:
        notes.append(f"{column}: {wrong.sum() - tail.size} NaN or infinite values left out")
    if last < 0 and wrong.any():
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
    kind = "rewards (name the column rewards/... then)"
    if values.max() <= 1 and values.min() >= 0:
        kind = "probabilities (log their logarithms)"
    if positive.size == values.size and values.max() > 1:
        kind = "negative log-likelihoods or rewards (name the column nll/... or rewards/... then)"
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


def _varies(table: Table, column: str) -> bool:
    return len({str(r.get(column)) for r in table.records}) > 1


def split_by_run(table: Table) -> list[Table]:
    """One table a run where a column names the run, or its setting; else the table itself."""
    columns = {str(c).lower(): c for record in table.records for c in record}
    name = next((columns[c] for c in RUN_NAMES if c in columns), None)
    if name is None and not any(is_step(c) for c in columns):  # a table of results
        named = [columns[c] for c in SETTINGS if c in columns]
        name = next((c for c in named if _varies(table, c)), None)
    if name is None:
        return [table]
    groups: dict[str, list[int]] = {}
    for i, record in enumerate(table.records):
        groups.setdefault(str(record.get(name, "")), []).append(i)
    return [table.only(rows, run) for run, rows in groups.items()]
