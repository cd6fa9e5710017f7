"""Evidence of the finetuning claims: the same arms on one seed or several, each with its role.

A statistic is a function of `Runs` that gives one number a seed and prompt; `Runs.row` judges its
mean. The same function on `Runs.without_cause()` gives the counterfactual's, and the two together a
contrast. Which number is `curves`' and the claims' own business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from squeeze.claims.curves import Array, phase_values, scored
from squeeze.claims.statistics import Estimate, crossed_mean, mean, verdict_from_interval
from squeeze.claims.types import CONTRAST, Level, Role, Side, Verdict
from squeeze.errors import InputError
from squeeze.trajectory import Trajectory

SPLITS = ("train", "held_out")


@dataclass(frozen=True)
class Runs:
    """Trajectories of the same arms, one a seed, and what each arm is to the claim.

    `roles` maps a role ("dpo", "control") to its arm; a role that is not there is an arm's name
    itself. `counterfactual` maps the roles that another arm plays once the cause is removed.
    `most_peakiness` is DO-2's premise: ‖π‖² at chosen before DPO, above which nothing can rise.
    """

    trajectories: tuple[Trajectory, ...]
    level: Level
    seeds: tuple[int, ...]
    roles: Mapping[str, str] = field(default_factory=dict)
    counterfactual: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    data: str = ""
    exploratory: bool = False
    most_peakiness: float = 1.0

    def arm(self, role: str) -> str:
        """The arm that plays a role."""
        return self.roles.get(role, role)

    def arms(self) -> list[str]:
        """The arms that every seed has."""
        first, *others = (t.arms() for t in self.trajectories)
        return [arm for arm in first if all(arm in other for other in others)]

    def has(self, *roles: str) -> bool:
        """Whether every seed has the arms of these roles."""
        return {self.arm(role) for role in roles} <= set(self.arms())

    def without_cause(self) -> Runs:
        """The same runs with the counterfactual's arms in the roles that they take."""
        return replace(self, roles={**self.roles, **self.counterfactual}, counterfactual={})

    def kinds(self, role: str) -> list[str]:
        """The response kinds of a role's arm."""
        return self.trajectories[0].where(arm=self.arm(role)).kinds()

    def updates(self, role: str, phase: str = "dpo") -> int:
        """The optimizer's steps of a phase of a role's arm, of the first seed."""
        points = self.trajectories[0].points(self.arm(role))
        return max((point.step for point in points if point.phase == phase), default=0)

    def curve(
        self,
        role: str,
        kind: str,
        split: str = "train",
        metric: str = "logp",
        phase: str = "dpo",
    ) -> Array:
        """One metric of one kind over a phase of a role's arm, [seeds, prompts, times].

        A prompt without this kind is NaN.

        Raises `InputError` if seeds differ in their numbers of prompts or probes.
        """
        rows = [
            phase_values(t, self.arm(role), phase, kind, split, metric) for t in self.trajectories
        ]
        if len({row.shape for row in rows}) > 1:
            sizes = ", ".join(
                f"{r.shape[0]} × {r.shape[1]} (seed {s})"
                for s, r in zip(self.seeds, rows, strict=True)
            )
            raise InputError(
                f"seeds with unequal numbers of prompts and probes cannot be pooled: {sizes}; "
                "run them with one recipe"
            )
        return np.stack(rows)

    def margin(self, role: str) -> Array:
        """Mean of (chosen − rejected) on training prompts since DPO began, [seeds, times]."""
        gap = self.curve(role, "chosen") - self.curve(role, "rejected")
        by_seed = scored(gap).mean(axis=1)
        return np.asarray(by_seed - by_seed[:, :1])

    def crossed(self) -> bool:
        """Whether every seed scored the same prompts."""
        prompts = [frozenset(t.frame["example"].unique()) for t in self.trajectories]
        return len(set(prompts)) == 1

    def estimate(self, values: Array) -> Estimate:
        """The mean of [seeds, prompts]; where seeds have prompts of their own, over their means."""
        if len(self.seeds) == 1 or self.crossed():
            return crossed_mean(values)
        by_seed = values.mean(axis=1)
        made = mean(by_seed)
        return replace(made, n=values.size, seeds=len(by_seed), seed_means=tuple(by_seed.tolist()))

    def row(
        self,
        claim: str,
        statistic: str,
        of: Callable[[Runs], Array],
        side: Side,
        comparison: str = "",
        *,
        role: Role = "secondary",
        bound: float = 0.0,
        updates: int = 0,
        evidence: Mapping[str, Any] | None = None,
    ) -> Verdict:
        """Judge the mean of a statistic, [seeds, prompts]; "not run" below two prompts.

        Prompts that lack what it is made of (NaN) do not count: `n` says how many did.
        """
        facts: dict[str, Any] = {
            "updates": updates,
            "model": self.model,
            "data": self.data,
            "exploratory": self.exploratory,
        }
        found = scored(of(self))
        if found.shape[-1] < 2:
            reason = f"needs at least 2 prompts, but there are {found.shape[-1]}; raise --held-out"
            return Verdict(
                claim, self.level, "not run", statistic, comparison=comparison, reason=reason,
                role=role, side=side, **facts,
            )  # fmt: skip
        row = verdict_from_interval(
            claim,
            self.level,
            statistic,
            self.estimate(found),
            bound=bound,
            side=side,
            comparison=comparison,
            seeds=self.seeds,
            evidence=evidence,
            role=role,
        )
        return replace(row, **facts)

    def contrast(
        self,
        claim: str,
        statistic: str,
        of: Callable[[Runs], Array],
        side: Side,
        comparison: str = "",
        **more: Any,
    ) -> list[Verdict]:
        """The row of a statistic less the counterfactual's: none without a counterfactual.

        "Not run" where its arms were not trained.
        """
        if not self.counterfactual:
            return []
        arms = ", ".join(self.counterfactual.values())
        name = f"{comparison}, less that of {arms}"
        full = statistic + CONTRAST
        bare = self.without_cause()
        if not bare.has(*self.counterfactual):
            reason = f"the counterfactual's arm was not run ({arms})"
            return [
                Verdict(
                    claim, self.level, "not run", full, comparison=name, reason=reason,
                    role="secondary", side=side,
                )
            ]  # fmt: skip
        more = {k: v for k, v in more.items() if k not in ("role", "bound")}
        return [self.row(claim, full, lambda r: of(r) - of(bare), side, name, **more)]


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
