"""The ledger as a table: every claim at every level, with "not run" where nothing was recorded.

Turns entries into rows and text for `claims.md`, the README, the command line and the end of a
pytest run; it reads and writes no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from squeeze.claims.catalogue import Claim
from squeeze.claims.types import LEVELS, NEVER_RUN, Entry, Key, Level, Outcome, Verdict

STYLES: dict[Outcome, str] = {
    "supported": "green",
    "contradicted": "red",
    "inconclusive": "yellow",
    "premise not met": "purple",
    "not run": "blue",
}
# Of several primary rows, as a theorem has one an input: the first of these that any row has.
WORST_FIRST: tuple[Outcome, ...] = (
    "contradicted",
    "inconclusive",
    "premise not met",
    "supported",
    "not run",
)


def overview(claims: Mapping[str, Claim], entries: Mapping[Key, Entry]) -> list[Entry]:
    """Return a row for every claim × level (× comparison), placeholders where none is recorded.

    Rows follow the registry's order; entries of claims that it does not know come last.
    """
    rows: list[Entry] = []
    for claim in claims.values():
        levels = [*claim.levels]
        # An entry at a level that the claim has since given up is still shown.
        levels += sorted({k[1] for k in entries if k[0] == claim.id} - set(levels))  # type: ignore[arg-type]
        for level in levels:
            found = [entries[key] for key in sorted(entries) if key[:2] == (claim.id, level)]
            nothing = Verdict(claim.id, level, "not run", reason=NEVER_RUN)
            rows += found or [Entry(nothing, claim.sentence, claim.source, claim.kind)]
    return rows + [entries[key] for key in sorted(entries) if key[0] not in claims]


def count(rows: Sequence[Entry]) -> str:
    """Return how many rows came out how: "17 supported, 1 contradicted, 2 not run"."""
    counts: Counter[str] = Counter(row.verdict.outcome for row in rows)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in STYLES if counts[outcome])


def outcome_of(verdicts: Sequence[Verdict]) -> Outcome:
    """How a claim stands at a level, from its rows there: as its primary row came out.

    Of several primary rows (a theorem has one an input) one that is contradicted decides, then one
    that is not settled; rows that were not run count only where nothing was. Secondary rows decide
    nothing; with nothing else the claim was not run.
    """
    found = {v.outcome for v in verdicts if v.role == "primary"}
    return next((outcome for outcome in WORST_FIRST if outcome in found), "not run")


def primary(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The row that decides a claim at a level, None where there is none."""
    outcome = outcome_of(verdicts)
    rows = [v for v in verdicts if v.role == "primary" and v.outcome == outcome]
    return rows[0] if rows else None


def measured(verdict: Verdict) -> str:
    """Return the effect with its interval, "1.23 [1.1, 1.4]", empty if nothing was measured."""
    effect = "" if verdict.effect is None else f"{verdict.effect:.3g}"
    if verdict.interval is None:
        return effect
    low, high = verdict.interval
    return f"{effect} [{low:.3g}, {high:.3g}]".strip()


def rests_on(verdict: Verdict) -> str:
    """Return what a row rests on: "n=32, 5 seeds, 128 updates, model, data", as far as known."""
    seeds = len(verdict.seeds)
    parts = [
        f"n={verdict.n}" if verdict.n else "",
        f"{seeds} seed{'' if seeds == 1 else 's'}" if seeds else "",
        f"{verdict.updates} updates" if verdict.updates else "",
        verdict.model,
        verdict.data,
        "exploratory" if verdict.exploratory else "",
    ]
    return ", ".join(part for part in parts if part)


