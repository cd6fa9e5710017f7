"""The study of a level: what `preregistered.yaml` registers, trained, and judged by its claims.

One `Experiment` a seed, cached: a second call trains nothing. `observations` says which arms each
claim needs, and judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from squeeze.claims.runs import Runs
from squeeze.claims.types import Level
from squeeze.errors import InputError
from squeeze.study.engine import Engine, train_missing
from squeeze.study.registration import LevelPlan, plan
from squeeze.study.seed_run import Experiment
from squeeze.study.tiny_lm import tiny_examples, tiny_lm
from squeeze.training.config import RunConfig, make_config
from squeeze.training.inputs import Pairs

SFT_DPO = "sft-dpo"
TINY = "tinylm"  # the model that is made here, with the pairs of its world
# What another model than the registered one needs: this base model knows Chinese and no chat.
OTHERS = {"gemma3-270m": {"data": "enthusiastic_zh", "template": "unmarked"}}


class Study:
    """The registered experiments of a level on some seeds.

    `model`, single fields of the `recipe` and single `settings` may be replaced (quick forms, other
    models: `registered` says whether nothing was); `apart` replaces fields of the recipes of claims
    that are registered in parts by themselves. `cache` is `Experiment`'s. `engine`
    trains the arms that a claim compares, elsewhere and at once. With `recorded` nothing
    is trained: claims are judged on those of their arms that the records hold of every seed.
    """

    def __init__(
        self,
        level: Level,
        seeds: Sequence[int] | None = None,
        *,
        model: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        apart: Mapping[str, Any] | None = None,
        cache: Path | None = None,
        records: Path | None = None,
        engine: Engine | None = None,
        recorded: bool = False,
    ) -> None:
        self.level: Level = level
        registered = plan(level)
        self.plan: LevelPlan = replace(
            registered,
            model=model or registered.model,
            recipe={
                **registered.recipe,
                **OTHERS.get(model or "", {}),
                **(recipe or {}),
            },
            settings={**registered.settings, **(settings or {})},
        )
        self.seeds = tuple(self.plan.evaluation if seeds is None else seeds)
        same_plan = self.plan == registered and not apart
        self.registered = same_plan and self.seeds == registered.evaluation
        self._apart = dict(apart or {})
        self._engine = engine
        self._of_each: dict[str, Any] = {
            **{"cache": cache, "records": records},
            **{"locks": engine is None, "recorded": recorded},
        }
        self.cache, self.records, self.recorded = cache, records, recorded
        self._experiments: dict[int, Experiment] = {}

    def experiment(self, seed: int) -> Experiment:
        """The experiment of a seed."""
        if seed not in self._experiments:
            tiny = self.plan.model == TINY
            config = self._config(self.plan, seed)
            sizes = config.pairs, config.held_out
            pairs = Pairs(*tiny_examples(*sizes, config.data_seed)) if tiny else None
            self._experiments[seed] = Experiment(config, pairs, **self._of_each)
        return self._experiments[seed]

    def experiment_on(self, own: LevelPlan, seed: int, pairs: Pairs) -> Experiment:
        """The experiment of a seed under a plan of its own, on these pairs; none is recorded."""
        alone = self._of_each | {"records": None, "recorded": False}
        return Experiment(self._config(own, seed), pairs, **alone)

    def _config(self, own: LevelPlan, seed: int) -> RunConfig:
        model = str(tiny_lm()) if own.model == TINY else own.model
        return make_config({**own.recipe, "model": model, "seed": seed})

    def own(self, claim: str) -> tuple[LevelPlan, tuple[int, ...]]:
        """The plan and the seeds of a claim that is registered in a part by itself.

        Where the level's evaluation seeds were asked for, the seeds are the part's.
        """
        found = plan(self.level, claim)
        fields = {name: value for name, value in self._apart.items() if name in found.recipe}
        found = replace(found, recipe={**found.recipe, **fields})
        default = self.seeds == self.plan.evaluation
        return found, found.seeds_of(claim, found.evaluation if default else self.seeds)

    def over(self, claim: str) -> list[tuple[int, Experiment]]:
        """The seeds spent on a claim, with their experiments."""
        return [(seed, self.experiment(seed)) for seed in self.plan.seeds_of(claim, self.seeds)]

    def runs(
        self,
        claim: str,
        roles: Mapping[str, str],
        counterfactual: Mapping[str, str] | None = None,
    ) -> Runs:
        """These arms (by role) on the seeds of a claim, trained where they are missing.

        `counterfactual` names the arms that take roles once the cause is removed. What another
        process is training is left to it, and waited for last.
        """
        without = counterfactual or {}
        arms = list(dict.fromkeys([*roles.values(), *without.values()]))
        found = self.over(claim)
        if self.recorded:
            arms = [arm for arm in arms if all(e.is_recorded(arm) for _, e in found)]
            if not arms:
                seeds = ", ".join(str(seed) for seed, _ in found)
                raise InputError(f"no arm of {claim} is recorded of every seed ({seeds})")
        if self._engine is not None:
            missing = train_missing(self._engine, (experiment for _, experiment in found), arms)
            if missing:
                raise InputError("; ".join(f"{arm}: {why}" for arm, why in missing.items()))
        for _, experiment in found:
            for arm in arms:
                experiment.train(arm, wait=False)
        return Runs(
            tuple(experiment.trajectory(*arms) for _, experiment in found),
            self.level,
            tuple(seed for seed, _ in found),
            roles,
            without,
            model=self.plan.model,
            data=str(self.plan.recipe.get("data", "")),
            exploratory=not self.registered,
        )
