"""The main job: train every arm through TRL, probing; judge; report. Resumable at every probe."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from squeeze.claims.finetuning import judge_run
from squeeze.claims.model import Verdict
from squeeze.data.encoding import EncodedItem, apply_template, encode_item
from squeeze.data.examples import PreferenceExample
from squeeze.data.families import build_probe_set
from squeeze.data.loading import data_sha256, load_examples, split
from squeeze.errors import InputError
from squeeze.files import read_json, write_json
from squeeze.models import load_model, load_tokenizer, model_sha256
from squeeze.scoring import ScoredResponse, score_responses
from squeeze.training.callback import ProbeCallback, StepCallback
from squeeze.training.directory import RunDirectory
from squeeze.training.phases import PhasePlace, make_trainer, merge_adapter, quiet, train_phase
from squeeze.training.progress import RunProgress, probe_line
from squeeze.training.provenance import environment, fast_dtype, peak_memory_mb
from squeeze.training.recipes import Arm, Phase, RunConfig
from squeeze.training.samples import chosen_tokens, generate, token_changes
from squeeze.trajectory import ProbePoint, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPLIT_RULE = (
    "a third is held out, fixed by the id (embedded data) or the prompt (files) alone; the seed "
    "orders each part"
)
SHOWN_EXAMPLES = 4
MARGIN_OF_PRECISION = 4  # items scored twice to state what bfloat16 costs


class Run:
    """One run of the main job in one directory. `execute` does everything."""

    def __init__(self, config: RunConfig, directory: RunDirectory, console: Console) -> None:
        self.config = config
        self.directory = directory
        self.console = console
        self.state: dict[str, Any] = {}
        self.trajectory = Trajectory.empty()

    # --- set-up ---------------------------------------------------------------------------------

    def prepare(self, known: dict[str, Any]) -> None:
        """Read data and tokenizer, encode the probe set: everything that bad input can stop."""
        config = self.config
        self.examples = load_examples(
            config.data, None if config.data_format == "auto" else config.data_format
        )
        self.train, self.held_out = split(
            self.examples, config.pairs, config.held_out, seed=config.seed
        )
        self.tokenizer = load_tokenizer(config.model)
        apply_template(self.tokenizer, config.template)
        probe = build_probe_set(self.train, self.held_out, config.seed, config.probe_train)
        self.items = [encode_item(self.tokenizer, i, config.max_length) for i in probe.items]
        self._encode_unprobed()
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
            encode_item(self.tokenizer, item, self.config.max_length)

    def load(self) -> None:
        """Load the model, settle the numeric type, and describe both in `run.json`."""
        with self._timed("load"):
            self.base = load_model(self.config.model)
            self.base.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
        limit = getattr(self.base.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and self.config.max_length > limit:
            raise InputError(
                f"--max-length {self.config.max_length} is more than the {limit} tokens that "
                f"{self.config.model} can read"
            )
        chosen = self.state.get("scoring", {}).get("dtype", self.config.dtype)
        dtype = fast_dtype(self.base.device) if chosen == "auto" else getattr(torch, chosen)
        self.dtype: torch.dtype = dtype
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
                "split_rule": SPLIT_RULE,
            },
            "scoring": {"dtype": str(dtype).removeprefix("torch.")},
            "not_run": [],
            **environment(),
        }

    # --- probing --------------------------------------------------------------------------------

    def _record(self, point: ProbePoint, responses: list[ScoredResponse], note: str | None) -> None:
        """Add a probe to the trajectory, on disk before anything else goes on."""
        scores = [response.summary() for response in responses]
        if note:
            path = self.directory.notes(point.arm, note)
            write_json(path, chosen_tokens(responses, self.tokenizer))
        self.trajectory = self.trajectory.append(point, scores)
        self.trajectory.write(self.directory.trajectory_file)
        self.progress.line(probe_line(self.trajectory, point.arm, point.probe))
        self.progress.advance(self._probe_cost)

    def _probe_base(self) -> None:
        """Score the untrained model once; it is where every arm starts."""
        arms = [arm.name for arm in self.config.phase_arms()]
        if set(arms) <= set(self.trajectory.arms()):
            return
        self.progress.describe("probing the untrained model")
        with self._timed("probe"):
            responses = list(score_responses(self.base, self.items, dtype=self.dtype))
            if self.dtype != torch.float32:
                self.state["scoring"]["error_nats"] = self._scoring_error(responses)
        for name in arms:
            if name not in self.trajectory.arms():
                self._record(ProbePoint(name, "base", 0, 0.0, 0), responses, "start")

    def _scoring_error(self, responses: list[ScoredResponse]) -> dict[str, float]:
        """What the fast numeric type costs, against float32 on a few items: nats per response."""
        exact = score_responses(self.base, self.items[:MARGIN_OF_PRECISION])
        errors = [
            abs(a.summary().logp - b.summary().logp) for a, b in zip(exact, responses, strict=False)
        ]
        return {"mean": sum(errors) / len(errors), "max": max(errors), "n": len(errors)}

    # --- training -------------------------------------------------------------------------------

    def _train_arm(self, arm: Arm) -> None:
        """Run an arm's phases from a fresh copy of the pretrained model, skipping finished ones."""
        self._generate(arm, "base", 0, self.base)
        if self.directory.notes(arm.name, f"generations-{arm.phases[-1].kind}").exists():
            return
        model = copy.deepcopy(self.base)
        for index, phase in enumerate(arm.phases):
            place = self.directory.phase(arm.name, index, phase.kind)
            if not place.adapter.exists():
                self._train_phase(arm, phase, place, model)
                model = self._fresh_merge(arm, index)
            else:
                model = merge_adapter(model, place)
            self._generate(arm, phase.kind, phase.epochs, model)
            self._write_state()

    def _fresh_merge(self, arm: Arm, index: int) -> PreTrainedModel:
        """The pretrained model with the adapters up to `index` merged, without TRL's patches."""
        model = copy.deepcopy(self.base)
        for earlier, phase in enumerate(arm.phases[: index + 1]):
            place = self.directory.phase(arm.name, earlier, phase.kind)
            model = merge_adapter(model, place)
        return model

    def _train_phase(
        self, arm: Arm, phase: Phase, place: PhasePlace, model: PreTrainedModel
    ) -> None:
        done = [p for p in self.trajectory.points(arm.name) if p.phase == phase.kind]
        first = max(p.probe for p in self.trajectory.points(arm.name) if p.phase != phase.kind) + 1
        note = "end" if phase.kind == "dpo" else "start"
        clock = time.perf_counter()

        def record(step: int, epoch: float, responses: list[ScoredResponse]) -> None:
            probe = first + len(
                [p for p in self.trajectory.points(arm.name) if p.phase == phase.kind]
            )
            self._record(ProbePoint(arm.name, phase.kind, step, epoch, probe), responses, note)

        def wanted(epoch: float) -> bool:
            return phase.kind == "dpo" or epoch >= phase.epochs

        probe = ProbeCallback(self.items, record, wanted, self.dtype)
        steps = StepCallback(lambda: self.progress.advance(_step_cost(phase)))
        self.progress.describe(f"{arm.name}: {phase.kind}")
        trainer = make_trainer(
            model,
            self.tokenizer,
            self.train,
            phase,
            self.config,
            place,
            [probe, steps],
            bf16=self.dtype == torch.bfloat16,
        )
        trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        self.state["model"]["trainable_parameters"] = trainable
        self.directory.require_space(3 * 12 * trainable + 50_000_000)
        train_phase(trainer, place, max((p.step for p in done), default=None))
        self._add_seconds("probe", probe.seconds)
        self._add_seconds(f"train {arm.name}", time.perf_counter() - clock - probe.seconds)

    def _generate(self, arm: Arm, phase: str, epoch: int, model: PreTrainedModel) -> None:
        """Store sample answers of the model as it is after a phase."""
        path = self.directory.notes(arm.name, f"generations-{phase}")
        if path.exists() or not self.config.generations:
            if not path.exists():
                write_json(path, [])
            return
        shared = self.directory.work / "generations-base.json"
        if phase == "base" and shared.exists():
            texts = read_json(shared)
        else:
            self.progress.describe(f"{arm.name}: sample answers")
            n = self.config.generations
            with self._timed("generate"):
                texts = generate(model, self.tokenizer, self.train[:n] + self.held_out[:n])
            if phase == "base":
                write_json(shared, texts)
        write_json(path, [{"arm": arm.name, "phase": phase, "epoch": epoch} | t for t in texts])

    # --- the end --------------------------------------------------------------------------------

    def _write_samples(self) -> None:
        splits = {item.example: item.split for item in self.items}
        tokens, generations = [], []
        for arm in self.config.phase_arms():
            before, after = (
                read_json(self.directory.notes(arm.name, name)) for name in ("start", "end")
            )
            examples: list[PreferenceExample] = self.train + self.held_out
            tokens += token_changes(arm.name, before, after, examples, splits, SHOWN_EXAMPLES)
            for phase in ["base", *(p.kind for p in arm.phases)]:
                generations += read_json(self.directory.notes(arm.name, f"generations-{phase}"))
        value = {"schema": 1, "tokens": tokens, "generations": generations}
        write_json(self.directory.path / "samples.json", value)

    def execute(self) -> list[Verdict]:
        """Train what is missing, then judge and report. Returns the verdicts."""
        from squeeze.report import build_report

        quiet()
        self.trajectory = self.directory.trajectory()
        if self.state["status"] != "finished":
            self.load()
            self.directory.write_config(self.config)
            self._write_state()
            with RunProgress(self.console, self._total_cost()) as self.progress:
                self._probe_base()
                for arm in self.config.phase_arms():
                    self._train_arm(arm)
            self._write_samples()
            self.state["peak_memory_mb"] = peak_memory_mb()
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
        value = {"schema": 1, "verdicts": [asdict(verdict) for verdict in verdicts]}
        write_json(self.directory.path / "verdicts.json", value)

    def _write_state(self) -> None:
        self.directory.write_run(self.state)

    # --- cost -----------------------------------------------------------------------------------

    @property
    def _probe_cost(self) -> float:
        """Tokens that one probe reads."""
        return float(sum(map(_item_tokens, self.items)))

    def _total_cost(self) -> float:
        total = 0.0
        for arm in self.config.phase_arms():
            total += self._probe_cost
            for phase in arm.phases:
                rows = len(self.train) * (2 if phase.on == "chosen+rejected" else 1)
                steps = -(-rows // (phase.batch_size * phase.accumulation)) * phase.epochs
                probes = phase.epochs if phase.kind == "dpo" else 1
                total += steps * _step_cost(phase) + probes * self._probe_cost
        done = sum(len(self.trajectory.points(arm)) for arm in self.trajectory.arms())
        return max(total - done * self._probe_cost, 1.0)

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

    Raises `InputError` for anything in the configuration, the data or the directory that cannot be
    used, before anything is written.
    """
    directory = RunDirectory(out)
    console = console or Console()
    known = directory.open(config, resume=resume, force=force)
    run = Run(config, directory, console)
    run.prepare(known)
    if force:
        directory.clear()
    return run.execute()
