"""`squeeze stories`: from scratch → SFT → DPO far too long, and what the stories become meanwhile.

Everything is kept in the run's directory, so a run that was stopped goes on where it was. Two arms
start from the SFT model: plain DPO, and its control without the gradient of the rejected stories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter
from rich.console import Console

from squeeze.claims.degeneration import Texts, check_repetition
from squeeze.claims.types import Verdict
from squeeze.data.examples import PreferenceExample
from squeeze.errors import InputError
from squeeze.files import read_as, write_json
from squeeze.generation import generate_answers
from squeeze.provenance import now, peak_memory_mb
from squeeze.report.source import VERDICTS_SCHEMA
from squeeze.run_directory import RunDirectory, RunRecord
from squeeze.study.records import read_log
from squeeze.study.stories import training
from squeeze.study.stories.generator import Story, make_stories
from squeeze.study.stories.reading import read_stories
from squeeze.study.stories.recipe import StoryRecipe
from squeeze.study.stories.report import write_report
from squeeze.text_statistics import describe
from squeeze.training.arms import Phase
from squeeze.training.phase_place import PhasePlace
from squeeze.training.probe_callback import ProbeCallback, StepCallback
from squeeze.training.progress import RunProgress
from squeeze.training.trainers import make_trainer, quiet, train_phase

if TYPE_CHECKING:
    from transformers import TrainerCallback

# Arms of preference training by name: the weight of the rejected stories' gradient.
ARMS = {"dpo": 1.0, "control": 0.0}
COMMAND = "squeeze stories"
FILES = ("texts.json", "verdicts.json", "degeneration.png", "report.md", "index.html")
REJECTED = "rejected.json"
_AGAIN = "delete it and resume: the stories are sampled again"
_SPARE = 4  # rows read for each one needed, as some may be too long


class StoryRun:
    """One run in one directory; `execute` does what is missing."""

    def __init__(
        self, recipe: StoryRecipe, directory: RunDirectory, record: RunRecord, console: Console
    ) -> None:
        self.recipe, self.console, self.record = recipe, console, record
        self.directory, self.out, self.work = directory, directory.path, directory.work

    # --- data -----------------------------------------------------------------------------------

    def prepare(self, data: Path | None) -> None:
        """Get the stories and the tokenizer; raises `InputError` when there are too few."""
        r = self.recipe
        if data is None:
            found = make_stories(r.needed, r.seed)
        else:
            found = read_stories(data, _SPARE * r.needed)
        self.tokenizer = training.make_tokenizer(found, r.vocabulary)
        usable = [s for s in found if self._length(s) <= r.max_length]
        if len(usable) < r.needed:
            raise InputError(
                f"--data {data} has {len(usable)} stories of at most {r.max_length} tokens with "
                f"their instruction among its first {len(found)}, fewer than the {r.needed} that "
                "are needed; give a larger file, or try --quick"
            )
        self.stories, self.held_out = usable[: r.stories], usable[r.stories : r.needed]
        self.record.data = {
            "name": str(data.name) if data else "generated",
            "stories": r.needed,
            "too long": len(found) - len(usable),
        }

    def _length(self, story: Story) -> int:
        return len(self.tokenizer(story.prompt + story.text)["input_ids"]) + 1

    # --- training and sampling ------------------------------------------------------------------

    def _place(self, phase: str) -> PhasePlace:
        return PhasePlace(self.work / phase)

    def _phase(
        self,
        name: str,
        make: Callable[[PhasePlace, list[TrainerCallback]], Any],
        epoch_ended: Callable[[int, Any], None] = lambda epoch, model: None,
    ) -> PhasePlace:
        """Train a phase unless it is finished; where its model lies."""
        place = self._place(name)
        if place.adapter.exists():
            return place

        def saved(step: int, epoch: float, model: Any) -> None:
            epoch_ended(round(epoch), model)
            place.mark_between(step)  # all that was asked of this checkpoint's model is there
            place.keep_newest()

        self.progress.describe(name)
        step = place.resume_step(())
        place.keep_until(step)
        with self.record.timed(name):
            trainer = make(
                place,
                [
                    ProbeCallback(lambda model: model, saved, between=place.mark_between),
                    StepCallback(lambda: self.progress.advance(cost)),
                ],
            )
            steps = len(trainer.get_train_dataloader()) * trainer.args.num_train_epochs
            cost = self._cost(name) / max(steps, 1)
            self.progress.advance(cost * (step or 0))
            train_phase(trainer, place, step)
        return place

    def _look(self, name: str, model: Any) -> None:
        """Generate for the held-out prompts, once for each sample."""
        path = self.work / "texts" / f"{name}.json"
        if not path.exists():
            texts = [self._sample(model, self.held_out, i) for i in range(self.recipe.samples)]
            write_json(path, texts)
            d = describe([text for row in texts for text in row])
            self.progress.line(
                f"{name:>14}  repeated 4-grams {d.repeated_4:6.1%}  distinct-2 {d.distinct_2:.3f}  "
                f"entropy {d.entropy:.2f} nats  length {d.length:.0f}"
            )

    def _sample(self, model: Any, stories: Sequence[Story], sample: int) -> list[str]:
        with self.record.timed("generation"):
            answers = generate_answers(
                model,
                self.tokenizer,
                [self.tokenizer(s.prompt)["input_ids"] for s in stories],
                max_new_tokens=self.recipe.max_new_tokens,
                seed=1000 * self.recipe.seed + sample,
                batch_size=64,
            )
        return [answer.text for answer in answers]

    def _rejected(self, base: PhasePlace) -> list[str]:
        """The base model's own story for every prompt that DPO trains on."""
        path = self.work / REJECTED
        if not path.exists():
            self.progress.describe("sampling rejected stories")
            # A seed of its own: no sample of the evaluation may begin like a rejected story.
            sampled = self._sample(training.load(base), self.stories[: self.recipe.pairs], 999)
            write_json(path, [text.strip() or "..." for text in sampled])
        return self._read_rejected()

    def _read_rejected(self) -> list[str]:
        shape: TypeAdapter[list[str]] = TypeAdapter(_many(self.recipe.pairs, str))
        return read_as(self.work / REJECTED, shape, _AGAIN)

    def _train(self) -> None:
        r, tokenizer, config = self.recipe, self.tokenizer, training.run_config(self.recipe)

        def trl(start: PhasePlace, phase: Phase, data: Sequence[PreferenceExample]) -> Any:
            return lambda place, callbacks: make_trainer(
                *(training.load(start), tokenizer, data, phase, config, place, callbacks),
                bf16=False,
            )

        base = self._phase(
            "base",
            lambda place, callbacks: training.pretrainer(
                training.make_model(tokenizer, r), tokenizer, self.stories, r, place, callbacks
            ),
        )
        model = training.load(base)
        self.record.model = {"parameters": sum(p.numel() for p in model.parameters())}
        self._look("base", model)
        told = training.examples(self.stories[: r.instructed])
        sft = self._phase("sft", trl(base, training.sft_phase(r.sft), told))
        self._look("sft", training.load(sft))
        pairs = training.examples(self.stories[: r.pairs], self._rejected(base))
        for arm, weight in ARMS.items():

            def look(epoch: int, model: Any, arm: str = arm) -> None:
                if epoch in r.watched:
                    self._look(f"{arm}-{epoch}", model)

            self._phase(arm, trl(sft, training.dpo_phase(r, weight), pairs), look)
            self._write_state()

    # --- the end --------------------------------------------------------------------------------

    def texts(self, name: str) -> list[list[str]]:
        """The stories generated at a look ("sft", "dpo-8", ...), [sample][prompt]."""
        shape: TypeAdapter[list[list[str]]] = TypeAdapter(
            _many(self.recipe.samples, _many(len(self.held_out), str))
        )
        return read_as(self.work / "texts" / f"{name}.json", shape, _AGAIN)

    def _judge(self) -> list[Verdict]:
        last, seeds = self.recipe.dpo.epochs, (self.recipe.seed,)
        names = {"dpo": "DPO", "control": "control without the rejected term"}
        return [
            verdict
            for arm in ARMS
            for verdict in check_repetition(
                Texts(
                    self.texts("sft"),
                    self.texts(f"{arm}-{last}"),
                    level="tiny",
                    seeds=seeds,
                    comparison=f"stories, {names[arm]}, epoch {last}",
                )
            )
        ]

    def _write_texts(self) -> None:
        """All generated stories beside their prompts and true stories, and DPO's own curves."""
        looks = ["base", "sft", *(f"{arm}-{e}" for arm in ARMS for e in self.recipe.watched)]
        value = {
            "schema": 1,
            "prompts": [asdict(story) for story in self.held_out],
            "texts": {look: self.texts(look) for look in looks},
            "log": {
                arm: _by_epoch(read_log(self._place(arm).directory / "log.json")) for arm in ARMS
            },
            "rejected": [
                {"prompt": s.prompt, "chosen": s.text, "rejected": text}
                for s, text in zip(self.stories, self._read_rejected(), strict=False)
            ],
        }
        write_json(self.out / "texts.json", value)

    def execute(self) -> list[Verdict]:
        """Train and generate what is missing, judge, report; the verdicts."""
        quiet()
        if self.record.status != "finished":
            self._write_state()
            left = [p for p in ("base", "sft", *ARMS) if not self._place(p).adapter.exists()]
            with RunProgress(self.console, sum(map(self._cost, left))) as self.progress:
                self._train()
            self.record.peak_memory_mb = peak_memory_mb()
        self._write_texts()
        verdicts = self._judge()
        rows = {"schema": VERDICTS_SCHEMA, "verdicts": [asdict(verdict) for verdict in verdicts]}
        write_json(self.out / "verdicts.json", rows)
        self.record.status, self.record.finished = "finished", self.record.finished or now()
        self._write_state()
        write_report(self.out, verdicts)
        return verdicts

    def _cost(self, phase: str) -> float:
        """About how many tokens a phase reads."""
        r = self.recipe
        if phase == "base":
            return 145.0 * r.stories * r.pretraining.epochs
        if phase == "sft":
            return 150.0 * r.instructed * r.sft.epochs
        return 300.0 * r.pairs * r.dpo.epochs

    def _write_state(self) -> None:
        self.record.write(self.directory.run_file)


