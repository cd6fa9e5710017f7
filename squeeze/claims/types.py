"""Types of the claims station: how a check came out, and a row of the ledger.

No statistics and no claims live here; see `statistics` and the modules named by topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from squeeze.files import misfit

Kind = Literal["theorem", "trend", "observation"]
Level = Literal["toy", "tiny", "published", "pretrained", "gpu"]
Outcome = Literal["supported", "contradicted", "inconclusive", "premise not met", "not run"]
Role = Literal["primary", "secondary"]
Side = Literal["above", "below", "within", ""]

LEVELS: tuple[Level, ...] = get_args(Level)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
CONTRAST = ", less the counterfactual's"  # ends the statistic of a row that is one


@dataclass(frozen=True)
class Verdict:
    """How one statistic of one claim came out: a row of the claim.

    `effect` and `interval` (95%) are in the unit that `statistic` names; `n` counts what the
    statistic was taken over (inputs tried, prompts, tokens), `updates` the optimizer's steps.
    `side` is where of `bound` the claim says that the interval lies ("within": no further from it
    than evidence["tolerance"]). `role` says whether the row decides: a claim's outcome at a level
    is its primary row's (of a theorem, which has several inputs, the worst one's). `comparison`
    tells the rows apart.
    `smallest_effect` is the registered smallest effect of interest, `detectable` the smallest one
    that this design would have seen in 80% of repetitions; `seed_means` has the effect by seed.
    `exploratory` marks a check that was written or changed after its seeds were seen. `reason`
    says why the outcome is not what the interval alone would say, or why nothing was run.
    `evidence` holds JSON-serialisable numbers and short texts behind the row.
    """

    claim: str
    level: Level
    outcome: Outcome
    statistic: str = ""
    effect: float | None = None
    interval: tuple[float, float] | None = None
    bound: float | None = None
    n: int = 0
    seeds: tuple[int, ...] = ()
    comparison: str = ""
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    side: Side = ""
    role: Role = "primary"
    smallest_effect: float | None = None
    detectable: float | None = None
    seed_means: tuple[float, ...] = ()
    updates: int = 0
    data: str = ""
    model: str = ""
    exploratory: bool = False

    @property
    def supported(self) -> bool:
        """Whether the claim held in this row."""
        return self.outcome == "supported"

    @property
    def on_claimed_side(self) -> bool:
        """Whether the whole interval lies on the claimed side, whatever that says of other seeds.

        Of a row without an interval, whether it is supported.
        """
        if self.interval is None or self.bound is None or not self.side:
            return self.supported
        (low, high), bound = self.interval, self.bound
        if self.side == "within":
            room = float(self.evidence["tolerance"])
            return bound - room <= low and high <= bound + room
        return low > bound if self.side == "above" else high < bound

    @property
    def on_other_side(self) -> bool:
        """Whether the whole interval lies on the side that the claim excludes."""
        if self.interval is None or self.bound is None or not self.side:
            return self.outcome == "contradicted"
        (low, high), bound = self.interval, self.bound
        if self.side == "within":
            room = float(self.evidence["tolerance"])
            return high < bound - room or low > bound + room
        return high < bound if self.side == "above" else low > bound

    @property
    def ran(self) -> bool:
        """Whether anything was measured."""
        return self.outcome != "not run"


_VERDICT = TypeAdapter(Verdict)


def verdict_from(values: Mapping[str, Any]) -> Verdict:
    """A `Verdict` from what JSON holds of it; raises `ValueError` naming the wrong field."""
    unknown = [name for name in values if name not in Verdict.__dataclass_fields__]
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}")
    try:
        return _VERDICT.validate_python(dict(values))
    except ValidationError as error:
        raise ValueError(misfit(error).removeprefix(", at ")) from None


NEVER_RUN = "never run here"

Key = tuple[str, str, str]  # claim, level, comparison


@dataclass(frozen=True)
class Entry:
    """One row of the ledger: a verdict, the claim's own words, and the circumstances of the check.

    `seconds` is the check's wall time, `date` UTC in ISO 8601, `test` the pytest node id (or the
    command) that recorded it. A placeholder for a check that never ran has an empty `date`.
    """

    verdict: Verdict
    sentence: str = ""
    source: str = ""
    kind: str = ""
    seconds: float = 0.0
    date: str = ""
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    test: str = ""

    @property
    def key(self) -> Key:
        """What a later check of the same thing replaces."""
        return (self.verdict.claim, self.verdict.level, self.verdict.comparison)
