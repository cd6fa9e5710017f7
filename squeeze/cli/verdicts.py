"""Verdicts as a table in the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from squeeze.claims.table import STYLES, measured
from squeeze.claims.types import Verdict


def verdict_table(verdicts: Iterable[Verdict]) -> Table:
    """One row a verdict: claim, comparison, outcome, effect with its interval, n."""
    table = Table("claim", "what was compared", "verdict", "effect [95% interval]", "n")
    for v in verdicts:
        outcome = f"[{STYLES[v.outcome]}]{v.outcome}[/]"
        table.add_row(v.claim, v.comparison, outcome, measured(v) or v.reason, str(v.n))
    return table
