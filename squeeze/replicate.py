"""The main job: train every arm through TRL, probing; judge; report. Resumable at every probe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from squeeze.claims.finetuning import judge_run
from squeeze.claims.types import Verdict
from squeeze.data.encoding import EncodedItem, apply_template, encode_prompt
from squeeze.data.examples import PreferenceExample
from squeeze.data.loading import data_sha256
from squeeze.data.probe_set import build_probe_set
from squeeze.distributed import (
    is_main,
    main_only,
    on_main,
    processes,
    repeated_rows,
    require_whole_weights,
    share_batch,
    together,
)
from squeeze.files import read_json, write_json
from squeeze.generation import generate_texts
from squeeze.models import load_tokenizer, model_sha256
from squeeze.provenance import environment, fast_dtype, peak_memory_mb
from squeeze.report.source import VERDICTS_SCHEMA
from squeeze.run_directory import RunDirectory
from squeeze.scoring import score
from squeeze.training.arms import Arm, Phase
from squeeze.training.config import RunConfig
from squeeze.training.inputs import Pairs, encode, pretrained, probe_items
from squeeze.training.progress import RunProgress, probe_line
from squeeze.training.runner import ArmTrainer, Phases, phases_key
from squeeze.training.samples import token_changes
from squeeze.training.seed_output import draw_seed_png, write_seed_json
from squeeze.training.trainers import quiet
from squeeze.trajectory import Trajectory

SPLIT_RULE = (
    "a third is held out, fixed by the id (embedded data) or the prompt (files) alone; the seed "
    "orders each part"
)
VALIDATION_RULE = (
    "val_size of the rows are held out, whole prompts, drawn by the seed; all others are trained on"
)
SHOWN_EXAMPLES = 4
SECONDS_BETWEEN_PICTURES = 60.0  # a short run would draw longer than it trains
MARGIN_OF_PRECISION = 4  # items scored twice to state what bfloat16 costs


class Run:
    """One run of the main job in one directory. `execute` does everything."""

    def __init__(self, config: RunConfig, directory: RunDirectory, console: Console) -> None:
        self.config = config
        self.directory = directory
        self.console = console
        self.state: dict[str, Any] = {}
        self.trajectory = Trajectory.empty()
        self._drawn = float("-inf")  # when, by the monotonic clock

    # --- set-up ---------------------------------------------------------------------------------

    def prepare(self, known: dict[str, Any]) -> None:
        """Read data and tokenizer, encode the probe set: everything that bad input can stop."""
        config = self.config
        given = Pairs.of(config)
        self.tokenizer = load_tokenizer(config.model)
        apply_template(self.tokenizer, config.template)
        pairs = given.fitting(self.tokenizer, config)
        if len(pairs) < len(given):
            self.console.print(
                f"left out: {len(given) - len(pairs)} of {len(given)} examples, whose prompts "
                f"alone take {config.max_length} tokens or more"
            )
        self.train, self.held_out = list(pairs.train), list(pairs.held_out)
        self.items = probe_items(self.tokenizer, pairs, config)
        self._encode_unprobed()
        self._share_batches()
        self.state = {
            "schema": 1,
            "name": self.directory.path.name,
            "status": "running",
            "config": config.as_dict(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": {},
            **known,
        }

    def _encode_unprobed(self) -> None:
        """Training pairs beyond the probe set must fit the model too."""
        rest = build_probe_set(self.train[self.config.probe_train :] or self.train[:1], [])
        for item in rest.items:
            encode(self.tokenizer, item, self.config)

    def _share_batches(self) -> None:
        """Every phase's batch must be one that the processes can share; says what they repeat."""
        for phase in self._phases():
            batch_size, _ = share_batch(phase.batch_size, phase.accumulation)
            rows = _rows(phase, len(self.train))
            repeated = repeated_rows(rows, batch_size)
            if repeated:
                self.console.print(
                    f"{phase.kind}: each epoch's last step repeats {repeated} of {rows} rows, for "
                    f"{processes()} processes of batch size {batch_size} do not divide them; the "
                    "trajectory is not exactly that of one process"
                )

    def load(self) -> None:
        """Load the model, settle the numeric type, and describe both in `run.json`."""
        together(self._load_base)
        chosen = self.state.get("scoring", {}).get("dtype", self.config.dtype)
        self.dtype: torch.dtype = on_main(
            lambda: fast_dtype(self.base.device) if chosen == "auto" else getattr(torch, chosen)
        )
        self.state |= {
            "arms": [asdict(arm) for arm in self.config.phase_arms()],
            "model": {
                "name": self.config.model,
                "sha256": model_sha256(self.config.model),
                "parameters": sum(p.numel() for p in self.base.parameters()),
            },
            "data": {
                "name": self.config.data,
                "sha256": data_sha256(self.config.data),
                "n_train": len(self.train),
                "n_held_out": len(self.held_out),
                "split_rule": SPLIT_RULE if self.config.val_size is None else VALIDATION_RULE,
            },
            "scoring": {"dtype": str(self.dtype).removeprefix("torch.")},
            "not_run": [],
            **environment(),
        }
        if processes() > 1:
            self.state["processes"] = processes()

    def _load_base(self) -> None:
        with self._timed("load"):
            self.base = pretrained(self.config)

    # --- arms -----------------------------------------------------------------------------------

    def _arm_trainer(self) -> ArmTrainer:
        trainer = ArmTrainer(
            lambda: self.base,
            self.tokenizer,
            self.train,
            self.items,
            self.config,
            self.directory.work,
            self.dtype,
        )
        trainer.started = self._started
        trainer.probed = self._probed
        trainer.stepped = lambda phase: self.progress.advance(_step_cost(phase))
        return trainer

    def _started(self, phases: Phases, trainer: Any) -> None:
        trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        self.state["model"]["trainable_parameters"] = trainable
        self.directory.require_space(3 * 12 * trainable + 50_000_000)

    def _update_trajectory(self, draw: bool = True) -> None:
        """Bring the run's trajectory on disk up to date with its arms'."""
        tables = [self.arms.trajectory(arm) for arm in self.config.phase_arms()]
        self.trajectory = Trajectory(pd.concat([t.frame for t in tables], ignore_index=True))
        self.trajectory.write(self.directory.trajectory_file)
        write_seed_json(self.directory.path, self.config.as_dict(), self.trajectory)
        if draw:
            draw_seed_png(self.directory.path, self.trajectory)
            self._drawn = time.monotonic()

    def _probed(self, phases: Phases, probe: int) -> None:
        """Take a new probe over, and show it."""
        self._update_trajectory(draw=time.monotonic() - self._drawn > SECONDS_BETWEEN_PICTURES)
        for arm in self.config.phase_arms() if not phases else [self.arm]:
            newest = self.trajectory.points(arm.name)[-1].probe
            self.progress.line(probe_line(self.trajectory, arm.name, newest))
        self.progress.advance(self._probe_cost)

    @main_only
    def _state_precision(self) -> None:
        """What a fast numeric type costs, against float32 on a few items: nats per response."""
        if self.dtype == torch.float32 or "error_nats" in self.state["scoring"]:
            return
        items = self.items[:MARGIN_OF_PRECISION]
        exact, fast = (score(self.base, items, dtype=t) for t in (None, self.dtype))
        errors = [abs(a.logp - b.logp) for a, b in zip(exact, fast, strict=True)]
        self.state["scoring"]["error_nats"] = {
            "mean": sum(errors) / len(errors),
            "max": max(errors),
            "n": len(errors),
        }

    def _train_arm(self, arm: Arm) -> None:
        """Run an arm's phases, skipping finished ones, with sample answers after each."""
        self.arm = arm
        self._generate(arm.phases[:0])
        for length in range(1, len(arm.phases) + 1):
            phases = arm.phases[:length]
            self.progress.describe(f"{arm.name}: {phases[-1].kind}")
            before = dict(self.arms.seconds)
            self.arms.train(replace(arm, phases=phases))
            for stage, name in (("probe", "probe"), ("train", f"train {arm.name}")):
                self._add_seconds(name, self.arms.seconds[stage] - before.get(stage, 0.0))
            self._generate(phases)
            self._write_state()

    def _generations(self, phases: Phases) -> Path:
        return self.arms.place(phases).directory / "generations.json"

    @main_only
    def _generate(self, phases: Phases) -> None:
        """Store sample answers of the model as it is after these phases."""
        n, path = self.config.generations, self._generations(phases)
        if path.exists():
            return
        texts: list[dict[str, str]] = []
        if n:
            self.progress.describe(f"{self.arm.name}: sample answers")
            with self._timed("generate"):
                asked = self.train[:n] + self.held_out[:n]
                answers = generate_texts(
                    self.arms.model(phases),
                    self.tokenizer,
                    [encode_prompt(self.tokenizer, example.prompt) for example in asked],
                    max_new_tokens=self.config.max_new_tokens,
                    temperature=0.0,
                )
                texts = [
                    {"example": e.id, "prompt": e.prompt[-1].content, "text": text}
                    for e, text in zip(asked, answers, strict=True)
                ]
        write_json(path, texts)

    # --- the end --------------------------------------------------------------------------------

    @main_only
    def _write_samples(self) -> None:
        splits = {item.example: item.split for item in self.items}
        examples: list[PreferenceExample] = self.train + self.held_out
        tokens, generations = [], []
        for arm in self.config.phase_arms():
            before, after = self.arms.tokens(arm.phases[:-1]), self.arms.tokens(arm.phases)
            tokens += token_changes(arm.name, before, after, examples, splits, SHOWN_EXAMPLES)
            for length in range(len(arm.phases) + 1):
                phases = arm.phases[:length]
                kind, epochs = (phases[-1].kind, phases[-1].epochs) if phases else ("base", 0)
                when = {"arm": arm.name, "phase": kind, "epoch": epochs}
                generations += [when | text for text in read_json(self._generations(phases))]
        value = {"schema": 1, "tokens": tokens, "generations": generations}
        write_json(self.directory.path / "samples.json", value)

    def execute(self) -> list[Verdict]:
        """Train what is missing, then judge and report. Returns the verdicts."""
        quiet()
        self.trajectory = self.directory.trajectory()
        if self.state["status"] != "finished":
            self.load()
            on_main(lambda: self.directory.write_config(self.config.as_dict()))
            self.arms = self._arm_trainer()
            self._state_precision()
            self._write_state()
            with RunProgress(self.console, self._total_cost()) as self.progress:
                self.progress.describe("probing the untrained model")
                self.arms.probe_base()
                for arm in self.config.phase_arms():
                    self._train_arm(arm)
            on_main(self._update_trajectory)  # a kill may have come between an arm's file and ours
            self._write_samples()
            self.state["peak_memory_mb"] = peak_memory_mb()
        return self._conclude()

    @main_only
    def _conclude(self) -> list[Verdict]:
        from squeeze.report import build_report

        with self._timed("report"):
            verdicts = judge_run(self.trajectory, level="pretrained", seeds=(self.config.seed,))
            self._write_verdicts(verdicts)
            self.state |= {"status": "finished"}
            self.state.setdefault("finished", datetime.now(UTC).isoformat(timespec="seconds"))
            self._write_state()
            build_report(self.directory.path)
        self._write_state()
        return verdicts

    def _write_verdicts(self, verdicts: list[Verdict]) -> None:
        value = {"schema": VERDICTS_SCHEMA, "verdicts": [asdict(verdict) for verdict in verdicts]}
        write_json(self.directory.path / "verdicts.json", value)

    @main_only
    def _write_state(self) -> None:
        self.directory.write_run(self.state)

    # --- cost -----------------------------------------------------------------------------------

    @property
    def _probe_cost(self) -> float:
        """Tokens that one probe reads."""
        return float(sum(map(_item_tokens, self.items)))

    def _total_cost(self) -> float:
        total = self._probe_cost
        for phase in self._phases():
            rows = _rows(phase, len(self.train))
            steps = -(-rows // (phase.batch_size * phase.accumulation)) * phase.epochs
            probes = -(-phase.epochs // phase.probe_every)
            total += steps * _step_cost(phase) + probes * self._probe_cost
        done = sum(len(self.trajectory.points(arm)) for arm in self.trajectory.arms())
        return max(total - done * self._probe_cost, 1.0)

    def _phases(self) -> list[Phase]:
        """Every phase that is trained; what several arms begin with once."""
        arms = self.config.phase_arms()
        prefixes = [a.phases[:length] for a in arms for length in range(1, len(a.phases) + 1)]
        return list({phases_key(phases): phases[-1] for phases in prefixes}.values())

    def _add_seconds(self, stage: str, seconds: float) -> None:
        known = self.state["seconds"]
        known[stage] = round(known.get(stage, 0.0) + seconds, 2)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._add_seconds(stage, time.perf_counter() - start)


def _item_tokens(item: EncodedItem) -> int:
    return len(item.prompt_ids) + sum(map(len, item.response_ids.values()))


def _rows(phase: Phase, pairs: int) -> int:
    """How many rows an epoch of a phase has."""
    return pairs * (2 if phase.on == "chosen+rejected" else 1)


def _step_cost(phase: Phase) -> float:
    """Tokens of an optimizer step, a backward pass counted as two forward ones."""
    sequences = phase.batch_size * phase.accumulation * (2 if phase.kind == "dpo" else 1)
    return sequences * 80.0 * 3


def replicate(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> list[Verdict]:
    """Run the main job into directory `out` and return its verdicts.

    Started by torchrun or `accelerate launch`, the processes share the training and the probes.

    Raises `InputError` for anything in the configuration, the data or the directory that cannot be
    used, before anything is written.
    """
    together(require_whole_weights)
    directory = RunDirectory(out)
    console = (console or Console()) if is_main() else Console(quiet=True)
    known = on_main(lambda: directory.open(config.as_dict(), resume=resume, force=force))
    run = Run(config, directory, console)
    together(lambda: run.prepare(known))
    if force:
        on_main(directory.clear)
    return run.execute()
