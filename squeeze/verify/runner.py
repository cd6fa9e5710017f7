"""The run of all checks on one subject, and the file of failures that are expected."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from squeeze.errors import InputError
from squeeze.files import read_text
from squeeze.verify import catalogue
from squeeze.verify.groups import GroupSubject
from squeeze.verify.types import Check, DoesNotApply, Outcome, Result


def checks_of(subject: Any) -> list[Check]:
    """The checks that are asked of this kind of subject, what they need before them."""
    if isinstance(subject, GroupSubject):  # which is a TrainerSubject, and has checks of its own
        return [c for c in catalogue.CHECKS.values() if GroupSubject in c.of]
    return [c for c in catalogue.CHECKS.values() if isinstance(subject, c.of)]


def verify(
    subject: Any, *, xfails: Mapping[str, str] | None = None, only: Collection[str] = ()
) -> list[Result]:
    """Ask a subject every check of its kind (or `only` some, and what they need), in order.

    `xfails` maps a check's id to why its failure is expected. Raises `InputError` for an unknown
    id, and for a subject that cannot be used at all.
    """
    expected = dict(xfails or {})
    for id in (*expected, *only):
        if id not in catalogue.CHECKS:
            raise InputError(f"no check is called {id!r}; there are {', '.join(catalogue.CHECKS)}")
    wanted = _with_needs(only)
    checks = [c for c in checks_of(subject) if not wanted or c.id in wanted]
    return ask(checks, subject, expected)


def ask(
    checks: Collection[Check], subject: Any, expected: Mapping[str, str] | None = None
) -> list[Result]:
    """Ask these checks and no others, in their order."""
    results: dict[str, Result] = {}
    for check in checks:
        results[check.id] = _ask(check, subject, results, expected or {})
    return list(results.values())


def failures(results: Collection[Result]) -> list[Result]:
    """The results that are a fault nobody expects."""
    return [result for result in results if result.outcome == "fails"]


def read_xfails(path: Path) -> dict[str, str]:
    """Expected failures from a file: a check's id a line, then `#` and the reason.

    Raises `InputError` naming the line that has no reason, as an undocumented deviation is none.
    """
    expected = {}
    lines = read_text(path, "the expected failures").splitlines()
    for number, line in enumerate(lines, start=1):
        id, _, reason = (part.strip() for part in line.partition("#"))
        if id and not reason:
            raise InputError(f"{path}, line {number}: say why {id!r} may fail, as: {id}  # reason")
        if id:
            expected[id] = reason
    return expected


def _with_needs(only: Collection[str]) -> set[str]:
    wanted: set[str] = set()
    left = list(only)
    while left:
        id = left.pop()
        if id not in wanted:
            wanted.add(id)
            left += catalogue.CHECKS[id].needs
    return wanted


def _ask(
    check: Check, subject: Any, before: Mapping[str, Result], expected: Mapping[str, str]
) -> Result:
    failed = _failed_below(check, before)
    if failed:
        reason = f"presupposes {', '.join(failed)}, which {'fail' if failed[1:] else 'fails'}"
        return Result(check, "does not apply", reason)
    try:
        measured = check.function(subject)
    except DoesNotApply as reason:
        return Result(check, "does not apply", str(reason))
    # written so that NaN fails
    if measured.deviation <= check.tolerance:
        note = "; listed as an expected failure, which it is not" if check.id in expected else ""
        return Result(check, "passes", measured.what + note, measured.deviation)
    outcome: Outcome = "xfail" if check.id in expected else "fails"
    note = f" ({expected[check.id]})" if check.id in expected else ""
    value = measured.deviation if math.isfinite(measured.deviation) else math.inf
    return Result(check, outcome, measured.what + note, value)


def _failed_below(check: Check, before: Mapping[str, Result]) -> list[str]:
    """The failed checks that this one rests on, directly or through one that did not run."""
    failed: dict[str, None] = {}
    for name in check.needs:
        result = before.get(name)
        if result is None:
            continue
        if result.outcome in ("fails", "xfail"):
            failed[name] = None
        elif result.outcome == "does not apply":
            failed |= dict.fromkeys(_failed_below(result.check, before))
    return list(failed)
