"""The two types of the claims station: what is claimed, and how a check of it came out.

No statistics and no claims live here; see `statistics` and the modules named by topic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["theorem", "trend", "observation"]
Level = Literal["toy", "tiny", "pretrained", "gpu"]
Status = Literal["supported", "not supported", "not run"]


@dataclass(frozen=True)
class Verdict:
    """How one check of one claim came out.

    `effect` and `interval` (95%) are in the unit that `statistic` names; `n` counts what the
    statistic was taken over (inputs tried, examples, tokens). `comparison` tells apart the several
    rows a claim may have ("against sft-dpo, equal margin, held-out"). `reason` says why a claim was
    not run. `evidence` holds JSON-serialisable numbers and short texts behind the verdict.
    """

    claim: str
    level: Level
    status: Status
    statistic: str = ""
    effect: float | None = None
    interval: tuple[float, float] | None = None
    bound: float | None = None
    n: int = 0
    seeds: tuple[int, ...] = ()
    comparison: str = ""
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def supported(self) -> bool:
        """Whether the claim held in this check."""
        return self.status == "supported"


@dataclass(frozen=True)
class Claim:
    """One falsifiable sentence, where it comes from, and the check that can refute it.

    `check` returns a `Verdict` (or several, one a comparison); given the system described by
    `counterfactual`, the very same check must return "not supported". `math` is the statement as
    a formula in plain text, `run` the command that checks it.
    """

    id: str
    sentence: str
    source: str
    kind: Kind
    levels: tuple[Level, ...]
    counterfactual: str
    check: Callable[..., Verdict | list[Verdict]]
    math: str = ""
    run: str = ""


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
