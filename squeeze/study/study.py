"""Runs what `preregistered.yaml` registers at a level, and judges every observation on it.

One `Experiment` a seed, cached: a second call only judges again. Each claim's function says which
arms it needs and hands their trajectories to its check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from squeeze.claims import (
    catalogue,
    course,
    displacement,
    dpo,
    extend,
    onpolicy,
    sft,
    tokens,
    variants,
)
from squeeze.claims.degeneration import check_copying, check_repetition
from squeeze.claims.runs import Runs
from squeeze.claims.types import Level, Verdict
from squeeze.losses import LOSSES
from squeeze.study.registration import LevelPlan, plan
from squeeze.study.seed_run import Experiment
from squeeze.study.tiny_lm import tiny_examples, tiny_lm
from squeeze.study.token_steps import pair_steps
from squeeze.training.config import make_config
from squeeze.training.inputs import Pairs

SFT_DPO = "sft-dpo"
TINY = "tinylm"  # the model that is made here, with the pairs of its world
# What another model than the registered one needs: this base model knows Chinese and no chat.
OTHERS = {"gemma3-270m": {"data": "enthusiastic_zh", "template": "unmarked"}}


class Observatory:
    """The registered experiments of a level on some seeds.

    `model`, single fields of the `recipe` and single `settings` may be replaced (quick forms, other
    models: `registered` says whether nothing was); `cache` and `changed` are `Experiment`'s.
    """

    def __init__(
        self,
        level: Level,
        seeds: Sequence[int] | None = None,
        *,
        model: str | None = None,
        recipe: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        cache: Path | None = None,
        changed: Callable[[], None] = lambda: None,
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
        self.registered = self.plan == registered and self.seeds == registered.evaluation
        self._cache, self._changed = cache, changed
        self._experiments: dict[int, Experiment] = {}

    def experiment(self, seed: int) -> Experiment:
        """The experiment of a seed."""
        if seed not in self._experiments:
            tiny = self.plan.model == TINY
            model = str(tiny_lm()) if tiny else self.plan.model
            config = make_config({**self.plan.recipe, "model": model, "seed": seed})
            pairs = Pairs(*tiny_examples(config.pairs, config.held_out, seed)) if tiny else None
            self._experiments[seed] = Experiment(
                config, pairs, cache=self._cache, changed=self._changed
            )
        return self._experiments[seed]

    def over(self, claim: str) -> list[tuple[int, Experiment]]:
        """The seeds spent on a claim, with their experiments."""
        return [(seed, self.experiment(seed)) for seed in self.plan.seeds_of(claim, self.seeds)]

    def runs(self, claim: str, *arms: str) -> Runs:
        """These arms on the seeds of a claim, trained where they are missing.

        What another process is training is left to it, and waited for last.
        """
        found = self.over(claim)
        for _, experiment in found:
            for arm in arms:
                experiment.train(arm, wait=False)
        return Runs(
            tuple(experiment.trajectory(*arms) for _, experiment in found),
            self.level,
            tuple(seed for seed, _ in found),
        )

    def losses(self) -> list[str]:
        """The losses that VA-1 compares."""
        named = self.plan.settings["losses"]
        gated = [f"gated_{loss}" for loss in ("sigmoid", "dpo_shift")]
        return [*(name for name in LOSSES if name != "sft"), *gated] if named == "all" else named

    def judge(self, claim: str) -> list[Verdict]:
        """Train what a claim needs and return its verdicts."""
        return JUDGES[claim](self)


# --- supervised finetuning ----------------------------------------------------------------------


def _long_sft(o: Observatory) -> str:
    return f"sft-{o.plan.settings['long_sft_epochs']}"


def _sf(o: Observatory, claim: str) -> list[Verdict]:
    arm = _long_sft(o)
    runs = o.runs(claim, arm)
    verdicts = [v for v in sft.judge_sft(runs, arm) if v.claim == claim]
    return [*verdicts, *_copying(o, runs)] if claim == "SF-4" else verdicts


def _copying(o: Observatory, runs: Runs) -> list[Verdict]:
    """SF-4's second half, on one sampled answer to every prompt before and after SFT."""
    before, after, own, sources = [], [], [], []
    for _, experiment in o.over("SF-4"):
        phases = experiment.config.arm(_long_sft(o)).phases
        before.append(experiment.answers(()))
        after.append(experiment.answers(phases))
        train, held_out = experiment.pairs.train, experiment.pairs.held_out
        own.append([[e.prompt[-1].content, e.chosen] for e in [*train, *held_out]])
        sources.append([e.chosen for e in train])
    return [check_copying(before, after, own, sources, level=o.level, seeds=runs.seeds)]


# --- preference training ------------------------------------------------------------------------


