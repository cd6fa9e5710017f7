"""The pre-registration: what `preregistered.yaml` fixes for every observation before evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from squeeze.claims.catalogue import Claim, get
from squeeze.claims.statistics import decide
from squeeze.claims.types import Level, Verdict
from squeeze.errors import InputError
from squeeze.report.claim_pages import Plan, Registered
from squeeze.report.content import flat

FILE = files("squeeze.study") / "preregistered.yaml"


@dataclass(frozen=True)
class LevelPlan:
    """What one level runs: model, seeds, the recipe of `RunConfig` fields, and single settings.

    `fewer` maps a claim id, or the letters before its hyphen, to the number of seeds spent on it.
    `exploratory` says that checks were rewritten after these evaluation seeds had been seen.
    """

    model: str
    development: tuple[int, ...]
    evaluation: tuple[int, ...]
    recipe: Mapping[str, Any]
    settings: Mapping[str, Any]
    fewer: Mapping[str, int]
    exploratory: bool = False

    def seeds_of(self, claim: str, seeds: Sequence[int]) -> tuple[int, ...]:
        """Those of `seeds` that are spent on a claim: the first few where the plan says so."""
        limit = self.fewer.get(claim, self.fewer.get(claim.split("-")[0], len(seeds)))
        return tuple(seeds[:limit])


@cache
def _document() -> Mapping[str, Any]:
    document: Mapping[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return document


def verifiable_plan() -> Mapping[str, Any]:
    """What is registered for the checkable questions: model, seeds, recipe and statistics."""
    found: Mapping[str, Any] = _document()["verifiable"]
    return found


def registration_sha256(level: Level) -> str:
    """The SHA-256 of what is registered for a level and of its claims' statistics."""
    document = _document()
    plan(level)
    claims = {id: rows for id, rows in document["claims"].items() if level in get(id).levels}
    part = {"level": document["levels"][level], "claims": claims}
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()


def plan(level: str) -> LevelPlan:
    """The registered plan of a level; `InputError` for one without."""
    levels = _document()["levels"]
    if level not in levels:
        raise InputError(f"no observation is registered at level {level!r}, only {list(levels)}")
    values = dict(levels[level])
    for key in ("development", "evaluation"):
        values[key] = tuple(values[key])
    return LevelPlan(**values)


def registered_rows(claim: str) -> list[dict[str, Any]]:
    """Statistic, side, bound and role of every row that is registered for a claim."""
    entry = _document()["claims"].get(claim, {})
    rows = [{"role": "primary", **entry["primary"]}] if entry else []
    rows += [{"role": "secondary", **row} for row in entry.get("secondary", [])]
    return [{"bound": 0, **row} for row in rows]


def smallest_effect(claim: str, level: Level) -> float | None:
    """The registered smallest effect of interest of a claim's primary row, None for none."""
    found = _document()["claims"].get(claim, {}).get("smallest_effect")
    value = found.get(level) if isinstance(found, Mapping) else found
    return None if value is None else float(value)


def with_registered_effects(rows: Iterable[Verdict], level: Level) -> list[Verdict]:
    """The rows, the primary ones decided again with the registered smallest effect of interest."""
    return [
        decide(replace(row, smallest_effect=smallest_effect(row.claim, level)))
        if row.role == "primary" and smallest_effect(row.claim, level) is not None
        else row
        for row in rows
    ]


def registered_by_claim(claims: Iterable[Claim]) -> dict[str, Registered]:
    """What is registered for each of these claims, as its page shows it."""
    document = _document()
    found = {}
    for claim in claims:
        if claim.id in document["claims"]:
            plans = [_shown(claim, level) for level in claim.levels if level in document["levels"]]
            found[claim.id] = Registered(registered_rows(claim.id), plans)
    return found


def _shown(claim: Claim, level: Level) -> Plan:
    own = plan(level)
    fields = flat({"recipe": own.recipe, "settings": own.settings})
    seeds = own.seeds_of(claim.id, own.evaluation)
    return Plan(level, registration_sha256(level), own.model, seeds, fields)