def markdown(rows: list[Entry]) -> str:
    """Return the table as Markdown, with the circumstances of the checks as numbered notes."""
    notes: dict[str, int] = {}
    lines = [
        "# Claims",
        "",
        f"{count(rows) or 'No claim is registered'}. Intervals are 95%; "
        '"supported" means that the whole interval lies on the claimed side of the bound, '
        '"contradicted" on the other; else, or with fewer than five seeds, "inconclusive".',
        "",
        "| claim | sentence | source | kind | level | role | comparison | outcome | statistic "
        "| effect | detectable | rests on | seeds | seconds | date | run | reason |",
        "|---" * 17 + "|",
    ]
    for row in rows:
        v = row.verdict
        where = ", ".join([row.device, *(f"{k} {x}" for k, x in sorted(row.versions.items()))])
        note = str(notes.setdefault(where, len(notes) + 1)) if row.date else ""
        cells = [
            v.claim, row.sentence, row.source, row.kind, v.level, v.role, v.comparison,
            f"**{v.outcome}**", v.statistic, measured(v),
            "" if v.detectable is None else f"{v.detectable:.3g}", rests_on(v),
            ", ".join(map(str, v.seeds)),
            f"{row.seconds:.1f}" if row.date else "", row.date[:10], note, _first_line(v.reason),
        ]  # fmt: skip
        lines.append(_line(cells))
    if notes:
        lines += ["", "Runs:", "", *(f"{number}. {where}" for where, number in notes.items())]
    return "\n".join(lines) + "\n"


def standing(rows: Sequence[Entry]) -> tuple[Outcome | Literal[""], str]:
    """How a claim stands at a level, from its rows there: (outcome, what else to say).

    The second text is the primary row's effect with its interval and what it rests on, or counts
    the rows of a theorem.
    """
    verdicts = [row.verdict for row in rows]
    if not verdicts:
        return "", ""
    row = primary(verdicts)
    if row is None or not row.ran:
        return "not run", ""
    of_role = [v for v in verdicts if v.role == "primary"]
    if len(of_role) > 1:
        alike = sum(v.outcome == row.outcome for v in of_role)
        return row.outcome, f"{alike} of {len(of_role)} rows"
    text = f"{measured(row)} ({rests_on(row)})" if rests_on(row) else measured(row)
    return row.outcome, text.strip()


def results_markdown(rows: Sequence[Entry], *, each_comparison: bool = False) -> str:
    """Return the README's table: a row a claim (or a comparison), a column a level.

    An empty cell means that the claim is not stated at that level.
    """
    lines = ["| claim | sentence | " + " | ".join(LEVELS) + " |", "|---" * (2 + len(LEVELS)) + "|"]
    for claim, of_claim in by_claim(rows).items():
        sentence = of_claim[0].sentence
        if not each_comparison:
            cells = [_stands([r for r in of_claim if r.verdict.level == at]) for at in LEVELS]
            lines.append(_line([claim, sentence, *cells]))
            continue
        named = dict.fromkeys(r.verdict.comparison for r in of_claim if r.verdict.comparison)
        unnamed = [r for r in of_claim if not r.verdict.comparison and r.verdict.ran]
        for comparison in [*named, *([""] if unnamed or not named else [])]:
            words = f"{sentence} ({comparison})" if comparison else sentence
            cells = [_shows(_of(of_claim, at, comparison)) for at in LEVELS]
            lines.append(_line([claim, words, *cells]))
    return "\n".join(lines) + "\n"


def by_claim(rows: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The rows of each claim, in their order."""
    groups: dict[str, list[Entry]] = {}
    for row in rows:
        groups.setdefault(row.verdict.claim, []).append(row)
    return groups


def _of(rows: Sequence[Entry], level: Level, comparison: str) -> list[Entry]:
    """A comparison's rows at a level; the level's "not run" where that is all it has."""
    here = [row for row in rows if row.verdict.level == level]
    return [
        row
        for row in here
        if row.verdict.comparison == comparison or (len(here) == 1 and not row.verdict.comparison)
    ]


def _stands(rows: Sequence[Entry]) -> str:
    return " ".join(standing(rows)).strip()


def _shows(rows: Sequence[Entry]) -> str:
    """A comparison's own outcome and numbers, whatever its role."""
    return "; ".join(f"{r.verdict.outcome} {measured(r.verdict)}".strip() for r in rows)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    # Reasons quote test output, so they may hold anything that Markdown or HTML would act on.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(text.split())


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]
