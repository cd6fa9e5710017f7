"""The ledger as a table: every claim at every level, with "not run" where nothing was recorded.

Turns entries into rows and text for `claims.md`, the command line and the end of a pytest run; it
reads and writes no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from squeeze.claims.ledger import NEVER_RUN, Entry, Key
from squeeze.claims.model import Claim, Verdict

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
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    if notes:
        lines += ["", "Runs:", "", *(f"{number}. {where}" for where, number in notes.items())]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    # Reasons quote test output, so they may hold anything that Markdown or HTML would act on.
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(text.split())


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]
