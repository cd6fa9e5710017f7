"""One seed of an experiment: any arms on one model and one set of pairs, cached, without a report.

What `replicate` does for the main job's directory, this does for claims, comparisons of losses and
tests: arms by name in, one trajectory out. Everything is kept in the cache under a name that
depends on all that determines it, so a killed experiment goes on and a finished one is only read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from filelock import Timeout
from pydantic import TypeAdapter

from squeeze.cache import bound, cache_directory, is_sealed, private, seal
from squeeze.data.encoding import apply_template, encode_prompt
from squeeze.data.enthusiasm import enthusiasm
from squeeze.data.examples import PreferenceExample
from squeeze.data.probe_set import CHOSEN, REJECTED, ProbeItem
from squeeze.errors import InputError
from squeeze.files import read_as, replacing, write_json
from squeeze.generation import generate_answers
from squeeze.models import load_tokenizer, model_sha256
from squeeze.scan import scan
from squeeze.scoring import fast_dtype
from squeeze.study.records import Records, read_log
from squeeze.training.arms import Arm
from squeeze.training.config import RunConfig
from squeeze.training.inputs import Pairs, encode, pretrained, probe_items
from squeeze.training.pairs import OWN, Score, own_pairs, phase_examples
from squeeze.training.runner import ArmTrainer, Phases, not_default
from squeeze.training.trainers import adapter_paths, quiet
from squeeze.trajectory import Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Raised when code changes what a trajectory of the same settings would be.
VERSION = 1
_PAIRS = TypeAdapter(list[tuple[str, str, str]])
_ANSWERS = TypeAdapter(list[str])
_AGAIN = "delete it, and it is sampled again"


MOST_STEPS = 10**8  # of a phase: more than a day at a millisecond each


def _require_possible(config: RunConfig) -> None:
    """Raise `InputError` for a phase that no machine trains in a day."""
    epochs = max(config.epochs, config.sft_epochs)
    steps = epochs * config.pairs // (config.batch_size * config.accumulation)
    if steps > MOST_STEPS:
        raise InputError(
            f"{epochs:,} epochs of {config.pairs:,} pairs are {steps:,} steps, more than a day "
            "even at a millisecond a step; give fewer --epochs or --pairs"
        )


class Experiment:
    """Arms on `config.model` with the seed, sizes and recipe of `config` (its `arms` are ignored).

    `pairs` defaults to those of `config.data`; `score` ranks sampled answers for on-policy arms.
    `cache` is a directory for all experiments, the user's cache by default; `records` is one for
    the records of all, read before anything is trained and written when an arm is finished. Without
    `locks` the caller sees to it that nobody else trains the same phase. With `recorded` alone
    nothing is trained.
    """

    def __init__(
        self,
        config: RunConfig,
        pairs: Pairs | None = None,
        score: Score = enthusiasm,
        cache: Path | None = None,
        records: Path | None = None,
        locks: bool = True,
        recorded: bool = False,
    ) -> None:
        _require_possible(config)
        self.config, self.score, self._recorded = config, score, recorded
        self.tokenizer = load_tokenizer(config.model)
        apply_template(self.tokenizer, config.template)
        self.pairs = (pairs or Pairs.of(config)).fitting(self.tokenizer, config)
        items = probe_items(self.tokenizer, self.pairs, config)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        auto = config.dtype == "auto"
        dtype = fast_dtype(device) if auto else getattr(torch, config.dtype)
        if cache is None:
            bound()
            cache = private(cache_directory() / "experiments")
        key = self._key(dtype)
        self.directory = cache / key
        self.records = None if records is None else Records(records / key)
        self.arms = ArmTrainer(
            lambda: pretrained(config),
            self.tokenizer,
            self.pairs.train,
            items,
            config,
            self.directory,
            dtype,
            self._examples,
            locks,
        )

    def _key(self, dtype: torch.dtype) -> str:
        """What determines an experiment, but for its phases, which name their own directories.

        Weights, adapters and pairs are facts by their content: where they lie does not matter.
        """
        recipe = replace(self.config, arms=(), epochs=1, sft_epochs=1, data="", adapters=None)
        if model_sha256(self.config.model) is not None:
            recipe = replace(recipe, model="")
        parts = self.pairs.train, self.pairs.held_out
        facts: dict[str, Any] = {
            "version": VERSION,
            "model": model_sha256(self.config.model) or self.config.model,
            "pairs": [[_facts(e) for e in part] for part in parts],
            "dtype": str(dtype),
            "config": not_default(recipe),
        }
        if self.config.adapters:  # a fact that others lack, so that their names stay as they are
            facts["adapters"] = [model_sha256(path) for path in adapter_paths(self.config.adapters)]
        text = json.dumps(facts, sort_keys=True, default=str)
        return f"{self.config.seed}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def _examples(self, phases: Phases) -> list[PreferenceExample]:
        """What the last of these phases trains on; the policy's own pairs are sampled once."""
        phase = phases[-1]
        if phase.on.startswith(("highest", "lowest")):
            return self.ranked(phase.on)
        if phase.on not in OWN:
            return phase_examples(list(self.pairs.train), phase, self.config.seed)
        path = self.arms.place(phases).directory / "pairs.json"
        if not is_sealed(path):
            pairs = own_pairs(
                self.arms.model(phases[:-1]),
                self.tokenizer,
                self.pairs.train,
                phase.on,
                self.score,
                seed=1000 * self.config.seed + len(phases),
                max_new_tokens=self.config.max_new_tokens,
            )
            write_json(path, [[e.id, e.chosen, e.rejected] for e in pairs])
            seal(path.parent, [path.name])
        prompts = {e.id: e.prompt for e in self.pairs.train}
        rows = read_as(path, _PAIRS, _AGAIN)
        if unknown := [i for i, *_ in rows if i not in prompts]:
            raise InputError(f"{path} has a pair {unknown[0]!r} that the data lack; {_AGAIN}")
        return [PreferenceExample(i, prompts[i], yes, no) for i, yes, no in rows]

    def ranked(self, half: str) -> list[PreferenceExample]:
        """The half of the training pairs with the "highest" or "lowest" CHES of the pretrained
        model, in the data's order; "…-permuted": each pair with another one's score."""
        which, _, permuted = half.partition("-")
        scores = self.scan(())["ches"].to_numpy()
        if permuted:
            scores = np.random.default_rng(self.config.seed).permutation(scores)
        order = np.argsort(scores, kind="stable")
        size = len(order) // 2
        chosen = order[-size:] if which == "highest" else order[:size]
        return [self.pairs.train[i] for i in sorted(chosen)]

    def train(self, name: str, wait: bool = True, length: int | None = None) -> bool:
        """Train what is missing of an arm; without `wait` return False if another run is at it.

        `length` stops after so many of its phases. Raises `InputError` where it is not recorded and
        only what is may be used.
        """
        arm = self.config.arm(name)
        if self.is_recorded(name):
            return True
        if self._recorded:
            raise InputError(
                f"arm {name!r} of seed {self.config.seed} is not recorded; train it without "
                "--recorded"
            )
        quiet()
        try:
            self.arms.train(replace(arm, phases=arm.phases[:length]), wait)
        except Timeout:
            return False
        if self.records is not None and length is None:
            self.records.keep(arm, self.arms)
        return True

    def is_recorded(self, name: str) -> bool:
        """Whether the records hold all of an arm."""
        return self.records is not None and self.records.holds(self.config.arm(name))

    def is_trained(self, name: str) -> bool:
        """Whether nothing is missing of an arm."""
        place = self.arms.place(self.config.arm(name).phases)
        return self.is_recorded(name) or place.adapter.exists()

    def trajectory(self, *names: str) -> Trajectory:
        """The trajectories of these arms, trained where they are missing, one after the other."""
        for name in names:
            self.train(name)
        arms = [self.config.arm(name) for name in names]
        rows_of = None if self.records is None else self.records.rows
        frames = [self.arms.trajectory(arm, rows_of).frame for arm in arms]
        return Trajectory(pd.concat(frames, ignore_index=True))

    def log(self, name: str) -> list[list[dict[str, float]]]:
        """TRL's log of each phase of a trained arm: `trainer.state.log_history`."""
        phases = self.config.arm(name).phases
        firsts = [phases[: i + 1] for i in range(len(phases))]
        if self.records is not None:
            return [self.records.log(first) for first in firsts]
        return [read_log(self.arms.place(first).directory / "log.json") for first in firsts]

    def _trained(self, phases: Phases) -> PreTrainedModel:
        """The model after these phases, trained again where only their probes came from elsewhere.

        Raises `InputError` where nothing may be trained.
        """
        if self.records is not None and phases and not self.arms.place(phases).adapter.exists():
            if self._recorded:
                raise InputError(
                    f"the records of seed {self.config.seed} hold probes and no weights, which "
                    "this asks; train them without --recorded"
                )
            quiet()
            self.arms.train(Arm("again", "", phases))
        return self.arms.model(phases)

    def scan(self, phases: Phases) -> pd.DataFrame:
        """`squeeze.scan`'s row of every training pair, by the model after `phases`. Cached.

        The phases must be trained (() is the pretrained model).
        """
        path = self.arms.place(phases).directory / "scan.parquet"
        if not is_sealed(path):
            pairs = [
                ProbeItem(e.id, "scan", e.prompt, {CHOSEN: e.chosen, REJECTED: e.rejected})
                for e in self.pairs.train
            ]
            items = [encode(self.tokenizer, pair, self.config) for pair in pairs]
            frame = pd.DataFrame([asdict(row) for row in scan(self._trained(phases), items)])
            with replacing(path) as temporary:
                frame.to_parquet(temporary, index=False)
            seal(path.parent, [path.name])
        return pd.read_parquet(path)

    def answers(
        self,
        phases: Phases,
        *,
        max_new_tokens: int | None = None,
    ) -> list[str]:
        """One sampled answer to every prompt, trained ones first, of the model after `phases`.

        The phases must be trained (() is the pretrained model); answers end after `max_new_tokens`,
        the configuration's by default. Cached.
        """
        longest = max_new_tokens or self.config.max_new_tokens
        path = self.arms.place(phases).directory / f"answers-0-1-{longest}.json"
        if not is_sealed(path):
            prompts = [
                encode_prompt(self.tokenizer, e.prompt)
                for e in [*self.pairs.train, *self.pairs.held_out]
            ]
            answers = generate_answers(
                self._trained(phases),
                self.tokenizer,
                prompts,
                max_new_tokens=longest,
            )
            write_json(path, [answer.text for answer in answers])
            seal(path.parent, [path.name])
        return read_as(path, _ANSWERS, _AGAIN)


def _facts(example: PreferenceExample) -> dict[str, Any]:
    """What names a pair: its fields, but for one that was added later and is not set."""
    facts = asdict(example)
    if facts["rejected_prompt"] is None:
        del facts["rejected_prompt"]
    return facts
