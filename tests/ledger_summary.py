"""The claims of a pytest run in lines for the terminal, one a claim and level."""

from collections.abc import Sequence

from squeeze.claims.table import measured, outcome_of, primary
from squeeze.claims.types import Entry, Outcome, Verdict


def summary_lines(rows: Sequence[Entry]) -> list[tuple[str, Outcome]]:
    """(line, outcome) of each claim and level among the rows.

    The numbers are the primary row's; secondary rows are counted.
    """
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for row in rows:
        groups.setdefault((row.verdict.claim, row.verdict.level), []).append(row.verdict)
    lines: list[tuple[str, Outcome]] = []
    for (claim, level), verdicts in groups.items():
        outcome, shown = outcome_of(verdicts), primary(verdicts) or verdicts[0]
        reason = shown.reason.strip().partition("\n")[0]
        parts = [measured(shown), f"n={shown.n}" if shown.n else "", reason, _also(verdicts)]
        line = f"{claim:<6} {level:<10} {outcome:<15} " + "  ".join(p for p in parts if p)
        lines.append((line.rstrip(), outcome))
    return lines


def _also(verdicts: Sequence[Verdict]) -> str:
    """ "3 of 4 inputs; 2 of 3 secondary rows supported": the rows besides the one that is shown."""
    parts = []
    for role, name in (("primary", "rows"), ("secondary", "secondary rows")):
        found = [v for v in verdicts if v.role == role]
        if len(found) > (role == "primary"):
            parts.append(f"{sum(v.supported for v in found)} of {len(found)} {name} supported")
    return "; ".join(parts)
