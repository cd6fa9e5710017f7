"""Claims that were supported in the shipped results, and are not any more."""

from collections.abc import Sequence

from squeeze.claims.results import shipped
from squeeze.claims.table import primary
from squeeze.claims.types import Verdict


def regressions(verdicts: Sequence[Verdict]) -> list[str]:
    """What a claim's rows at a level lost of its shipped result, which was away from its bound.

    Other processors add in another order, and training amplifies that: a result counts only if its
    interval lay a quarter of its width away from the bound.
    """
    row = primary(verdicts) or verdicts[0]
    known = shipped().get(row.claim, {}).get(row.level)
    if known is None or known.outcome != "supported" or row.supported:
        return []
    if known.interval is not None:
        low, high = known.interval
        bound = row.bound or 0.0
        if min(abs(low - bound), abs(high - bound)) <= (high - low) / 4:
            return []
    return [f"{row.claim}: was {known.effect} {known.interval}, now {row}"]
