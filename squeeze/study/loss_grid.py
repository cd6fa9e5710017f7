"""The grid of `squeeze compare-losses`: every loss on every model and seed, from one SFT each.

A loss is named as `training.arms` names it, hyper-parameters included: "ipo", "ipo:tau=0.5".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from squeeze.claims.runs import Runs
from squeeze.claims.variants import arm_of
from squeeze.errors import InputError
from squeeze.study.engine import Engine, train_missing
from squeeze.study.seed_run import Experiment
from squeeze.training.config import RunConfig
from squeeze.trajectory import Trajectory


@dataclass(frozen=True)
class Planned:
    """One training of the grid; `state` is what OUT/work holds of it."""

    model: str
    seed: int
    loss: str
    state: Literal["trained", "begun", "to do"]

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of a table."""
        return self.model, str(self.seed), self.loss, self.state


@dataclass(frozen=True)
class Compared:
    """One model's runs, the roles their losses, and why each other loss was not trained."""

    runs: Runs
    missing: dict[str, str]


@dataclass(frozen=True)
class LossGrid:
    """`losses` × the configurations of each model (one a seed), in the directory `work`."""

    losses: Sequence[str]
    configs: Mapping[str, Sequence[RunConfig]]
    work: Path

    def __len__(self) -> int:
        return len(self.losses) * sum(len(configs) for configs in self.configs.values())

    def plan(self) -> Iterator[Planned]:
        """Every training and its state; reads the models' tokenizers and trains nothing."""
        for model, configs in self.configs.items():
            for config in configs:
                experiment = Experiment(config, cache=self.work)
                for loss in self.losses:
                    place = experiment.arms.place(config.arm(arm_of(loss)).phases)
                    if experiment.is_trained(arm_of(loss)):
                        yield Planned(model, config.seed, loss, "trained")
                    else:
                        begun = place.directory.exists()
                        yield Planned(model, config.seed, loss, "begun" if begun else "to do")

    def train(
        self, model: str, next_one: Callable[[str], object], engine: Engine | None = None
    ) -> Compared:
        """Train what is missing of a model's part; `next_one(what)` is called before each training.

        `engine` trains all of it first, elsewhere and at once. A loss that cannot be trained on a
        seed is left out with its reason. Raises `InputError` when none can.
        """
        missing: dict[str, str] = {}
        new = partial(Experiment, cache=self.work, locks=engine is None)
        if engine is not None:
            arms = {arm_of(loss): loss for loss in self.losses}
            failed = train_missing(engine, map(new, self.configs[model]), tuple(arms))
            missing = {arms[arm]: why for arm, why in failed.items()}
        found: list[dict[str, pd.DataFrame]] = []
        for config in self.configs[model]:
            experiment = new(config)  # holds its model: one at a time
            found.append({})
            for loss in self.losses:
                next_one(f"{loss}, {model}, seed {config.seed}")
                try:
                    if loss not in missing:
                        found[-1][loss] = experiment.trajectory(arm_of(loss)).frame
                except InputError as error:
                    missing[loss] = str(error)
        trained = [loss for loss in self.losses if loss not in missing]
        if not trained:
            raise InputError(f"no loss could be trained: {missing}")
        frames = [pd.concat([f[n] for n in trained], ignore_index=True) for f in found]
        seeds = tuple(config.seed for config in self.configs[model])
        roles = {loss: arm_of(loss) for loss in trained}
        runs = Runs(tuple(map(Trajectory, frames)), "pretrained", seeds, roles, model=model)
        return Compared(runs, missing)
