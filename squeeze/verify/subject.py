"""Subjects of the checks: a trainer or a factory of trainers, a loss, a log-prob function, data.

A trainer is used from outside: its data set and collator, `compute_loss`, what it logs, `train` and
`evaluate`. A factory `make_trainer(model, data, **options)` builds it anew with other options (the
fields of its configuration), which a finished instance cannot be asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from squeeze.errors import InputError
from squeeze.training.trl_compat import unheard
from squeeze.user_code import users_code
from squeeze.verify.families import Family, Metrics, family_of
from squeeze.verify.scorer import Answer, Scores, gradient, moved, score_answers
from squeeze.verify.tiny import save_tiny, tiny_rows
from squeeze.verify.tokens import Expected, Traced, Traces, common_prefix, expect
from squeeze.verify.trace import Sequence as Seen
from squeeze.verify.trace import forwards, sequences, without_padding
from squeeze.verify.types import DoesNotApply

# Far enough from the start for a loss to show its curvature: some nats on the tiny model's answers.
MOVED = 0.02
INSTANCE_ROWS = 4  # of an instance's own data


@dataclass(frozen=True)
class Observed:
    """What a trainer makes of one batch, and what it should."""

    loss: float
    logged: Metrics
    expected_loss: float
    expected_logged: Metrics


class TrainerSubject:
    """A factory of trainers and what one of them does.

    `make(model, data, **options)` returns a transformers or TRL Trainer on `model` (loaded from
    `model_directory`; tiny and random if None) and `data` (rows; four preference pairs if None),
    with `options` passed on to its configuration.
    """

    moved_by = MOVED  # where traces are taken

    def __init__(
        self,
        make: Callable[..., Any],
        *,
        name: str,
        data: Sequence[Mapping[str, Any]] | None = None,
        model_directory: Path | None = None,
        reward_model: bool = False,
    ) -> None:
        self.name = name
        self.raw = list(data) if data is not None else tiny_rows()
        self._make, self._reward_model = make, reward_model
        self._directory = model_directory
        self._variants: dict[str, Any] = {}
        self._scores: dict[tuple[str, int], Scores] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="squeeze-verify-")

    # --- building -------------------------------------------------------------------------------

    @cached_property
    def directory(self) -> Path:
        """The model that every trainer starts from, as `save_pretrained` writes it."""
        return self._directory or save_tiny(Path(self._scratch.name) / "model")

    def fresh_model(self, **options: Any) -> Any:
        """The model as it is before training, float32."""
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

        directory, options = self.directory, {"dtype": torch.float32} | options
        if self._reward_model:
            torch.manual_seed(0)  # of the new head
            options["num_labels"] = 1
            return AutoModelForSequenceClassification.from_pretrained(directory, **options)
        return AutoModelForCausalLM.from_pretrained(directory, **options)

    def build(self, model: Any = None, **options: Any) -> Any:
        """A trainer of its own, with these options over plain ones.

        Raises `DoesNotApply` where the trainer refuses an option, `InputError` where it cannot be
        built at all.
        """
        from datasets import Dataset
        from transformers import Trainer

        data = Dataset.from_list([dict(row) for row in self.raw])
        plain = self._plain_options()
        try:
            trainer = self._make(model or self.fresh_model(), data, **plain | options)
        except (TypeError, ValueError, NotImplementedError, ImportError) as error:
            if options:
                raise DoesNotApply(f"the trainer refuses {_said(options)}: {error}") from error
            raise InputError(
                f"{self.name} cannot be built ({type(error).__name__}: {error}); it is called as "
                "make_trainer(model, data, **options), options being fields of its configuration"
            ) from error
        if not isinstance(trainer, Trainer):
            raise InputError(
                f"{self.name} returns a {type(trainer).__name__}; return a transformers or TRL "
                "Trainer"
            )
        ignored = [k for k, v in options.items() if getattr(trainer.args, k, None) != v]
        if ignored:
            raise DoesNotApply(f"the factory does not pass {ignored[0]} on to the trainer")
        return trainer

    def variant(self, **options: Any) -> Any:
        """A trainer with one setting changed, built once; it is not to be trained."""
        key = repr(sorted(options.items()))
        if key not in self._variants:
            self._variants[key] = self.build(**options)
        return self._variants[key]

    def _plain_options(self) -> dict[str, Any]:
        return {
            "output_dir": str(Path(self._scratch.name) / "trainer"),
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "gradient_checkpointing": False,
            "per_device_train_batch_size": len(self.raw),
            "per_device_eval_batch_size": len(self.raw),
            "optim": "sgd",
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "max_grad_norm": 0.0,
            "weight_decay": 0.0,
            "max_steps": 1,
            "seed": 0,
        }

    @cached_property
    def trainer(self) -> Any:
        """The trainer before it trains, its rows apart."""
        trainer = self.build()
        if not getattr(trainer.args, "packing", False):
            return trainer
        try:
            return self.build(packing=False)
        except DoesNotApply as reason:
            raise InputError(
                f"{self.name} packs its rows, which cannot be told apart then ({reason}); pass the "
                "factory's options on to the configuration, over its own"
            ) from reason

    @property
    def args(self) -> Any:
        """The trainer's arguments."""
        return self.trainer.args

    @cached_property
    def family(self) -> Family:
        """What kind of trainer it is."""
        return family_of(self.trainer)

    @property
    def tokenizer(self) -> Any:
        """The trainer's tokenizer."""
        processing = self.trainer.processing_class
        return getattr(processing, "tokenizer", processing)

    # --- its data -------------------------------------------------------------------------------

    def rows_of(self, trainer: Any) -> list[dict[str, Any]]:
        """The rows that a trainer prepared from the data, those of an instance a few."""
        return [dict(row) for row in trainer.train_dataset]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows that the trainer prepared."""
        return self.rows_of(self.trainer)

    @cached_property
    def expected(self) -> list[list[Expected]]:
        """Of each row that the trainer kept, the answers it should hold."""
        raw: Sequence[Mapping[str, Any]] = self.raw
        if len(self.rows) != len(raw):
            raw = self.rows  # some were dropped: TRL keeps the columns it was given
        return [expect(row, i, self.tokenizer) for i, row in enumerate(raw)]

    @cached_property
    def traces(self) -> Traces:
        """What the model reads of every row, and which tokens carry loss, away from the start."""
        if self.family.kinds([]) == [] and self.family.name == "trainer":
            raise DoesNotApply("what its batches hold is not known; subclass one of TRL's trainers")
        found = []
        with moved(self.trainer.model, self.moved_by):
            for row, expected in zip(self.rows, self.expected, strict=True):
                by_kind = {e.kind: e for e in expected}
                seen = self._trace([row])
                kinds = self.family.kinds([row])
                if len(seen) != len(kinds):
                    n, wanted = len(seen), len(kinds)
                    raise DoesNotApply(f"a batch of one row is {n} sequences, not {wanted}")
                for (_, kind), sequence in zip(kinds, seen, strict=True):
                    answer = by_kind.get(kind) or by_kind["completion"]
                    found.append(self._traced(answer, sequence))
        return Traces(tuple(found), len(self.raw), len(self.raw) - len(self.rows), True)

    def _traced(self, answer: Expected, seen: Seen) -> Traced:
        seen = without_padding(seen, answer.ids, self.tokenizer.pad_token_id)
        n = len(answer.ids) - len(seen.ids)
        keeps_end = getattr(self.args, "truncation_mode", "keep_start") == "keep_end"
        if keeps_end and n > 0 and answer.ids[n:] == seen.ids:
            return Traced(answer.from_token(n), seen, n)
        return Traced(answer, seen)

    def _trace(self, rows: Sequence[dict[str, Any]]) -> list[Any]:
        with forwards(self.trainer.model) as passes:
            loss, _ = self.compute(self.trainer, rows)
            if loss.requires_grad:
                parameters = [p for p in self.trainer.model.parameters() if p.requires_grad]
                torch.autograd.backward(loss, inputs=[f.hidden for f in passes] or parameters)
        return sequences(passes)

    # --- its loss -------------------------------------------------------------------------------

    def compute(
        self,
        trainer: Any,
        rows: Sequence[dict[str, Any]],
        change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        *,
        training: bool = True,
    ) -> tuple[Tensor, Metrics]:
        """The loss of a batch, with gradient, and what the trainer would log of it.

        `change` alters the collated batch. Leaves random state, mode and log as they were.
        """
        model = trainer.model
        with users_code("the trainer's data_collator"):
            batch = change(dict(trainer.data_collator([dict(row) for row in rows])))
        device = next(model.parameters()).device
        batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        was_training = model.training
        model.train(training)
        try:
            with torch.random.fork_rng(), users_code("the trainer's compute_loss"):
                take_log(trainer)
                loss = trainer.compute_loss(model, batch)
                logged = take_log(trainer)
        finally:
            model.train(was_training)
        return loss, {k.removeprefix("eval_"): v for k, v in logged.items()}

    def answers(self, rows: Sequence[int]) -> list[Answer]:
        """The sequences of a batch of these rows in its order, on the ids that the model reads."""
        traced = {(t.expected.row, kind): t for t, kind in self._traced_kinds()}
        batch = [self.rows[i] for i in rows]
        found = []
        for position, kind in self.family.kinds(batch):
            one = traced[rows[position], kind]
            start = common_prefix(one.expected.prompt_ids, one.seen.ids)
            if self.family.trains_prompts(self.args):
                start = 1  # nothing predicts a sequence's first token
            found.append(Answer(one.seen.ids, start))
        return [*found, *self.family.others(batch)]

    def _traced_kinds(self) -> Iterator[tuple[Traced, str]]:
        kinds = [kind for row in self.rows for _, kind in self.family.kinds([row])]
        yield from zip(self.traces.answers, kinds, strict=True)

    def scores(self, model: Any, rows: Sequence[int]) -> Scores:
        """Independent scores of the answers of a batch of these rows under a model."""
        return score_answers(model, self.answers(rows))

    def known_scores(self, state: str, rows: Sequence[int]) -> Scores:
        """The same, without gradient, under the policy before training ("start") or "moved".

        Each row is scored once: it is the batches that differ.
        """
        for row in rows:
            if (state, row) not in self._scores:
                with torch.no_grad():
                    self._scores[state, row] = self._score_row(state, row)
        parts = [self._scores[state, row] for row in rows]
        n_kinds = len(self.family.kinds([self.rows[rows[0]]])) if rows else 0
        first = [sum(len(p.values) for p in parts[:i]) for i in range(len(parts))]
        order = [first[i] + k for k in range(n_kinds) for i in range(len(rows))]  # kind by kind
        order += [first[i] + k for i, p in enumerate(parts) for k in range(n_kinds, len(p.values))]
        return Scores.join(parts).take(order)

    def _score_row(self, state: str, row: int) -> Scores:
        model = self.trainer.model
        with moved(model, MOVED) if state == "moved" else nullcontext():
            return self.scores(model, [row])

    def reference(self, rows: Sequence[int]) -> Scores | None:
        """The policy before training, which the reference is; None without a reference."""
        return self.known_scores("start", rows) if self.family.has_reference else None

    def closed_form(self, rows: Sequence[int]) -> float:
        """The declared loss at policy = reference."""
        policy = self.known_scores("start", rows)
        batch = [self.rows[i] for i in rows]
        return self.family.loss(policy, self.reference(rows), self.args, batch).item()

    def expected_gradient(self, rows: Sequence[int], args: Any) -> Tensor:
        """The gradient of the declared loss at policy = reference, flat, from the scorer alone."""
        policy = self.scores(self.trainer.model, rows)
        batch = [self.rows[i] for i in rows]
        loss = self.family.loss(policy, self.reference(rows), args, batch)
        return gradient(loss, self.trainer.model)

    @cached_property
    def all_rows(self) -> list[int]:
        """The numbers of all rows, a full batch."""
        return list(range(len(self.rows)))

    def observe(self, rows: Sequence[int]) -> Observed:
        """A batch's loss and metrics away from the start, and what they should be."""
        batch = [self.rows[i] for i in rows]
        reference = self.reference(rows)
        with moved(self.trainer.model, MOVED), torch.no_grad():
            loss, logged = self.compute(self.trainer, batch)
        policy = self.known_scores("moved", rows)
        expected = self.family.loss(policy, reference, self.args, batch)
        should = self.family.logged(policy, reference, self.args, batch)
        return Observed(loss.item(), logged, expected.item(), should)

    @cached_property
    def observed(self) -> list[Observed]:
        """Every row as a batch of its own."""
        return [self.observe([i]) for i in self.all_rows]


