"""Ranks, scores and labels of answers, and the pairs that a stated rule makes of them.

Which columns hold them is `layouts`' work. Ties make no pair and are counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, TypeGuard, TypeVar

from squeeze.data.columns import Columns, entries, present, required, value_at
from squeeze.data.rows import Row, RowError

Answer = TypeVar("Answer")

PAIRS_BY = {
    "best-worst": "the best answer against the worst",
    "all": "every better answer against every worse one",
    "first-rest": "the best answer against each of the others",
}
_TEXTS = {
    **dict.fromkeys(("true", "1", "yes", "desirable", "chosen", "good", "positive"), True),
    **dict.fromkeys(("false", "0", "no", "undesirable", "rejected", "bad", "negative"), False),
    **{"preferred": True, "non-preferred": False},
}
_NO_ONE = ("tie", "tied", "both", "neither", "none", "same", "equal")
MOST_ANSWERS = 500  # of a prompt, for all their pairs
_COMPARED = re.compile(r"\W*(\w{1,40})\s?([<>=])\2{0,2}\s?(\w{1,40})\W*")  # "A>B", "[[B>>A]]"


def parse_label(value: Any, name: str) -> bool:
    """A KTO label: true/false or 1/0, as text too; raises `RowError` otherwise."""
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _TEXTS:
        return _TEXTS[value.strip().lower()]
    raise RowError("bad label", f"has {value!r} in {name!r}, neither true nor false")


def is_grade(value: Any) -> TypeGuard[float | str]:
    """Whether the value is a number (or says one) that answers can be ordered by."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return False
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def answers(row: Row, columns: Columns) -> Iterator[tuple[float, Any, str]]:
    """The answers of a row: (grade, high is good; value; name of the column it stands in).

    Raises `RowError` for an answer without a grade where there should be one.
    """
    if "+" in columns.answers:
        paths = columns.answers.split("+")
        names = [present(row, path) for path in paths]
        grades = _grades_of_columns(row, columns, names)
        for grade, name in zip(grades, names, strict=True):
            yield grade, required(row, name), name
        return
    name = columns.answers.split("|")[0]
    listed = entries(required(row, columns.answers))
    if listed is None or len(listed) < 2:
        raise RowError("fewer than two outputs", f"has fewer than two responses in {name!r}")
    for place, entry in enumerate(listed):
        inside = isinstance(entry, dict) and columns.answer
        said = value_at(entry, columns.answer) if inside else entry
        if said is None:
            raise RowError("no answer", f"has an entry without an answer in {name!r}")
        yield _grade(row, place, entry, columns), said, name


def _grade(row: Row, place: int, entry: Any, columns: Columns) -> float:
    """The grade of a list's entry: its score, less its rank, or less its place.

    They stand in the entry itself, or in a list beside the list of answers.
    """

    def at(path: str) -> Any:
        if not path or isinstance(entry, dict):
            return value_at(entry, path) if path else None
        listed = value_at(row, path)
        return listed[place] if isinstance(listed, list) and place < len(listed) else None

    if columns.better:
        return float(str(place) == str(required(row, columns.better)).strip())
    if not columns.rank and not columns.score:
        return -float(place)
    score, rank = at(columns.score), at(columns.rank)
    grade = rank if score is None else score
    if isinstance(grade, str | bool) and str(grade).strip().lower() in _TEXTS:
        grade = float(_TEXTS[str(grade).strip().lower()])
    if not is_grade(grade):
        raise RowError("no grade", f"has {grade!r} as an answer's rank or score, not a number")
    return -float(grade) if score is None else float(grade)


def row_grade(row: Row, path: str) -> float:
    """The score of the one answer that a row holds; raises `RowError` where it is no number."""
    grade = required(row, path)
    if not is_grade(grade):
        raise RowError("no grade", f"has {grade!r} as its answer's score, not a number")
    return float(grade)


def _grades_of_columns(row: Row, columns: Columns, names: Sequence[str]) -> list[float]:
    """Grades of answers in columns of their own, by scores, a preference, a name, or place.

    A preference is negative where the first is better; all grades are 0 where none is.
    """
    if columns.score:
        scores = [required(row, path) for path in columns.score.split("+")]
        if not all(map(is_grade, scores)):
            raise RowError("no grade", f"has {scores!r} as its answers' scores, not numbers")
        return [float(score) for score in scores]
    if not columns.preference and not columns.better:
        return [-float(place) for place in range(len(names))]
    preferred = value_at(row, columns.preference) if columns.preference else None
    if preferred is not None or not columns.better:
        if not is_grade(preferred):
            raise RowError("no grade", f"has {preferred!r} as preference, not a number")
        return [-float(preferred), *[float(preferred)] * (len(names) - 1)]
    better = required(row, columns.better)
    said = [value_at(row, name) for name in names]
    if said.count(better) == 1 and isinstance(better, str):  # the better answer itself
        return [float(answer == better) for answer in said]
    if isinstance(better, float) and 1 < better < 2 and better != 1.5:  # a mean of 1s and 2s
        better = round(better)
    whole = isinstance(better, float) and better.is_integer()
    value = str(int(better) if whole else better).strip().lower()
    if compared := _COMPARED.fullmatch(value):
        first, sign, second = compared.groups()
        value = "tie" if sign == "=" else first if sign == ">" else second
    if value.startswith(_NO_ONE) or value == "1.5":
        return [0.0] * len(names)
    endings = [name.lower().removeprefix("response").lstrip("_") for name in names]
    for best, (name, ending) in enumerate(zip(names, endings, strict=True)):
        last = ending.rsplit("_", 1)[-1]
        if value in (name.lower(), ending, last) or value.endswith(f"_{last}"):
            return [float(place == best) for place in range(len(names))]
    raise RowError(
        "no better answer",
        f"has {value!r} in {columns.better!r}, the end of none of the names {', '.join(names)}",
    )


def pairs(
    rated: Sequence[tuple[float, Answer]], rule: str
) -> tuple[list[tuple[Answer, Answer, list[Answer]]], int]:
    """The pairs of rated answers by a rule of `PAIRS_BY`: (better, worse, those between), ties.

    Those between are given for "best-worst" alone. Raises `RowError` where all answers tie.
    """
    ordered = sorted(rated, key=lambda one: -one[0])
    if len(ordered) < 2 or ordered[0][0] == ordered[-1][0]:
        raise RowError("tied answers", "has no answer that is rated better than another")
    if rule == "best-worst":
        (_, best), *between, (_, worst) = ordered
        return [(best, worst, [answer for _, answer in between])], 0
    if rule == "first-rest":
        couples = [(ordered[0], other) for other in ordered[1:]]
    elif len(ordered) > MOST_ANSWERS:
        raise RowError(
            "too many answers",
            f"has {len(ordered):,} rated answers, and at most {MOST_ANSWERS} are paired all with "
            "all; take --pairs-by best-worst or first-rest",
        )
    else:
        couples = list(combinations(ordered, 2))
    decided = [(a, b, list[Answer]()) for (high, a), (low, b) in couples if high > low]
    return decided, len(couples) - len(decided)
