"""Types of a conformance run: a check, what it measured, and how it came out; and the registry.

A check is a function that measures one deviation from a theorem or a standard, a number that is 0
on a trainer without fault; it passes up to its tolerance. It is registered by `@check(...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["passes", "fails", "does not apply", "xfail"]
OUTCOMES: tuple[Outcome, ...] = ("passes", "fails", "does not apply", "xfail")


class DoesNotApply(Exception):
    """A check asks what its subject has not; the message says what."""


@dataclass(frozen=True)
class Measured:
    """A deviation, at least 0, in the check's unit, and a clause that says what was compared."""

    deviation: float
    what: str


@dataclass(frozen=True)
class Check:
    """One question asked of a subject.

    `standard` is the theorem or the rule behind it, `cure` a sentence of cause and cure for whoever
    fails it. `needs` are checks that it presupposes: where one of those fails, this one does not
    apply, so that one fault is one red line. `of` are the subjects it is asked of.
    """

    id: str
    function: Callable[[Any], Measured]
    standard: str
    cure: str
    tolerance: float
    unit: str
    needs: tuple[str, ...]
    of: tuple[type, ...]


@dataclass(frozen=True)
class Result:
    """How one check came out: `what` was measured, or the reason why nothing was."""

    check: Check
    outcome: Outcome
    what: str
    deviation: float | None = None


CHECKS: dict[str, Check] = {}


def check(
    id: str,
    *of: type,
    standard: str,
    cure: str,
    tolerance: float,
    unit: str = "nats",
    needs: tuple[str, ...] = (),
) -> Callable[[Callable[[Any], Measured]], Callable[[Any], Measured]]:
    """Register the decorated function as a check of subjects of the types `of`.

    It must be registered after the checks that it needs.
    """

    def decorate(function: Callable[[Any], Measured]) -> Callable[[Any], Measured]:
        unknown = [name for name in needs if name not in CHECKS]
        if id in CHECKS or unknown:
            raise ValueError(f"check {id!r} is registered twice or before {unknown}")
        CHECKS[id] = Check(id, function, standard, cure, tolerance, unit, needs, of)
        return function

    return decorate
