"""Catalogue of all claims: `@claim(...)` on a check puts it here once its module is imported.

A claim is one decorated function in a module of this package (or of anybody's own): it takes the
evidence, a small typed object, and returns rows. `load()` imports every module of the package.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import squeeze.claims as package
from squeeze.claims.statistics import settle
from squeeze.claims.types import Kind, Level, Verdict
from squeeze.errors import InputError

Rows = Verdict | list[Verdict]
Check = TypeVar("Check", bound=Callable[[Any], Rows])


@dataclass(frozen=True)
class Claim:
    """One falsifiable sentence, where it comes from, and the check that can refute it.

    `judge` is the decorated function: evidence in, rows out; call it through `check`. Given the
    system that `counterfactual` describes, the very same check must not come out supported.
    `primary` names the one statistic that decides, `math` is the statement as a formula in plain
    text, `run` the command that checks it.
    """

    id: str
    sentence: str
    source: str
    kind: Kind
    levels: tuple[Level, ...]
    counterfactual: str
    judge: Callable[[Any], Rows]
    primary: str = ""
    math: str = ""
    run: str = ""

    def check(self, evidence: Any) -> list[Verdict]:
        """Return the claim's rows on this evidence, secondary ones corrected for their number.

        Raises `InputError` if a row is another claim's.
        """
        found = self.judge(evidence)
        rows = [found] if isinstance(found, Verdict) else list(found)
        foreign = {row.claim for row in rows} - {self.id}
        if foreign:
            raise InputError(f"the check of {self.id} returned rows of {', '.join(foreign)}")
        return settle(rows)


_CLAIMS: dict[str, Claim] = {}


def claim(
    id: str,
    *,
    sentence: str,
    source: str,
    kind: Kind,
    levels: tuple[Level, ...],
    counterfactual: str,
    primary: str,
    math: str = "",
    run: str = "",
) -> Callable[[Check], Check]:
    """Decorate a check with the claim that it can refute; see `Claim` for the fields.

    Raises `InputError` if the id is used by another check.
    """

    def put(judge: Check) -> Check:
        register(
            Claim(id, sentence, source, kind, levels, counterfactual, judge, primary, math, run)
        )
        return judge

    return put


def register(made: Claim) -> Claim:
    """Add a claim to the catalogue and return it; an id may be used once."""
    known = _CLAIMS.get(made.id)
    if known is not None and _place(known) != _place(made):
        raise InputError(f"claim id {made.id!r} is registered twice; give each claim its own id")
    _CLAIMS[made.id] = made
    return made


def _place(made: Claim) -> tuple[str, str]:
    """Where a check is written: a module may be imported or run again."""
    return (made.judge.__module__, made.judge.__qualname__)


def load() -> dict[str, Claim]:
    """Import every module of the package and return all claims by id: theorems, then observations.

    What is in the catalogue already, as a module of the user's own put it there, counts too.
    """
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return {made.id: made for made in sorted(_CLAIMS.values(), key=_order)}


def _order(made: Claim) -> tuple[bool, list[str | int]]:
    parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", made.id)]
    return (made.kind == "observation", parts)


def get(claim_id: str) -> Claim:
    """Return one claim; raise `InputError` naming the nearest id if it is unknown."""
    claims = _CLAIMS if claim_id in _CLAIMS else load()
    if claim_id in claims:
        return claims[claim_id]
    near = difflib.get_close_matches(claim_id.upper(), claims, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"unknown claim {claim_id!r}; {hint}`squeeze claims` lists them all")
