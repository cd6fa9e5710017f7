"""Records as a log has them: one dict a logged line, with the line's number for messages."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from squeeze.diagnosis.names import RUN_NAMES, SETTINGS, SPLIT_NAMES, STEP_NAMES, is_step, recognise
from squeeze.errors import InputError


@dataclass(frozen=True)
class Table:
    """Records of one run in the file's order; `lines` are their 1-based numbers in the file.

    `method` is what trained, where the text around the records says it ("orpo", "kto", ...).
    """

    name: str
    source: str
    format: str
    records: Sequence[Mapping[str, Any]]
    lines: Sequence[int] = ()
    notes: tuple[str, ...] = ()
    unit: str = "line"
    method: str = ""

    def at(self, index: int) -> str:
        """Where record `index` stands, for messages."""
        number = self.lines[index] if self.lines else index + 1
        return f"{self.unit} {number}"

    def only(self, rows: Sequence[int], name: str = "") -> Table:
        """The table of some of its records, under another name if one is given."""
        numbers = self.lines or range(1, len(self.records) + 1)
        return replace(
            self,
            name=name or self.name,
            records=[self.records[i] for i in rows],
            lines=[numbers[i] for i in rows],
        )

    def noted(self, *notes: str) -> Table:
        """The table with further notes."""
        return replace(self, notes=(*self.notes, *notes))


_HOLDERS = {"metrics", "data", "logs", "log", "payload", "values", "fields"}


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested records ({"epoch": 4, "train": {"chosen": ...}}) as one level, joined by '/'.

    Names that only say that something is held ("metrics") fall away.
    """
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            holds = not prefix and str(key).lower() in _HOLDERS
            found |= flat(value, "" if holds else f"{prefix}{key}/")
        elif not isinstance(value, list):
            found[f"{prefix}{key}"] = value
    return found


# What stands in a cell that holds nothing: pandas' and databases' words, and tables' dashes.
_MISSING = {
    *("", "null", "none", "n/a", "#n/a", "na", "no log", "nolog"),
    *("-", "--", "\u2013", "\u2014"),
}
_BROKEN = {"nan", "#div/0!", "#num!", "#value!"}


