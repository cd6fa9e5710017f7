"""Rows of a study held against what was registered, and against the results that ship."""

from collections.abc import Iterable, Sequence

from squeeze.claims.results import shipped
from squeeze.claims.table import primary
from squeeze.claims.types import Verdict
from squeeze.study.registration import registered_rows

CONTRAST = ", less the counterfactual's"


def unregistered(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The rows whose statistic, side or role is not what was registered for their claim.

    A contrast with the counterfactual is a secondary row of a statistic that is registered.
    """
    found = []
    for verdict in verdicts:
        known = [(r["statistic"], r["side"], r["role"]) for r in registered_rows(verdict.claim)]
        sides = [(statistic, side) for statistic, side, _ in known]
        base = verdict.statistic.removesuffix(CONTRAST)
        contrast = verdict.role == "secondary" and (base, verdict.side) in sides
        given = (verdict.statistic, verdict.side, verdict.role)
        if verdict.ran and given not in known and not (base != verdict.statistic and contrast):
            found.append(verdict)
    return found


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
