"""`SqueezeCallback`: watches where a training moves its chosen and rejected answers.

It scores a probe while a transformers or TRL trainer trains, logs through that trainer, keeps a
trajectory and judges it. What is scored is `diagnosis.probe`'s business, how often
`diagnosis.pace`'s, the verdict `diagnosis.verdict`'s.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import TrainerCallback

from squeeze.data.encoding import EncodedItem
from squeeze.diagnosis.alarm import Alarm
from squeeze.diagnosis.pace import Pace
from squeeze.diagnosis.probe import Probe, given_items, trainer_items
from squeeze.diagnosis.readers.trajectories import arm_series, divergence
from squeeze.diagnosis.record import ARM, Record, headline
from squeeze.diagnosis.rollouts import FILE as ROLLOUTS_FILE
from squeeze.diagnosis.rollouts import OF_ROLLOUTS, read_rollouts, row_of
from squeeze.diagnosis.sampled import SampledAnswers, read_probe, write_probe
from squeeze.diagnosis.series import REPETITION, Finding
from squeeze.diagnosis.severity import SEVERITY, VERDICTS
from squeeze.diagnosis.verdict import Diagnosis, diagnose
from squeeze.distributed import on_main
from squeeze.errors import InputError
from squeeze.files import write_json
from squeeze.run_directory import RunRecord, now
from squeeze.sharding import is_sharded, n_parameters
from squeeze.training.probe_callback import Prober
from squeeze.training.trl_compat import (
    calling_trainer,
    log_beside,
    model_name,
    note_rollouts,
    sampled_method,
)
from squeeze.verify.cheap import cheap_checks
from squeeze.verify.report import advice

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

ALARMING = ("squeezing", *OF_ROLLOUTS, "collapse")


class SqueezeWarning(UserWarning):
    """A training's verdict is alarming.

    >>> import warnings
    >>> from squeeze import SqueezeWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", SqueezeWarning)  # to end a training by it
    """


class SqueezeCallback(TrainerCallback):
    """Score a probe at the start and every `every` steps of a training, log it, judge it.

    Arguments:
        probe: `PreferenceExample`s, a data file or embedded name, a `ProbeSet`, or `EncodedItem`s;
            None takes `examples` pairs each of the trainer's own training and evaluation data, and
            under GRPO and RLOO of the first answers that were sampled: one rewarded above its
            group's mean as chosen, one below as rejected.
        every: optimizer steps between probes; None chooses, after three steps, the shortest
            interval at which scoring takes at most the share `overhead` of the training time.
        on_squeeze: what to do when the verdict is one of `alarming` at `patience` probes in a row,
            with chosen no higher than at the first of them: nothing, "warn" (a `SqueezeWarning`,
            once), or "stop" (warn, and end the training).
        out: directory for trajectory.parquet and run.json; None is `output_dir`/squeeze.
        dtype: autocast for scoring; None uses the trainer's own (bf16, fp16 or none).
        phase: "sft" or "dpo" if the trainer's class does not tell: an SFTTrainer and a plain
            Trainer are SFT.
        best_at_turn: save the model to `out`/best whenever the chosen answers (held-out ones, if
            there are) are likelier than at any probe before: what to go back to after a turn.
        trainer: the trainer, as TRL's callbacks take it: `trainer.add_callback(SqueezeCallback(
            trainer=trainer))`. Among a trainer's `callbacks=` it is not needed.
        verify: ask the trainer the cheap checks of `squeeze verify` before the first step, and warn
            (a `SqueezeWarning`) of each that fails.

    After training, `diagnosis` holds the verdict and `overhead` the share of time that it took.
    Where the trainer's own data hold no pairs (SFT, online DPO), it says so and rests.
    `metric_for_best_model="squeeze/held_out/chosen"` and its like work with an `eval_strategy`.
    Raises `InputError` for arguments that cannot be used, and at the start of a training for a
    probe that cannot.

    >>> from datasets import Dataset
    >>> from trl import DPOConfig, DPOTrainer
    >>> from squeeze import SqueezeCallback
    >>> from squeeze.models import load
    >>> model, tokenizer = load(directory)
    >>> row = {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}
    >>> callback = SqueezeCallback(every=1, examples=2)
    >>> trainer = DPOTrainer(
    ...     model, args=DPOConfig("run", max_steps=2, report_to="none", use_cpu=True, bf16=False,
    ...                           disable_tqdm=True, gradient_checkpointing=False),
    ...     train_dataset=Dataset.from_list([row] * 4), processing_class=tokenizer,
    ...     callbacks=[callback])
    >>> _ = trainer.train()  # logs beside the trainer's own metrics
    {'squeeze/chosen': ...}
    >>> callback.diagnosis.verdict
    '...'
    """

    def __init__(
        self,
        probe: Probe | None = None,
        every: int | None = None,
        on_squeeze: str | None = None,
        out: str | Path | None = None,
        *,
        examples: int = 8,
        overhead: float = 0.1,
        alarming: Sequence[str] = ALARMING,
        patience: int = 2,
        dtype: torch.dtype | None = None,
        phase: Literal["sft", "dpo"] | None = None,
        trainer: Any = None,
        best_at_turn: bool = False,
        verify: bool = False,
    ) -> None:
        for name, count in (("every", every), ("examples", examples), ("patience", patience)):
            if count is not None and count < 1:
                raise InputError(f"SqueezeCallback: {name} must be at least 1, not {count}")
        if on_squeeze not in (None, "warn", "stop"):
            raise InputError(
                f"SqueezeCallback: on_squeeze must be None, 'warn' or 'stop', not {on_squeeze!r}"
            )
        if not 0 < overhead <= 1:
            raise InputError(f"SqueezeCallback: overhead is a share in (0, 1], not {overhead}")
        unknown = sorted(set(alarming) - set(VERDICTS))
        if unknown:
            raise InputError(
                f"SqueezeCallback: no verdict is called {unknown[0]!r}; there are "
                f"{', '.join(VERDICTS)}"
            )
        self.probe, self.every, self.on_squeeze = probe, every, on_squeeze
        self.out = None if out is None else Path(out)
        self.examples, self.share = examples, overhead
        self.alarming, self.patience = tuple(alarming), patience
        self.dtype, self.phase, self.verify = dtype, phase, verify
        self.diagnosis: Diagnosis | None = None
        self._trainer: Any = None
        self._given_trainer, self.best_at_turn = trainer, best_at_turn

    # --- events ---------------------------------------------------------------------------------

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prepare the probe, take up an earlier trajectory, and score the model as it is."""
        self._trainer = self._given_trainer or calling_trainer()
        _require_rows(self._trainer)
        is_sharded(kwargs["model"])  # refuses what splits more than weights
        self._watching, self._collecting = True, False
        self._place = self.out or Path(str(args.output_dir)) / "squeeze"
        self._method, self._samples = sampled_method(self._trainer), SampledAnswers(self.examples)
        self._rollouts: list[dict[str, float]] = []
        self._unheard: Callable[[], None] | None = None
        if self._method == "grpo":
            self._unheard = note_rollouts(self._trainer, self._samples.note)
        try:
            items = self._probe_items(kwargs["processing_class"], args, state)
        except InputError as error:
            if self.probe is not None:  # the user's; the trainer's own data may lack pairs
                raise
            self._watching, self._collecting = False, self._method == "grpo"
            if not self._collecting:
                self._say(f"squeeze watches nothing in this training: {error}", state)
            return
        self._begin(items, args, state, control, kwargs["model"])

    def _begin(
        self,
        items: list[EncodedItem],
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any,
    ) -> None:
        """Take up an earlier trajectory of this probe, or score the model as it is."""
        self._record = Record(self._place, state.is_world_process_zero)
        known = self._record.resume(0 if self._collecting else state.global_step, items)
        self._pace = Pace(self.every or (known.every if known else None), self.share)
        self._phase = self.phase or _phase(self._trainer)
        earlier = known.seconds if known else {}
        self._scoring, self._training = earlier.get("probe", 0.0), earlier.get("train", 0.0)
        self._alarm, self._warned, self._diverged = Alarm(self.patience), False, False
        self._best = float("-inf")
        self._record.about = known or _about(self._trainer, model, items)
        self._record.about.more.pop("diverged", None)  # of a training that is gone on with
        self._findings: tuple[Finding, ...] = ()
        self._prober = Prober(items, self.dtype or _autocast(args))
        dtype = str(self._prober.dtype or torch.float32).split(".")[1]
        self._record.write_about(status="running", scoring={"dtype": dtype})
        if self._method:
            self._record.write_about(method=self._method)
            if self._record.probes:
                self._rollouts = read_rollouts(self._place, state.global_step)
        if self.verify and state.global_step == 0:
            _warn_of_faults(self._trainer, speaks=state.is_world_process_zero)
        self._mark = time.perf_counter()
        if self._record.probes:
            self.diagnosis = self._judged()
            self._probe_seconds = self._scoring / self._record.probes
            self._best = self._record.best()
        else:
            Prober(items[:1], self._prober.dtype)(model)  # warms up, untimed
            self._mark = time.perf_counter()
            self._take(state, control, model)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin once the rollouts so far hold a probe, before they change the model."""
        if not self._collecting:
            return
        items = on_main(lambda: self._samples.probe(state.global_step))
        if items:
            self._begin(items, args, state, control, kwargs["model"])
            self._watching, self._collecting = True, False
            if state.is_world_process_zero:
                write_probe(self._place, items)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note what the trainer logs of the answers that it samples."""
        row = row_of(state.global_step, logs or {}) if self._method else {}
        if len(row) > 1:
            if (repetition := self._samples.repetition()) is not None:
                row[REPETITION] = repetition
            self._rollouts.append(row)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score when it is due."""
        if not self._watching:
            return
        self._tick()
        if self._diverged:
            return
        if self._pace.unsettled(state.global_step, state.max_steps):
            left = state.max_steps - state.global_step + len(self._pace.steps)
            # Here and in `_take` the main process decides: all must score and stop at once.
            self._pace.every = on_main(lambda: self._pace.settle(self._probe_seconds, left))
        if self._pace.due(state.global_step, state.max_steps):
            self._take(state, control, kwargs["model"])

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the newest means to an evaluation's metrics, where they choose the best model."""
        if not self._choosing(args) or not self._watching or self._diverged:
            return
        if self._record.last_step != state.global_step:
            self._take(state, control, kwargs["model"])
        kwargs["metrics"].update({f"eval_{k}": v for k, v in self._metrics().items()})

    def _choosing(self, args: TrainingArguments) -> bool:
        name = str(args.metric_for_best_model or "").removeprefix("eval_")
        return name.startswith("squeeze/") and self._trainer is not None

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the record and say what was found and what it cost."""
        if self._unheard is not None:
            self._unheard()
        if not self._watching:
            if self._collecting:
                why = "no prompt had answers above and below their group's mean; pass probe="
                self._say(f"squeeze watched nothing in this training: {why}", state)
            self._trainer = None
            return
        self._note_rollouts()
        self.diagnosis = self._judged()
        self._write_state("finished")
        if state.is_world_process_zero and self.diagnosis is not None:
            print(
                f"squeeze: {self.diagnosis.verdict} ({self.diagnosis.reason}); "
                f"{self._record.probes} probes took {self._scoring:.1f} s, {self.overhead:.1%} of "
                f"the training; {self._record.directory}",
                file=sys.stderr,
            )
        self._trainer = None

    @property
    def overhead(self) -> float:
        """Seconds spent on probes over seconds spent on training without them."""
        return float(self._scoring / max(self._training, 1e-9))

    # --- one probe ------------------------------------------------------------------------------

    def _probe_items(self, processing_class: Any, args: Any, state: Any) -> list[EncodedItem]:
        tokenizer = getattr(processing_class, "tokenizer", processing_class)
        if self.probe is not None:
            return given_items(self.probe, tokenizer, self.examples, None)
        if self._method and state.global_step and (kept := read_probe(self._place)):
            return kept  # of the training that is gone on with
        trainer = self._trainer
        data = trainer.train_dataset, trainer.eval_dataset
        return trainer_items(*data, tokenizer, self.examples, args)

    def _tick(self) -> None:
        """Count the time since the last event as training."""
        seconds = time.perf_counter() - self._mark
        self._pace.add_step(seconds)
        self._training += seconds
        self._mark = time.perf_counter()

    def _take(self, state: TrainerState, control: TrainerControl, model: Any) -> None:
        """Score, record, judge, log, and act on the verdict."""
        try:
            scores = [response.summary() for response in self._prober(model)]
        except InputError as error:
            if self.diagnosis is None:  # nothing was trained yet: the model came like that
                raise
            self._give_up(str(error), state, control)
            return
        self._record.add(self._phase, state.global_step, state.epoch or 0.0, scores)
        self._note_rollouts()
        self.diagnosis = self._judged()
        chosen = self._record.chosen()
        # A collapse of the rollouts is not undone by right answers that gain.
        level = 0.0 if self.diagnosis.verdict in OF_ROLLOUTS else chosen
        alarmed = self._alarm.add(self.diagnosis.verdict in self.alarming, level)
        act = on_main(lambda: alarmed and self.on_squeeze is not None)
        self._probe_seconds = time.perf_counter() - self._mark
        self._scoring += self._probe_seconds
        self._log(control)
        self._write_state("running")
        self._keep_best(state, chosen)
        if act:
            self._warn(f"{self.diagnosis.verdict}: {self.diagnosis.reason}", state, control)
        self._mark = time.perf_counter()

    def _judged(self) -> Diagnosis:
        record = self._record
        found = (record.trajectory, ARM, record.trajectory_file, self._findings, self._method)
        return diagnose(arm_series(*found))

    def _note_rollouts(self) -> None:
        """What was logged of the rollouts goes beside the scores, where it is judged with them."""
        if self._rollouts and self._record.writes:
            write_json(self._place / ROLLOUTS_FILE, self._rollouts)

    def _keep_best(self, state: TrainerState, chosen: float) -> None:
        """Save the model where chosen is likelier than ever; the untrained one the user has."""
        better = on_main(lambda: chosen > self._best)
        self._best = max(self._best, chosen)
        if not (self.best_at_turn and better):
            return
        place = self._record.directory / "best"
        if state.global_step:
            self._trainer.save_model(str(place))
        self._record.write_about(
            best={
                "step": state.global_step,
                "chosen": round(chosen, 4),
                "model": place.name if state.global_step else "the untrained model",
            }
        )

    def _log(self, control: TrainerControl) -> None:
        """Log the newest means through the trainer, so that whoever watches it sees them."""
        log_beside(self._trainer, self._metrics(), control)

    def _metrics(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for i, (split, means) in enumerate(self._record.means().items()):
            prefix = "squeeze/" if i == 0 else f"squeeze/{split}/"
            metrics |= {prefix + name: value for name, value in means.items()}
        assert self.diagnosis is not None
        metrics["squeeze/severity"] = SEVERITY[self.diagnosis.verdict]
        metrics["squeeze/overhead"] = self.overhead if self._training else 0.0
        return metrics

    def _write_state(self, status: str) -> None:
        assert self.diagnosis is not None
        self._record.write_about(
            status=status,
            every=self._pace.every,
            seconds={"probe": round(self._scoring, 3), "train": round(self._training, 3)},
            overhead={"seconds": round(self._scoring, 3), "share": round(self.overhead, 4)},
            updated=now(),
            **headline(self.diagnosis),
        )

    def _give_up(self, why: str, state: TrainerState, control: TrainerControl) -> None:
        """The model gives no finite log-probs any more: what can be watched ends here."""
        self._diverged = True
        self._findings = (divergence(state.global_step, why),)
        self.diagnosis = self._judged()
        self._warn(f"watching ends: {why}", state, control)
        self._record.write_about(diverged={"step": state.global_step, "why": why})
        self._write_state("running")
        self._record.write_about(not_run=[{"what": "Later probes", "why": why}])

    def _warn(self, what: str, state: TrainerState, control: TrainerControl) -> None:
        """Warn, once a training, and stop it if that is wanted."""
        stops = self.on_squeeze == "stop"
        if not self._warned:
            self._say(
                f"squeeze, step {state.global_step}: {what}; "
                + ("the training is stopped" if stops else "the training goes on")
                + f"; see squeeze diagnose {self._record.directory}",
                state,
            )
        self._warned = True
        if stops:
            control.should_training_stop = True

    def _say(self, what: str, state: TrainerState) -> None:
        if state.is_world_process_zero:
            warnings.warn(what, SqueezeWarning, stacklevel=2)


_CONFIG = (
    *("learning_rate", "lr_scheduler_type", "beta", "loss_type", "num_train_epochs", "max_steps"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "seed"),
)


def _warn_of_faults(trainer: Any, *, speaks: bool) -> None:
    """Say what is wrong with the trainer itself, and the way out; the training goes on."""
    try:
        lines = advice(cheap_checks(trainer))
    except InputError as error:
        lines = [f"not asked: {error}"]
    for line in lines if speaks else ():
        warnings.warn(f"squeeze verify: {line}", SqueezeWarning, stacklevel=2)


def _require_rows(trainer: Any) -> None:
    """Raise `InputError` where processes share each row, of which scoring gives each its own."""
    plan = getattr(trainer.accelerator, "parallelism_config", None)
    for name, words in (("cp", "context"), ("sp", "sequence")):
        if getattr(plan, f"{name}_enabled", False):
            raise InputError(
                f"{words} parallelism cuts every row over processes, while a probe gives each its "
                "own rows; score the checkpoints with squeeze diagnose --base MODEL --tuned "
                "CHECKPOINT instead"
            )


def _phase(trainer: Any) -> Literal["sft", "dpo"]:
    names = [cls.__name__ for cls in type(trainer).__mro__]
    plain = names[0] in ("Trainer", "Seq2SeqTrainer")
    return "sft" if plain or "SFTTrainer" in names else "dpo"


def _autocast(args: Any) -> torch.dtype | None:
    if args.bf16:
        return torch.bfloat16
    return torch.float16 if args.fp16 else None


def _about(trainer: Any, model: Any, items: Sequence[EncodedItem]) -> RunRecord:
    """What run.json says of the run from its start on."""
    args = trainer.args
    config = {name: getattr(args, name) for name in _CONFIG if hasattr(args, name)}
    weights = list(model.parameters())
    data = trainer.train_dataset
    record = RunRecord(
        Path(args.output_dir).name or "run",
        {"trainer": type(trainer).__name__} | config,
        arms=[{"name": ARM, "title": type(trainer).__name__}],
        model={
            "name": model_name(model),
            "parameters": n_parameters(weights),
            "trainable_parameters": n_parameters(p for p in weights if p.requires_grad),
        },
        data={
            "name": "the trainer's data",
            "n_train": len(data) if hasattr(data, "__len__") else None,
            "n_probe": len(items),
        },
    )
    record.update_environment()
    return record
