"""The ledger as a table: every claim at every level, with "not run" where nothing was recorded.

Turns entries into rows and text for `claims.md`, the README, the command line and the end of a
pytest run; it reads and writes no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from squeeze.claims.types import NEVER_RUN, Claim, Entry, Key, Level, Verdict

LEVELS: tuple[Level, ...] = get_args(Level)

STYLES = {"supported": "green", "not supported": "red", "not run": "yellow"}


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


def count(rows: list[Entry]) -> str:
    """Return how many rows have which verdict: "17 supported, 1 not supported, 2 not run"."""
    counts: Counter[str] = Counter(row.verdict.status for row in rows)
    return ", ".join(f"{counts[status]} {status}" for status in STYLES if counts[status])


def measured(verdict: Verdict) -> str:
    """Return the effect with its interval, "1.23 [1.1, 1.4]", empty if nothing was measured."""
    effect = "" if verdict.effect is None else f"{verdict.effect:.3g}"
    if verdict.interval is None:
        return effect
    low, high = verdict.interval
    return f"{effect} [{low:.3g}, {high:.3g}]".strip()


def summary_lines(rows: list[Entry]) -> list[tuple[str, str]]:
    """Return (line, status) for each claim and level among the rows, for a terminal.

    Several comparisons of one claim at one level share a line, which names those that did not hold.
    """
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for row in rows:
        groups.setdefault((row.verdict.claim, row.verdict.level), []).append(row.verdict)
    lines: list[tuple[str, str]] = []
    for (claim, level), verdicts in groups.items():
        worst = min(
            verdicts, key=lambda v: ("not supported", "not run", "supported").index(v.status)
        )
        line = f"{claim:<6} {level:<10} {worst.status:<13} "
        if len(verdicts) == 1:
            n = f"n={worst.n}" if worst.n else ""
            line += "  ".join(x for x in (measured(worst), n, _first_line(worst.reason)) if x)
        else:
            others = [v.comparison or "-" for v in verdicts if not v.supported]
            line += f"{len(verdicts) - len(others)} of {len(verdicts)} supported"
            line += f"; not: {', '.join(others)}" if others else ""
        lines.append((line.rstrip(), worst.status))
    return lines


def markdown(rows: list[Entry]) -> str:
    """Return the table as Markdown, with the circumstances of the checks as numbered notes."""
    notes: dict[str, int] = {}
    lines = [
        "# Claims",
        "",
        f"{count(rows) or 'No claim is registered'}. Intervals are 95%; "
        '"supported" means that the whole interval lies on the claimed side of the bound.',
        "",
        "| claim | sentence | source | kind | level | comparison | verdict | statistic | effect "
        "| n | seeds | seconds | date | run | reason |",
        "|---" * 15 + "|",
    ]
    for row in rows:
        v = row.verdict
        where = ", ".join([row.device, *(f"{k} {x}" for k, x in sorted(row.versions.items()))])
        note = str(notes.setdefault(where, len(notes) + 1)) if row.date else ""
        cells = [
            v.claim, row.sentence, row.source, row.kind, v.level, v.comparison, f"**{v.status}**",
            v.statistic, measured(v), str(v.n or ""), ", ".join(map(str, v.seeds)),
            f"{row.seconds:.1f}" if row.date else "", row.date[:10], note, _first_line(v.reason),
        ]  # fmt: skip
        lines.append(_line(cells))
    if notes:
        lines += ["", "Runs:", "", *(f"{number}. {where}" for where, number in notes.items())]
    return "\n".join(lines) + "\n"


def wording(row: Entry) -> str:
    """A row's verdict in words: an observation that is "not supported" is "not reproduced"."""
    refuted = row.kind == "observation" and row.verdict.status == "not supported"
    return "not reproduced" if refuted else row.verdict.status


def standing(rows: Sequence[Entry]) -> tuple[str, str]:
    """How a claim stands at a level, from its rows there: (verdict in words, what else to say).

    One row that is not supported decides, so does one that is, over rows that were not run; the
    second text counts the rows, or is the effect with its interval where there is only one.
    """
    words = [wording(row) for row in rows]
    if not words:
        return "", ""
    run = [word for word in words if word != "not run"]
    refuted = [word for word in run if word != "supported"]
    if len(words) == 1:
        return words[0], measured(rows[0].verdict)
    if not run:
        return "not run", ""
    if refuted:
        missing = len(words) - len(run)
        also = f", {missing} not run" if missing else ""
        return refuted[0], f"{len(refuted)} of {len(words)} rows{also}"
    return "supported", "" if len(run) == len(words) else f"{len(run)} of {len(words)} rows run"


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
        unnamed = [
            r for r in of_claim if not r.verdict.comparison and r.verdict.status != "not run"
        ]
        for comparison in [*named, *([""] if unnamed or not named else [])]:
            words = f"{sentence} ({comparison})" if comparison else sentence
            cells = [_stands(_of(of_claim, at, comparison)) for at in LEVELS]
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
    word, more = standing(rows)
    if not more:
        return word
    return f"{word} {more}" if len(rows) == 1 else f"{word} ({more})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    # Reasons quote test output, so they may hold anything that Markdown or HTML would act on.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(text.split())


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]