def _said(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def take_log(trainer: Any) -> Metrics:
    """What the trainer gathered for its next line, which it then forgets; nobody else sees it."""
    with unheard(trainer):
        # by this key some of TRL's trainers tell a line of training from one of evaluation
        trainer.log({"loss" if trainer.model.training else "eval_loss": 0.0})
    line = trainer.state.log_history.pop()
    return {k: v for k, v in line.items() if isinstance(v, float | int) and k != "step"}


class InstanceSubject(TrainerSubject):
    """A finished trainer before it trains; what needs another one does not apply.

    Raises `InputError` for weights in 16 bits, which know no log-prob to 1e-3 nats.
    """

    def __init__(
        self,
        trainer: Any,
        n_rows: int = INSTANCE_ROWS,
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        weights = next(trainer.model.parameters())
        if weights.dtype in (torch.bfloat16, torch.float16):
            raise InputError(
                f"the trainer's weights are {str(weights.dtype).split('.')[1]}, in which no "
                "log-prob is known to 1e-3 nats; load the model with dtype=torch.float32"
            )
        data = trainer.train_dataset if rows is None else rows
        if not hasattr(data, "__len__"):
            raise InputError("the trainer's data are streamed; give it a list of rows to verify")
        self._rows = [dict(data[i]) for i in range(min(n_rows, len(data)))]
        super().__init__(lambda *_, **__: trainer, name=type(trainer).__name__, data=self._rows)
        self.trainer = trainer

    def build(self, model: Any = None, **options: Any) -> Any:
        """Always `DoesNotApply`."""
        raise DoesNotApply("a finished trainer cannot be built anew; give a factory")

    def rows_of(self, trainer: Any) -> list[dict[str, Any]]:
        """The first of its rows."""
        return self._rows


@contextmanager
def adapter(subject: TrainerSubject) -> Iterator[Any]:
    """A fresh model with a LoRA adapter on its linear layers, dropout in it."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        yield get_peft_model(subject.fresh_model(), config)
