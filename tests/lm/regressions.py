"""What held when a level was evaluated, and does not hold any more."""

from collections.abc import Mapping, Sequence
from typing import Any

from squeeze.claims.types import Verdict


def key(verdict: Verdict) -> str:
    """A row's name in a reference file."""
    return f"{verdict.claim} | {verdict.comparison}"


def reference(verdicts: Sequence[Verdict]) -> dict[str, dict[str, Any]]:
    """The rows of a reference file."""
    return {
        key(v): {"outcome": v.outcome, "effect": v.effect, "interval": v.interval} for v in verdicts
    }


def regressions(verdicts: Sequence[Verdict], known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Rows that were supported and are not, unless they were within rounding of the bound.

    Other processors add in another order, and training amplifies that: a row counts only if its
    interval lay a quarter of its width away from the bound.
    """
    found = []
    for verdict in verdicts:
        row = known.get(key(verdict))
        if row is None or row["outcome"] != "supported" or verdict.supported:
            continue
        low, high = row["interval"]
        bound = verdict.bound or 0.0
        if min(abs(low - bound), abs(high - bound)) > (high - low) / 4:
            found.append(f"{key(verdict)}: was {row['effect']} {row['interval']}, now {verdict}")
    return found
