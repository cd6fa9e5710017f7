"""Trainers, rows and settings with exactly one fault each: the counterfactuals of the checks.

Every trainer is TRL's DPOTrainer with one thing wrong, after faults reported of such trainers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback
from trl import DPOTrainer

from squeeze.verify.tiny import tiny_rows


class Healthy(DPOTrainer):
    """TRL's trainer, its promise of `disable_dropout` kept for attention as well."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for module in self.model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0


def row_ids(ids: torch.Tensor, mask: torch.Tensor) -> tuple[int, ...]:
    return tuple(ids[mask.bool()].tolist())


# --- tokens ---------------------------------------------------------------------------------------


class Collated(Healthy):
    """What the collator makes of rows passes through `spoil`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        collate = self.data_collator
        self.data_collator = lambda rows: self.spoil(collate(rows))


class LossOnPrompts(Collated):
    def spoil(self, batch):
        return batch | {"completion_mask": batch["attention_mask"]}


class EndMaskedAsPadding(Collated):
    def spoil(self, batch):
        end = batch["input_ids"] == self.processing_class.eos_token_id
        return batch | {"completion_mask": batch["completion_mask"] * ~end}


class FirstTokenLost(Collated):
    def spoil(self, batch):
        mask = batch["completion_mask"]
        return batch | {"completion_mask": mask * torch.cat([mask[:, :1], mask[:, :-1]], dim=1)}


class Prepared(Healthy):
    """Rows pass through `spoil` once TRL has tokenized them."""

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        self.begin = processing_class.bos_token_id
        self.end = processing_class.eos_token_id
        made = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        return made.map(self.spoil)


class PromptCutShort(Prepared):
    def spoil(self, row):
        return {"prompt_ids": row["prompt_ids"][:-1]}


class SecondEndOfText(Prepared):
    def spoil(self, row):
        return {k: row[k] + [self.end] for k in ("chosen_ids", "rejected_ids")}


class ColumnsSwapped(Prepared):
    def spoil(self, row):
        return {"chosen_ids": row["rejected_ids"], "rejected_ids": row["chosen_ids"]}


class BeginAddedTwice(Prepared):
    def spoil(self, row):
        return {"prompt_ids": [self.begin] + row["prompt_ids"]}


# --- log-probs, reference, loss, metrics ----------------------------------------------------------


class Tempered(Healthy):
    """Log-probs at another temperature than the model's."""

    def _compute_loss(self, model, inputs, return_outputs):
        def policy(**kwargs):
            outputs = model(**kwargs)
            outputs.log_probs = outputs.log_probs / 1.05
            return outputs

        return super()._compute_loss(policy, inputs, return_outputs)


class StaleCache(Healthy):
    """Cached reference log-probs of 0."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.precompute_ref_logps = True

    def _compute_loss(self, model, inputs, return_outputs):
        zeros = torch.zeros(len(inputs["input_ids"]) // 2)
        stale = {"ref_chosen_logps": zeros, "ref_rejected_logps": zeros}
        return super()._compute_loss(model, inputs | stale, return_outputs)


class LossTypeIgnored(Healthy):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_types = ["sigmoid"]


class Relogged(Healthy):
    """The line that is logged passes through `spoil`."""

    def log(self, logs, start_time=None):
        super().log(logs, start_time)
        line = self.state.log_history[-1]
        prefix = "" if self.model.training else "eval_"
        known = {k.removeprefix(prefix): v for k, v in line.items()}
        if "rewards/chosen" in known:
            line.update({prefix + k: v for k, v in self.spoil(known).items()})


class RewardsWithoutReference(Relogged):
    def spoil(self, line):
        return {f"rewards/{k}": self.beta * line[f"logps/{k}"] for k in ("chosen", "rejected")}


class MarginsAdded(Relogged):
    def spoil(self, line):
        return {"rewards/margins": line["rewards/chosen"] + line["rewards/rejected"]}


class Changed(Healthy):
    """The loss passes through `spoil`."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, False, num_items_in_batch)
        return self.spoil(loss, model, inputs)


class GradientHalved(Changed):
    def spoil(self, loss, model, inputs):
        return loss.detach() + (loss - loss.detach()) / 2


class LossFloored(Changed):
    def spoil(self, loss, model, inputs):
        return loss.clamp(min=0.65)


# --- invariance -----------------------------------------------------------------------------------


class DividedByPaddedWidth(Changed):
    def spoil(self, loss, model, inputs):
        mask = inputs["attention_mask"]
        return loss * mask.sum(1).max() / mask.shape[1]


class SummedOverRows(Changed):
    def spoil(self, loss, model, inputs):
        return loss * len(inputs["input_ids"]) / 2


