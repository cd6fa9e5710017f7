"""What the finetuning claims are judged on: the same arms run on one seed or several.

A check computes one number an example from each trajectory; `Runs` stacks them over seeds and turns
them into a verdict. Which number is `curves`' and the claims' own business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from squeeze.claims.curves import Array
from squeeze.claims.statistics import crossed_mean, verdict_from_interval
from squeeze.claims.types import Level, Side, Verdict
from squeeze.errors import InputError
from squeeze.trajectory import Trajectory


@dataclass(frozen=True)
class Runs:
    """Trajectories of the same arms, one a seed, and the level they were measured at."""

    trajectories: tuple[Trajectory, ...]
    level: Level
    seeds: tuple[int, ...]

    def arms(self) -> list[str]:
        """The arms that every seed has."""
        first, *others = (t.arms() for t in self.trajectories)
        return [arm for arm in first if all(arm in other for other in others)]

    def kinds(self, arm: str) -> list[str]:
        """The response kinds of an arm."""
        return self.trajectories[0].where(arm=arm).kinds()

    def values(self, of: Callable[[Trajectory], Array]) -> Array:
        """One number an example, [seeds, examples]; `InputError` if seeds differ in size."""
        rows = [of(trajectory) for trajectory in self.trajectories]
        if len({len(row) for row in rows}) > 1:
            sizes = ", ".join(f"{len(r)} (seed {s})" for s, r in zip(self.seeds, rows, strict=True))
            raise InputError(f"seeds with unequal numbers of examples cannot be pooled: {sizes}")
        return np.stack(rows)

    def row(
        self,
        claim: str,
        statistic: str,
        values: Array | Callable[[Trajectory], Array],
        side: Side,
        comparison: str,
        evidence: Mapping[str, Any] | None = None,
    ) -> Verdict:
        """Judge the mean over seeds and examples against 0; "not run" below two examples."""
        found = self.values(values) if callable(values) else values
        if found.shape[-1] < 2:
            reason = f"needs at least 2 examples, but there are {found.shape[-1]}; raise --held-out"
            return Verdict(
                claim, self.level, "not run", statistic, comparison=comparison, reason=reason
            )
        estimate = crossed_mean(found)
        return verdict_from_interval(
            claim,
            self.level,
            statistic,
            estimate,
            bound=0.0,
            side=side,
            comparison=comparison,
            seeds=self.seeds,
            evidence=evidence,
        )


def nearest_to_failing(rows: Iterable[tuple[str, Verdict]], side: Side) -> Verdict:
    """Of several rows that must all hold, the one nearest to failing; the others as evidence."""
    named = list(rows)
    run = [(name, row) for name, row in named if row.ran]
    if not run:
        return named[0][1]

    def slack(item: tuple[str, Verdict]) -> float:
        low, high = item[1].interval or (0.0, 0.0)
        return low if side == "above" else -high

    name, worst = min(run, key=slack)
    effects = {other: row.effect for other, row in named}
    evidence = dict(worst.evidence) | {"nearest to failing": name, "effects": effects}
    return replace(worst, evidence=evidence)
