"""Shipped results: how each claim came out at each level when this version was made.

`results.json` is package data, written from a ledger by `squeeze claims --write-results FILE`. It
is what an installed user is told of a claim; the ledger is what their own suite found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import FiniteFloat, TypeAdapter
from typing_extensions import TypedDict

from squeeze.claims.table import by_claim, outcome_of, primary, rests_on
from squeeze.claims.types import LEVELS, NEVER_RUN, Entry, Key, Level, Outcome, Verdict
from squeeze.files import read_as, write_json

SCHEMA = 1
FILE = files("squeeze.claims") / "results.json"


@dataclass(frozen=True)
class Result:
    """How one claim came out at one level: the numbers of its primary row.

    `seeds` counts them; `rests_on` is "n=32, 5 seeds, 128 updates, model, data" as far as known;
    `rows` says of a theorem how many inputs or comparisons the outcome stands for.
    """

    claim: str
    level: Level
    outcome: Outcome
    statistic: str = ""
    effect: FiniteFloat | None = None
    interval: tuple[FiniteFloat, FiniteFloat] | None = None
    detectable: FiniteFloat | None = None
    n: int = 0
    seeds: int = 0
    rests_on: str = ""
    rows: int = 1
    reason: str = ""
    date: str = ""


class _File(TypedDict):
    """What `write_results` writes."""

    claims: dict[str, dict[str, str]]
    results: list[Result]


_FILE = TypeAdapter(_File)
_ANOTHER = "it would be overwritten; put it back as it was, or choose another file"


@cache
def shipped() -> Mapping[str, Mapping[Level, Result]]:
    """Return the shipped results by claim and level; a claim that was never run has none."""
    return _by_claim(json.loads(FILE.read_text(encoding="utf-8")))


def entries() -> dict[Key, Entry]:
    """Return the shipped results as rows of a ledger, with the words of their claims."""
    words = json.loads(FILE.read_text(encoding="utf-8"))["claims"]
    found: dict[Key, Entry] = {}
    for claim, levels in shipped().items():
        for level, r in levels.items():
            verdict = Verdict(
                *(claim, level, r.outcome, r.statistic, r.effect, r.interval),
                n=r.n,
                detectable=r.detectable,
                reason=r.reason,
                exploratory="exploratory" in r.rests_on,
            )
            found[verdict.claim, level, ""] = Entry(verdict, **words[claim], date=r.date)
    return found


def best(claim: str) -> Result | None:
    """Return a claim's shipped result at the level nearest to practice that decided it.

    Levels count in the order toy, tiny, published, pretrained, gpu. Where none decided, the result
    of the highest level that was run; None where none was.
    """
    found = [result for result in shipped().get(claim, {}).values() if result.outcome != "not run"]
    decided = [r for r in found if r.outcome in ("supported", "contradicted")]
    ordered = sorted(decided or found, key=lambda result: LEVELS.index(result.level))
    return ordered[-1] if ordered else None


def results_of(rows: Sequence[Entry]) -> list[Result]:
    """Return a result for every claim and level with a verdict, or a reason why there is none."""
    found = []
    for claim, entries in by_claim(rows).items():
        for level in LEVELS:
            here = [entry for entry in entries if entry.verdict.level == level]
            row = primary([entry.verdict for entry in here])
            if row is None or (not row.ran and row.reason in ("", NEVER_RUN)):
                continue
            of_role = [entry.verdict for entry in here if entry.verdict.role == "primary"]
            found.append(
                Result(
                    claim=claim,
                    level=level,
                    outcome=outcome_of(of_role),
                    statistic=row.statistic,
                    effect=row.effect,
                    interval=row.interval,
                    detectable=row.detectable,
                    n=row.n,
                    seeds=len(row.seeds),
                    rests_on=rests_on(row),
                    rows=len(of_role),
                    reason=row.reason,
                    date=max(entry.date for entry in here)[:10],
                )
            )
    return found


def write_results(path: Path, rows: Sequence[Entry]) -> int:
    """Write the ledger's results into `path`, keeping what it says of claims and levels not there.

    (A level that takes a GPU is judged on another machine than the others; what was not run here
    takes nothing away.) Returns how many results the file holds. Raises `InputError` where the
    file is there and is none of these.
    """
    before = read_as(path, _FILE, _ANOTHER) if path.exists() else _File(claims={}, results=[])
    kept = {(r.claim, r.level): r for r in before["results"]}
    ran = {key for key, result in kept.items() if result.outcome != "not run"}
    new = {(r.claim, r.level): r for r in results_of(rows)}
    merged = kept | {key: r for key, r in new.items() if r.outcome != "not run" or key not in ran}
    ordered = [merged[key] for key in sorted(merged, key=lambda k: (k[0], LEVELS.index(k[1])))]
    compact = [{k: v for k, v in asdict(r).items() if v not in (None, "", 0)} for r in ordered]
    words = {
        entry.verdict.claim: {name: getattr(entry, name) for name in ("sentence", "source", "kind")}
        for entry in rows
    }
    words = before["claims"] | words
    write_json(path, {"schema": SCHEMA, "claims": words, "results": compact})
    return len(ordered)


def _by_claim(document: Mapping[str, Any]) -> dict[str, dict[Level, Result]]:
    found: dict[str, dict[Level, Result]] = {}
    for row in document["results"]:
        interval = tuple(row["interval"]) if "interval" in row else None
        result = Result(**row | {"interval": interval})
        found.setdefault(result.claim, {})[result.level] = result
    return found