class MeanOverDistinctRows(Changed):
    def spoil(self, loss, model, inputs):
        rows = [
            row_ids(i, m)
            for i, m in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
        return loss * len(rows) / len(set(rows))


class OtherLossInEvaluation(Changed):
    def spoil(self, loss, model, inputs):
        return loss if model.training else 0.9 * loss


class OtherLossWithEager(Changed):
    def spoil(self, loss, model, inputs):
        return loss * (0.99 if model.config._attn_implementation == "eager" else 1.0)


class PaddingFreeForgets(Changed):
    """Really leaves padding out, which TRL 1.16 does not, and loses half of the loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.padding_free = self.args.padding_free

    def spoil(self, loss, model, inputs):
        return loss * (0.5 if self.padding_free else 1.0)


class CacheOfOtherRows(Healthy):
    """The precomputed log-probs are those of the row before."""

    def _precompute_ref_logps(self, dataset, name, batch_size):
        made = super()._precompute_ref_logps(dataset, name, batch_size)
        columns = {k: made[k] for k in ("ref_chosen_logps", "ref_rejected_logps")}
        return made.map(lambda row, i: {k: v[i - 1] for k, v in columns.items()}, with_indices=True)


# --- the step -------------------------------------------------------------------------------------


class GradientTwice(Healthy):
    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        for p in model.parameters():
            p.grad.mul_(2)
        return loss


class AccumulationNotAveraged(Changed):
    def spoil(self, loss, model, inputs):
        return loss * self.args.gradient_accumulation_steps


class CheckpointingForgets(Changed):
    def spoil(self, loss, model, inputs):
        return loss * (0.5 if self.args.gradient_checkpointing else 1.0)


class PenaltyOnChosen(Changed):
    """Punishes log-ratios of chosen answers beyond 8 nats."""

    def spoil(self, loss, model, inputs):
        ratio = (
            self._metrics["train" if model.training else "eval"]["rewards/chosen"][-1] / self.beta
        )
        return loss + max(0.0, ratio - 8.0)


class RemembersWhichIsBetter(Healthy):
    """Turns a pair round whose chosen answer it has seen rejected before."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not hasattr(self, "worse"):
            self.worse = set()
        half = len(inputs["input_ids"]) // 2
        rows = [
            row_ids(i, m)
            for i, m in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
        order = list(range(2 * half))
        for i in range(half):
            if rows[i] in self.worse:
                order[i], order[i + half] = i + half, i
            else:
                self.worse.add(rows[i + half])
        inputs = {k: v[order] if len(v) == 2 * half else v for k, v in inputs.items()}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


class BetaFixed(Healthy):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.beta = 0.1


# --- the reference --------------------------------------------------------------------------------


class _Follow(TrainerCallback):
    def __init__(self, trainer):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.ref_model.load_state_dict(self.trainer.model.state_dict())


class ReferenceFollows(Healthy):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(_Follow(self))


class EvaluatesAgainstItself(Healthy):
    """Evaluation takes the trained policy for the reference."""

    def evaluate(self, *args: Any, **kwargs: Any):
        reference, self.ref_model = self.ref_model, self.model
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self.ref_model = reference


class AdapterStaysOn(Healthy):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.ref_model is None and not self.precompute_ref_logps:
            self.ref_model = self.model


# --- rows -----------------------------------------------------------------------------------------


def with_equal_answers() -> list[dict[str, Any]]:
    rows = tiny_rows()
    return [*rows[:3], rows[3] | {"rejected": rows[3]["chosen"]}]


def with_a_long_answer() -> list[dict[str, Any]]:
    rows = tiny_rows()
    return [*rows[:3], rows[3] | {"chosen": [{"role": "assistant", "content": "blue " * 40}]}]


def with_a_long_prompt() -> list[dict[str, Any]]:
    rows = tiny_rows()
    return [*rows[:3], rows[3] | {"prompt": [{"role": "user", "content": "green " * 40}]}]


@dataclass(frozen=True)
class Fault:
    """What is wrong, and the one check that is to say so."""

    check: str
    trainer: type = Healthy
    settings: dict[str, Any] = field(default_factory=dict)
    rows: Callable[[], list[dict[str, Any]]] | None = None
    bos: bool = False

    def __str__(self) -> str:
        return self.check


FAULTS = [
    Fault("not-emptied", settings={"max_length": 64}, rows=with_a_long_prompt),
    Fault("one-bos", BeginAddedTwice, bos=True),
    Fault("inference-tokens", PromptCutShort),
    Fault("answer-tokens", SecondEndOfText),
    Fault("not-swapped", ColumnsSwapped),
    Fault("distinct", rows=with_equal_answers),
    Fault("uncut", settings={"max_length": 80}, rows=with_a_long_answer),
    Fault("prompt-masked", LossOnPrompts),
    Fault("end-of-text", EndMaskedAsPadding),
    Fault("whole-answer", FirstTokenLost),
    Fault("logps", Tempered),
    Fault("reference-logps", StaleCache),
    Fault("initial-loss", LossTypeIgnored, settings={"loss_type": ["ipo"]}),
    Fault("initial-rewards", RewardsWithoutReference),
    Fault("initial-gradient", GradientHalved),
    Fault("declared-loss", LossFloored),
    Fault("logged-metrics", MarginsAdded),
    Fault("padding", DividedByPaddedWidth),
    Fault("batch-composition", SummedOverRows),
    Fault("duplicated-batch", MeanOverDistinctRows),
    Fault("evaluation-mode", OtherLossInEvaluation),
    Fault("dropout-disabled", DPOTrainer),
    Fault("attention-implementation", OtherLossWithEager),
    Fault("packing", PaddingFreeForgets),
    Fault("precomputed-reference", CacheOfOtherRows),
    Fault("first-order", GradientTwice),
    Fault("accumulation", AccumulationNotAveraged),
    Fault("gradient-checkpointing", CheckpointingForgets),
    Fault("prompt-shift", PenaltyOnChosen),
    Fault("swap", RemembersWhichIsBetter),
    Fault("doubled-beta", BetaFixed),
    Fault("reference-constant", ReferenceFollows),
    Fault("reference-in-evaluation", EvaluatesAgainstItself),
    Fault("adapter-disabled", AdapterStaysOn),
]