def _do(o: Observatory, claim: str) -> list[Verdict]:
    arms = ("dpo", SFT_DPO)
    runs = o.runs(claim, *arms)
    return [v for arm in arms for v in dpo.judge_dpo(runs, arm) if v.claim == claim]


def _dose(o: Observatory) -> list[Verdict]:
    arms = {float(d): f"dose-{d:g}" for d in o.plan.settings["doses"]}
    return dpo.check_dose(o.runs("DO-3", *arms.values()), arms)


def _peakier(o: Observatory) -> list[Verdict]:
    arms = {epochs: f"sft-{epochs}-dpo" for epochs in o.plan.settings["peakier_epochs"]}
    return dpo.check_peakier_start(o.runs("DO-4", *arms.values()), arms)


def _beta(o: Observatory) -> list[Verdict]:
    arms = {beta: f"beta-{beta:g}" for beta in o.plan.settings["betas"]}
    return course.check_beta(o.runs("CP-1", *arms.values()), arms)


def _ftx(o: Observatory) -> list[Verdict]:
    arms = {float(weight): f"ftx-{weight:g}" for weight in o.plan.settings["ftx_weights"]}
    return course.check_ftx(o.runs("CP-2", *arms.values()), arms)


def _tokens(o: Observatory) -> list[Verdict]:
    rate, count = (o.plan.settings[f"token_{name}"] for name in ("learning_rate", "steps"))
    found = o.over("DO-5")
    steps = [pair_steps(experiment, count) for _, experiment in found]
    return tokens.check_token_prediction(
        steps, rate, level=o.level, seeds=[seed for seed, _ in found]
    )


def _extend(o: Observatory) -> list[Verdict]:
    return extend.judge_extend(o.runs("EX-1", "extend-dpo", *extend.CONTROLS))


def judge_on_policy(o: Observatory, ranking: str = "") -> list[Verdict]:
    """ON-1; with ranking "-data" of its counterfactual, the same rounds on the data's pairs."""
    arm = f"on-policy-{o.plan.settings['on_policy_rounds']}{ranking}"
    runs = o.runs("ON-1", arm, SFT_DPO)
    margins = []
    for _, experiment in o.over("ON-1"):
        beta, every = experiment.config.beta, experiment.config.probe_every
        logs = {name: experiment.log(name) for name in (arm, SFT_DPO)}
        margins.append({n: onpolicy.own_margins(log, beta, every) for n, log in logs.items()})
    return onpolicy.check_on_policy(runs, arm, SFT_DPO, margins)


def _repetition(o: Observatory, weight: str = "") -> list[Verdict]:
    """RP-1 on the answers of the SFT model and of DPO far longer than the other claims train it."""
    name = f"long-{o.plan.settings['long_dpo_epochs']}{weight}"
    before, after = [], []
    for _, experiment in o.over("RP-1"):
        experiment.trajectory(name)
        phases = experiment.config.arm(name).phases
        before.append(experiment.answers(phases[:1]))
        after.append(experiment.answers(phases))
    seeds = o.plan.seeds_of("RP-1", o.seeds)
    return check_repetition(before, after, level=o.level, seeds=seeds)


def _losses(o: Observatory) -> list[Verdict]:
    losses = o.losses()
    runs = o.runs("VA-1", *map(variants.arm_of, losses))
    return [v for split in dpo.SPLITS for v in variants.check_order(runs, losses, split)]


def _ches(o: Observatory) -> list[Verdict]:
    """CH-1: scores of the pretrained model against what DPO from it did."""
    frames = []
    for seed, experiment in o.over("CH-1"):
        experiment.trajectory("dpo")
        before = experiment.scan(())
        after = experiment.scan(experiment.config.arm("dpo").phases)
        fall = before["chosen_logp"] - after["chosen_logp"]
        frames.append(before.assign(fall=fall, seed=seed))
    return displacement.check_ches(pd.concat(frames, ignore_index=True), o.level)


JUDGES: dict[str, Callable[[Observatory], list[Verdict]]] = {
    **{f"SF-{number}": partial(_sf, claim=f"SF-{number}") for number in range(1, 6)},
    **{f"DO-{number}": partial(_do, claim=f"DO-{number}") for number in (1, 2)},
    "DO-3": _dose,
    "DO-4": _peakier,
    "DO-5": _tokens,
    "EX-1": _extend,
    "ON-1": judge_on_policy,
    "RP-1": _repetition,
    "VA-1": _losses,
    "CH-1": _ches,
    "CP-1": _beta,
    "CP-2": _ftx,
}


def claims_at(level: Level) -> list[str]:
    """The claims that are observed at a level."""
    return [claim for claim in JUDGES if level in catalogue.get(claim).levels]