def missing(value: Any) -> bool:
    """Whether a field is empty, as a line that logs other columns leaves it."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _MISSING)


_INFINITE = 2.0**128  # trainers log float32s, which end below it


def number(value: Any, where: str, column: str) -> float:
    """Return a logged value as a float; NaN for what loggers write for it, shares for percents.

    What no float32 holds is infinite.

    Raises `InputError` if it is no number.
    """
    if missing(value) or (isinstance(value, str) and value.strip().lower() in _BROKEN):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(
            f"{where}: {column!r} is {type(value).__name__}, not a number; is this a training log?"
        )
    try:
        found = _parsed(value) if isinstance(value, str) else float(value)
    except OverflowError:
        found = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    except ValueError:
        shown = str(value)[:40]
        raise InputError(
            f"{where}: {column!r} is {shown!r}, not a number; is this a training log? "
            "(preference data belongs to --data)"
        ) from None
    return math.copysign(math.inf, found) if abs(found) >= _INFINITE else found


_ERROR = re.compile(r"\s?(?:\u00b1|\+/-)")  # behind a mean
# Thousands apart: 1 200, 1'200, 1,200.5.
_APART = re.compile(r"(?<=\d)(?:[ \u00a0\u2009\u202f'\u2019]|,(?=[\d,]{3,15}\.))(?=\d{3}(?!\d))")


def _parsed(text: str) -> float:
    text = text.strip().strip("*`").replace("\N{MINUS SIGN}", "-")
    text = _APART.sub("", _ERROR.split(text, maxsplit=1)[0])
    if text.endswith("%"):
        return float(text.rstrip("%")) / 100
    done, slash, planned = text.partition("/")  # ms-swift's "global_step/max_steps": "2/52"
    if slash and planned.strip().isdigit():
        return float(done)
    return float(text)


def is_numeric(cell: str) -> bool:
    """Whether a cell holds a number, with a point or a comma."""
    try:
        number(cell.replace(",", "."), "", "")
    except InputError:
        return False
    return True


Row = tuple[int, list[str]]  # cells, and the line that they stand on
_SUMMARY = re.compile(r"^(mean|average|avg|total|sum|best|final|std)\b", re.IGNORECASE)


def values_alone(
    header: Sequence[str], rows: list[Row], unit: str = "line"
) -> tuple[list[Row], tuple[str, ...]]:
    """Rows without one of units below the header and without summaries, and what was left out."""
    notes: tuple[str, ...] = ()
    if len(rows) > 1 and len(rows[0][1]) == len(header) and _is_units(rows[0][1]):
        notes = (f"{unit} {rows[0][0]}, of units, was left out",)
        rows = rows[1:]
    kept = [row for row in rows if not _is_summary(header, row[1])]
    if len(kept) < len(rows):
        notes += (f"{len(rows) - len(kept)} summary rows (mean, total, ...) were left out",)
    return kept, notes


def _is_units(row: Sequence[str]) -> bool:
    said = [cell for cell in row if not missing(cell)]
    return bool(said) and not any(map(is_numeric, said))


def _is_summary(header: Sequence[str], row: Sequence[str]) -> bool:
    named = bool(header) and header[0].strip().lower() in (*RUN_NAMES, *SETTINGS)
    return bool(row) and not named and _SUMMARY.match(row[0].strip()) is not None


TURNED = "the table has a metric a row, and was turned"
_AT = re.compile(r"(?:(?:step|epoch|iter|checkpoint)s?[ _-]{0,2})?(\d{1,12}(?:\.\d{1,6})?)", re.I)


def upright(rows: Sequence[Sequence[str]]) -> list[list[str]] | None:
    """A table with a metric a row and a step a column, turned; None if it is not such a one."""
    width = len(rows[0]) if rows else 0
    known = [row for row in rows if recognise(row[0].strip()) or is_step(row[0])] if width else []
    if width < 3 or len(known) < 2 or any(len(row) != width for row in rows):
        return None
    head: list[list[str]] = []
    if known[0] is not rows[0]:  # the steps stand above, under any name or none
        at = [_AT.fullmatch(cell.strip()) for cell in rows[0][1:]]
        if not all(at) or rows[0][0].strip().lower() in SETTINGS:
            return None
        if not any(is_step(row[0]) for row in known):
            head = [["step", *(m[1] for m in at if m is not None)]]
        rows = rows[1:]
    numbers = [row for row in rows if all(map(is_numeric, row[1:]))]
    if not all(row in numbers for row in known):
        return None
    return [list(column) for column in zip(*head, *numbers, strict=True)]


_COMMAS_READ = "decimal commas were read as points"
_COMMA = re.compile(r"([-+\u2212]?\d{1,18}),(\d{1,18}(?:[eE][-+]?\d{1,3})?)")
_THOUSANDS = re.compile(r"[-+\u2212]?[1-9]\d{0,2}(?:,\d{3})+")
_POINTED = re.compile(r"([-+\u2212]?\d{1,3}(?:\.\d{3})+)(?:,(\d{1,18}))?")


def with_points(
    header: Sequence[str], rows: list[list[str]], *, certain: bool = False
) -> tuple[list[list[str]], tuple[str, ...]]:
    """Rows of cells with points instead of decimal commas, and a note if there were some.

    Then points stand between thousands; else commas do, in steps (1,200). `certain` asks for one
    comma that cannot stand between thousands (0,5 or 1,25, and not 1,200).
    """
    steps = [is_step(name) for name in header]
    rows = [
        [_whole(cell, step) for cell, step in zip(row, steps, strict=True)]
        if len(row) == len(header)
        else row
        for row in rows
    ]
    commas = [c for row in rows for cell in row if _COMMA.fullmatch(c := cell.strip())]
    if not commas or (certain and all(map(_THOUSANDS.fullmatch, commas))):
        return rows, ()
    return [[_with_point(cell.strip()) for cell in row] for row in rows], (_COMMAS_READ,)


def _whole(cell: str, step: bool) -> str:
    return cell.replace(",", "") if step and _THOUSANDS.fullmatch(cell.strip()) else cell


def _with_point(cell: str) -> str:
    if (pointed := _POINTED.fullmatch(cell)) is not None:
        cell = pointed[1].replace(".", "") + (f",{pointed[2]}" if pointed[2] else "")
    return _COMMA.sub(r"\1.\2", cell) if _COMMA.fullmatch(cell) else cell


_TAGS = (
    *("tag", "metric", "key", "name", "metric_name", "metricname", "metric.name"),
    "attribute_path",
)
_VALUES = ("value", "metric_value", "metricvalue", "float_value")
_PLACES = {*STEP_NAMES, *RUN_NAMES, *SPLIT_NAMES}
Point = tuple[Mapping[str, Any], str, Any]  # its place (step, run, ...), column and value


def spread(records: list[dict[str, Any]], columns: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of the long form (a tag and its value) under the tags' own names; others as they are."""
    lowered = {name.lower(): name for name in columns}
    tag = next((lowered[name] for name in _TAGS if name in lowered), None)
    value = next((lowered[name] for name in _VALUES if name in lowered), None)
    if tag is None or value is None:
        return records
    return joined(
        (
            {k: v for k, v in record.items() if k not in (tag, value)},
            str(record[tag]),
            record[value],
        )
        for record in records
        if tag in record and value in record
    )


def joined(points: Iterable[Point]) -> list[dict[str, Any]]:
    """Points as records in the order of their steps: one of each place.

    A place that has a column twice (a run that was resumed) has two records.
    """
    records: list[dict[str, Any]] = []
    at: dict[tuple[Any, ...], dict[str, Any]] = {}
    steps: list[float] = []
    for place, name, value in points:
        key = tuple((c, _of_place(v)) for c, v in sorted(place.items()) if c.lower() in _PLACES)
        record = at.get(key)
        if record is None or name in record:
            record = at[key] = dict(place)
            records.append(record)
            steps += [v for c, v in key if is_step(c) and isinstance(v, float)][:1]
        record[name] = value
    if len(steps) < len(records):
        return records
    return [records[i] for i in sorted(range(len(records)), key=steps.__getitem__)]


def _of_place(value: Any) -> float | str:
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)