def _by_epoch(log: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """TRL's log of single steps as means over each epoch."""
    epochs: dict[int, list[dict[str, float]]] = {}
    for row in log:
        if "loss" in row:
            epochs.setdefault(math.ceil(row["epoch"] - 1e-6), []).append(row)
    return [
        {key: fmean(row[key] for row in rows) for key in rows[0] if all(key in r for r in rows)}
        | {"epoch": epoch}
        for epoch, rows in epochs.items()
    ]


def _many(n: int, of: Any) -> Any:
    """The type of a list of `n`."""
    return Annotated[list[of], Field(min_length=n, max_length=n)]


def tell_stories(
    recipe: StoryRecipe,
    out: Path,
    *,
    data: Path | None = None,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> list[Verdict]:
    """Run the recipe on the data (generated, if None) into a directory; RP-1's verdicts.

    Raises `InputError` for data or a directory that cannot be used, before anything is written.
    """
    config = recipe.as_dict() | {"data": str(data.resolve()) if data else "generated"}
    directory = RunDirectory(out, COMMAND, FILES)
    known = directory.open(config, resume=resume, force=force)
    try:
        record = known or RunRecord(out.resolve().name, config, command=COMMAND)
        record.update_environment()
        run = StoryRun(recipe, directory, record, console or Console())
        run.prepare(data)
        if force:
            directory.clear()
        return run.execute()
    finally:
        directory.close()
