"""The main job: set up, train every arm through TRL while probing, judge, report. Resumable.

Stations, each taking what the one before gives: `open` a directory, `set_up` (all that bad input
can stop), `Training` (arms, probes, sample answers), `conclude` (verdicts and report).
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
from pydantic import TypeAdapter
from rich.console import Console

from squeeze import interrupt
from squeeze.claims.finetuning import judge_run
from squeeze.claims.types import Verdict
from squeeze.data.loading import data_sha256
from squeeze.distributed import (
    is_main,
    main_only,
    on_each,
    on_main,
    processes,
    require_whole_weights,
)
from squeeze.errors import InputError
from squeeze.files import having, read_as, write_json
from squeeze.models import model_sha256
from squeeze.provenance import now, peak_memory_mb
from squeeze.report import build_report
from squeeze.report.closing import closing_lines
from squeeze.report.content import duration
from squeeze.report.source import VERDICTS_SCHEMA
from squeeze.run_directory import REPLICATE, RunDirectory, RunRecord
from squeeze.scoring import fast_dtype, score
from squeeze.training.arms import Arm
from squeeze.training.config import RunConfig
from squeeze.training.curves_output import draw_curves_png, write_curves_json
from squeeze.training.inputs import pretrained
from squeeze.training.progress import RunProgress, probe_line
from squeeze.training.runner import ArmTrainer, Phases
from squeeze.training.samples import answer, token_changes
from squeeze.training.setup import Setup, set_up, step_cost
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
_ANSWERS = TypeAdapter(list[Annotated[dict[str, str], having("example", "prompt", "text")]])
SECONDS_BETWEEN_PICTURES = 60.0  # a short run would draw longer than it trains
MARGIN_OF_PRECISION = 4  # items scored twice to state what bfloat16 costs
UNASKED_SECONDS = 24 * 3600.0  # what is projected to take longer wants --yes


def replicate(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    yes: bool = False,
    console: Console | None = None,
) -> list[Verdict]:
    """Run the main job into directory `out` and return its verdicts.

    Started by torchrun or `accelerate launch`, the processes share the training and the probes.

    Raises `InputError` for anything in the configuration, the data or the directory that cannot be
    used, before anything is written; and, unless `yes`, where training is projected to take more
    than a day.

    >>> from pathlib import Path
    >>> from rich.console import Console
    >>> from squeeze import run_replication
    >>> from squeeze.training.config import make_config
    >>> config = make_config({"model": directory, "pairs": 2, "held_out": 1, "probe_train": 1,
    ...     "arms": "dpo", "epochs": 1, "batch_size": 2, "generations": 0, "dtype": "float32"})
    >>> outcomes = run_replication(config, Path("run"), console=Console(quiet=True))
    >>> Path("run", "index.html").is_file()
    True
    """
    on_each(require_whole_weights)
    directory = RunDirectory(out)
    console = (console or Console()) if is_main() else Console(quiet=True)
    known = on_main(lambda: directory.open(config.as_dict(), resume=resume, force=force))
    try:
        setup = on_each(lambda: set_up(config, console.print))
        if force:
            on_main(directory.clear)
        record = known or RunRecord(out.resolve().name, config.as_dict(), command=REPLICATE)
        quiet()
        if record.status == "finished":
            trajectory = directory.trajectory()
        else:
            trajectory = Training(setup, directory, record, console, yes).execute()
        verdicts = conclude(config, directory, record, trajectory)
        if is_main():
            for line in closing_lines(config.as_dict(), trajectory, verdicts):
                console.print(line, soft_wrap=True, markup=False, highlight=False)
        return verdicts
    finally:
        directory.close()


class Training:
    """The arms of a run, trained where they are missing: probes and sample answers on disk."""

    def __init__(
        self,
        setup: Setup,
        directory: RunDirectory,
        record: RunRecord,
        console: Console,
        yes: bool,
    ) -> None:
        self.setup, self.config = setup, setup.config
        self.directory, self.record, self.console, self.yes = directory, record, console, yes
        self.trajectory = directory.trajectory()
        self._drawn = float("-inf")  # when, by the monotonic clock

    def execute(self) -> Trajectory:
        """Train and sample what is missing; the trajectory of all arms."""
        self._load()
        self._write_record()  # first of all files: what has it is a run, and can go on
        on_main(lambda: self.directory.write_config(self.config.as_dict()))
        self._state_precision()
        self._write_record()
        total = self.setup.total_cost()
        done = sum(len(self.trajectory.points(arm)) for arm in self.trajectory.arms())
        left = max(total - done * self.setup.probe_cost, 1.0)
        with RunProgress(self.console, left) as self.progress:
            self.progress.describe("probing the untrained model")
            self.arms.probe_base()
            self._require_time(left)
            for arm in self.config.phase_arms():
                self._train_arm(arm)
        on_main(self._update_trajectory)  # a kill may have come between an arm's file and ours
        self._write_samples()
        self.record.peak_memory_mb = peak_memory_mb()
        return self.trajectory

    # --- the model ------------------------------------------------------------------------------

    def _load(self) -> None:
        """Load the model, settle the numeric type, and describe both in the record."""
        config, record = self.config, self.record
        with record.timed("load"):
            self.base = on_each(lambda: pretrained(config))
        chosen = (record.scoring or {}).get("dtype", config.dtype)
        self.dtype: torch.dtype = on_main(
            lambda: fast_dtype(self.base.device) if chosen == "auto" else getattr(torch, chosen)
        )
        record.arms = [asdict(arm) for arm in config.phase_arms()]
        record.model = {
            "name": config.model,
            "sha256": model_sha256(config.model),
            "parameters": sum(p.numel() for p in self.base.parameters()),
        }
        record.data = {
            "name": config.data,
            "sha256": data_sha256(config.data),
            "n_train": len(self.setup.train),
            "n_held_out": len(self.setup.held_out),
            "split_rule": SPLIT_RULE if config.val_size is None else VALIDATION_RULE,
        }
        errors = (record.scoring or {}).get("error_nats")
        record.scoring = {"dtype": str(self.dtype).removeprefix("torch.")}
        record.scoring |= {"error_nats": errors} if errors else {}
        record.not_run = []
        record.update_environment()
        record.processes = processes() if processes() > 1 else None
        self.arms = ArmTrainer(
            lambda: self.base,
            self.setup.tokenizer,
            self.setup.train,
            self.setup.items,
            config,
            self.directory.work,
            self.dtype,
        )
        self.arms.started, self.arms.probed = self._started, self._probed
        self.arms.stepped = lambda phase: self.progress.advance(step_cost(phase))
        self.arms.say = lambda text: self.progress.line(text)

    @main_only
    def _state_precision(self) -> None:
        """What a fast numeric type costs, against float32 on a few items: nats per response."""
        scoring = self.record.scoring or {}
        if self.dtype == torch.float32 or "error_nats" in scoring:
            return
        items = self.setup.items[:MARGIN_OF_PRECISION]
        exact, fast = (score(self.base, items, dtype=t) for t in (None, self.dtype))
        errors = [abs(a.logp - b.logp) for a, b in zip(exact, fast, strict=True)]
        scoring["error_nats"] = {
            "mean": sum(errors) / len(errors),
            "max": max(errors),
            "n": len(errors),
        }

    @main_only
    def _require_time(self, cost: float) -> None:
        """Say how long it will take by the first probe's speed; more than a day must be wanted."""
        more = self.record.more
        more["probe_seconds"] = self.arms.seconds.get("probe") or more.get("probe_seconds", 0.0)
        self.record.write(self.directory.run_file)
        projected = cost / self.setup.probe_cost * more["probe_seconds"]
        self.progress.line(f"projected: about {duration(projected)} on this machine")
        if projected > UNASKED_SECONDS and not self.yes:
            raise InputError(
                f"this configuration is projected to train for {projected / 86400:,.1f} days here; "
                "pass --yes to start it all the same, or fewer --epochs or --pairs"
            )

    # --- arms -----------------------------------------------------------------------------------

    def _train_arm(self, arm: Arm) -> None:
        """Run an arm's phases, skipping finished ones, with sample answers after each."""
        self.arm = arm
        self._generate(arm.phases[:0])
        for length in range(1, len(arm.phases) + 1):
            phases = arm.phases[:length]
            self.progress.describe(f"{arm.name}: {phases[-1].kind}")
            before = dict(self.arms.seconds)
            try:
                self.arms.train(replace(arm, phases=phases))
            except interrupt.Interrupted:
                self._write_record()
                raise
            for stage, name in (("probe", "probe"), ("train", f"train {arm.name}")):
                self.record.add_seconds(name, self.arms.seconds[stage] - before.get(stage, 0.0))
            self._generate(phases)
            self._write_record()
            interrupt.stop_if_requested()

    def _started(self, phases: Phases, trainer: Any) -> None:
        trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        assert self.record.model is not None
        self.record.model["trainable_parameters"] = trainable
        self.directory.require_space(3 * 12 * trainable + 50_000_000)

    def _probed(self, phases: Phases, probe: int) -> None:
        """Take a new probe over, and show it."""
        self._update_trajectory(draw=time.monotonic() - self._drawn > SECONDS_BETWEEN_PICTURES)
        for arm in self.config.phase_arms() if not phases else [self.arm]:
            newest = self.trajectory.points(arm.name)[-1].probe
            self.progress.line(probe_line(self.trajectory, arm.name, newest))
        self.progress.advance(self.setup.probe_cost)

    def _update_trajectory(self, draw: bool = True) -> None:
        """Bring the run's trajectory on disk up to date with its arms'."""
        tables = [self.arms.trajectory(arm) for arm in self.config.phase_arms()]
        self.trajectory = Trajectory(pd.concat([t.frame for t in tables], ignore_index=True))
        self.trajectory.write(self.directory.trajectory_file)
        write_curves_json(self.directory.path, self.config.as_dict(), self.trajectory)
        if draw:
            draw_curves_png(self.directory.path, self.trajectory)
            self._drawn = time.monotonic()

    @main_only
    def _write_record(self) -> None:
        self.record.write(self.directory.run_file)

    # --- samples --------------------------------------------------------------------------------

    def _generations(self, phases: Phases) -> Path:
        return self.arms.place(phases).directory / "generations.json"

    @main_only
    def _generate(self, phases: Phases) -> None:
        """Store sample answers of the model as it is after these phases."""
        n, path, setup = self.config.generations, self._generations(phases), self.setup
        if path.exists():
            return
        texts: list[dict[str, str]] = []
        if n:
            self.progress.describe(f"{self.arm.name}: sample answers")
            asked, limit = setup.train[:n] + setup.held_out[:n], self.config.max_new_tokens
            with self.record.timed("generate"):
                texts = answer(self.arms.model(phases), setup.tokenizer, asked, limit)
        write_json(path, texts)

    @main_only
    def _write_samples(self) -> None:
        """Put the arms' samples into one file for the report."""
        splits = {item.example: item.split for item in self.setup.items}
        examples = self.setup.train + self.setup.held_out
        tokens, generations = [], []
        for arm in self.config.phase_arms():
            before, after = self.arms.tokens(arm.phases[:-1]), self.arms.tokens(arm.phases)
            tokens += token_changes(arm.name, before, after, examples, splits, SHOWN_EXAMPLES)
            for length in range(len(arm.phases) + 1):
                phases = arm.phases[:length]
                kind, epochs = (phases[-1].kind, phases[-1].epochs) if phases else ("base", 0)
                when = {"arm": arm.name, "phase": kind, "epoch": epochs}
                again = "delete it and resume: the answers are sampled again"
                texts = read_as(self._generations(phases), _ANSWERS, again)
                generations += [when | text for text in texts]
        value = {"schema": 1, "tokens": tokens, "generations": generations}
        write_json(self.directory.path / "samples.json", value)


@main_only
def conclude(
    config: RunConfig, directory: RunDirectory, record: RunRecord, trajectory: Trajectory
) -> list[Verdict]:
    """Judge a trained run and write its verdicts, its record and its report."""
    with record.timed("report"):
        verdicts = judge_run(trajectory, level="pretrained", seeds=(config.seed,))
        value = {"schema": VERDICTS_SCHEMA, "verdicts": [asdict(verdict) for verdict in verdicts]}
        write_json(directory.path / "verdicts.json", value)
        record.status, record.finished = "finished", record.finished or now()
        record.write(directory.run_file)
        build_report(directory.path)
    record.write(directory.run_file)
    return verdicts
