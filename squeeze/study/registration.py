"""The pre-registration: what `preregistered.yaml` fixes for every observation before evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from squeeze.claims.catalogue import get
from squeeze.claims.types import Claim, Level, Verdict
from squeeze.errors import InputError
from squeeze.report.claim_pages import Plan, Registered
from squeeze.report.content import flat

FILE = files("squeeze.study") / "preregistered.yaml"


@dataclass(frozen=True)
class LevelPlan:
    """What one level runs: model, seeds, the recipe of `RunConfig` fields, and single settings.

    `fewer` maps a claim id, or the letters before its hyphen, to the number of seeds spent on it.
    """

    model: str
    development: tuple[int, ...]
    evaluation: tuple[int, ...]
    recipe: Mapping[str, Any]
    settings: Mapping[str, Any]
    fewer: Mapping[str, int]

    def seeds_of(self, claim: str, seeds: Sequence[int]) -> tuple[int, ...]:
        """Those of `seeds` that are spent on a claim: the first few where the plan says so."""
        limit = self.fewer.get(claim, self.fewer.get(claim.split("-")[0], len(seeds)))
        return tuple(seeds[:limit])


@cache
def _document() -> Mapping[str, Any]:
    document: Mapping[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return document


def registration_sha256(level: Level) -> str:
    """The SHA-256 of what is registered for a level and of its claims' statistics."""
    document = _document()
    plan(level)
    claims = {id: rows for id, rows in document["claims"].items() if level in get(id).levels}
    part = {"level": document["levels"][level], "claims": claims}
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()


def plan(level: Level) -> LevelPlan:
    """The registered plan of a level; `InputError` for one without."""
    levels = _document()["levels"]
    if level not in levels:
        raise InputError(f"no observation is registered at level {level!r}, only {list(levels)}")
    values = dict(levels[level])
    for key in ("development", "evaluation"):
        values[key] = tuple(values[key])
    return LevelPlan(**values)


def unregistered(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The verdicts whose statistic, side or bound is not what was registered for their claim."""
    claims = _document()["claims"]
    found = []
    for verdict in verdicts:
        rows = claims.get(verdict.claim, [])
        given = (verdict.statistic, verdict.side, verdict.bound)
        if verdict.ran and given not in [
            (row["statistic"], row["side"], row["bound"]) for row in rows
        ]:
            found.append(verdict)
    return found


def registered_by_claim(claims: Iterable[Claim]) -> dict[str, Registered]:
    """What is registered for each of these claims, as its page shows it."""
    document = _document()
    found = {}
    for claim in claims:
        if claim.id in document["claims"]:
            plans = [_shown(claim, level) for level in claim.levels if level in document["levels"]]
            found[claim.id] = Registered(document["claims"][claim.id], plans)
    return found


def _shown(claim: Claim, level: Level) -> Plan:
    own = plan(level)
    fields = flat({"recipe": own.recipe, "settings": own.settings})
    seeds = own.seeds_of(claim.id, own.evaluation)
    return Plan(level, registration_sha256(level), own.model, seeds, fields)
