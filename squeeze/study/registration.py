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


def part_of(claim: str | None) -> Mapping[str, Any]:
    """The part of the registration that a claim stands in: `levels`, and the ids of its `claims`.

    A part by itself has other models, recipes or seeds than a level's other claims, or was
    registered later than them.
    """
    document = _document()
    own = [part for part in document["parts"].values() if claim in part["claims"]]
    if own:
        found: Mapping[str, Any] = own[0]
        return found
    elsewhere = {id for part in document["parts"].values() for id in part["claims"]}
    others = [id for id in document["claims"] if id not in elsewhere]
    return {"levels": document["levels"], "claims": others}


def stands_apart(claim: str) -> bool:
    """Whether a claim is registered in a part by itself."""
    return any(claim in part["claims"] for part in _document()["parts"].values())


def registration_sha256(level: Level, claim: str | None = None) -> str:
    """The SHA-256 of what is registered for a level and of its claims' statistics.

    For a `claim` that stands in a part by itself, of that part.
    """
    plan(level, claim)
    part, rows = part_of(claim), _document()["claims"]
    claims = {id: rows[id] for id in part["claims"] if level in get(id).levels}
    text = json.dumps({"level": part["levels"][level], "claims": claims}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plan(level: str, claim: str | None = None) -> LevelPlan:
    """The registered plan of a level, or of a claim at it; `InputError` where there is none."""
    levels = part_of(claim)["levels"]
    if level not in levels:
        what = claim or "no observation"
        verb = "is registered" if claim is None else "is not registered"
        raise InputError(f"{what} {verb} at level {level!r}, only {list(levels)}")
    values = {"settings": {}, "fewer": {}, **levels[level]}
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
            levels = part_of(claim.id)["levels"]
            plans = [_shown(claim, level) for level in claim.levels if level in levels]
            found[claim.id] = Registered(registered_rows(claim.id), plans)
    return found


def _shown(claim: Claim, level: Level) -> Plan:
    own = plan(level, claim.id)
    fields = flat({"recipe": own.recipe, "settings": own.settings})
    seeds = own.seeds_of(claim.id, own.evaluation)
    return Plan(level, registration_sha256(level, claim.id), own.model, seeds, fields)
