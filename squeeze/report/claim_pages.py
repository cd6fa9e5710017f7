"""A static site of the claims: an index of claims by level, and a page a claim with its evidence.

Takes the catalogue's words, the pre-registration and rows of the ledger; judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from squeeze.claims.catalogue import Claim
from squeeze.claims.table import by_claim, count, measured, rests_on, standing
from squeeze.claims.types import LEVELS, Entry, Level
from squeeze.files import require_ours, write_text
from squeeze.report.content import flat
from squeeze.report.html import environment

WIDTH, MARGIN = 220.0, 8.0  # of a row's interval bar, in SVG units


@dataclass(frozen=True)
class Plan:
    """What was registered for a claim at a level, and the SHA-256 that fixes it."""

    level: Level
    sha256: str
    model: str
    seeds: tuple[int, ...]
    fields: list[tuple[str, str]]


@dataclass(frozen=True)
class Registered:
    """What was fixed for a claim before evaluation: its statistics' rows, and a plan a level."""

    statistics: Sequence[Mapping[str, Any]] = ()
    plans: Sequence[Plan] = ()


@dataclass(frozen=True)
class Bar:
    """A row's interval on its group's axis, in SVG units; the bound is None where there is none."""

    low: float
    high: float
    middle: float
    bound: float | None


@dataclass(frozen=True)
class Row:
    """One row of the ledger as it is shown."""

    entry: Entry
    effect: str
    bar: Bar | None
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class Group:
    """Rows with one statistic, so with one unit and one axis from `low` to `high`."""

    statistic: str
    rows: list[Row]
    low: float
    high: float


def write_claim_pages(
    directory: Path,
    claims: Mapping[str, Claim],
    rows: Sequence[Entry],
    registered: Mapping[str, Registered],
) -> Path:
    """Write index.html and CLAIM.html for every claim from `table.overview`'s rows.

    `registered` holds what was pre-registered, by claim. Returns the path of the
    index; raises `InputError` if the directory cannot be written, or holds pages of others.
    """
    for name in ("index", *(claim.id for claim in claims.values())):
        require_ours(directory / f"{name}.html", "--pages")
    env = environment(autoescape=True)
    groups, nothing = by_claim(rows), Registered()
    for claim in claims.values():
        page = env.get_template("claim.html.j2").render(
            claim=claim,
            groups=_groups(groups.get(claim.id, [])),
            standings=_standings(groups.get(claim.id, [])),
            statistics=registered.get(claim.id, nothing).statistics,
            plans=registered.get(claim.id, nothing).plans,
            width=WIDTH,
        )
        write_text(directory / f"{claim.id}.html", page)
    index = env.get_template("claims.html.j2").render(
        levels=LEVELS,
        claims=[(id, found[0], _standings(found)) for id, found in groups.items()],
        known=set(claims),
        count=count(list(rows)),
        version=version("dpo-squeeze"),
    )
    write_text(directory / "index.html", index)
    return directory / "index.html"


def _standings(rows: Sequence[Entry]) -> dict[str, tuple[str, str]]:
    """Word and details by level, for the levels that the claim has rows at."""
    at = {level: [row for row in rows if row.verdict.level == level] for level in LEVELS}
    return {level: standing(found) for level, found in at.items() if found}


def _groups(rows: Sequence[Entry]) -> list[Group]:
    """The rows by statistic, those without one (never run) last."""
    named: dict[str, list[Entry]] = {}
    for row in sorted(rows, key=lambda row: not row.verdict.statistic):
        named.setdefault(row.verdict.statistic, []).append(row)
    return [_group(statistic, found) for statistic, found in named.items()]


def _group(statistic: str, entries: Sequence[Entry]) -> Group:
    ends = [
        x
        for v in (e.verdict for e in entries)
        if v.interval is not None
        for x in (*v.interval, v.effect, v.bound)
        if x is not None
    ]
    low, high = (min(ends), max(ends)) if ends else (0.0, 0.0)
    return Group(statistic, [_row(entry, low, high) for entry in entries], low, high)


def _row(entry: Entry, low: float, high: float) -> Row:
    v = entry.verdict
    facts = {
        "comparison": v.comparison,
        "row": v.role,
        "rests on": rests_on(v),
        "means by seed": ", ".join(f"{x:.3g}" for x in v.seed_means),
        "smallest effect of interest": _number(v.smallest_effect),
        "smallest effect this design could see": _number(v.detectable),
        "bound": _number(v.bound),
        "seconds": f"{entry.seconds:.1f}" if entry.date else "",
        "device": entry.device,
        "versions": ", ".join(f"{name} {x}" for name, x in entry.versions.items()),
        "run again": entry.test,
    }
    shown = [(name, text) for name, text in facts.items() if text]
    evidence = [(name, _short(text)) for name, text in flat(v.evidence)]
    return Row(entry, measured(v), _bar(entry, low, high), shown + evidence)


def _bar(entry: Entry, low: float, high: float) -> Bar | None:
    v = entry.verdict
    if v.interval is None:
        return None
    span = high - low

    def place(x: float) -> float:
        share = (x - low) / span if span else 0.5
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    left, right = v.interval
    middle = (left + right) / 2 if v.effect is None else v.effect
    bound = None if v.bound is None else place(v.bound)
    return Bar(place(left), place(right), place(middle), bound)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _short(text: str) -> str:
    return text if len(text) <= 400 else f"{text[:400]}… (all of it: squeeze claims --json)"
