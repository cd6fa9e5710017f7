"""Group-relative steps on checkable questions, a seed: one-step effects, and trainings by sign.

Answers are sampled, rewarded and weighed by TRL's own GRPOTrainer; one-step effects are those of
plain gradient descent on its loss for the group of one question, from the model as it is.
Importing this module imports TRL.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from datasets import Dataset
from pydantic import AfterValidator, FiniteFloat
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from squeeze.claims.group_relative import OneStep
from squeeze.losses import sequence_logps
from squeeze.models import load
from squeeze.study.verifiable import TASKS
from squeeze.theory.policy_gradient import Sign, gwhes, only, token_features
from squeeze.training.trl_compat import checkpointing

Group = Mapping[str, Tensor]
ROLLOUT = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
SIGNS: tuple[Sign, ...] = ("positive", "negative")


@dataclass(frozen=True)
class Recipe:
    """What a seed runs: sizes in questions, answers and tokens; no steps, no trainings."""

    questions: int  # of the one-step effects
    group: int
    tokens: int
    temperature: float
    step: float  # learning rate of the one-step effects, plain gradient descent
    steps: int = 0  # of the trainings of NS-1
    questions_a_step: int = 1
    learning_rate: float = 0.0  # of the trainings of NS-1, AdamW


@dataclass(frozen=True)
class SeedResult:
    """One seed: one-step effects, and entropy and reward by step of each training.

    Trainings are "positive", "negative" and, with permuted advantages, "positive blind", ….
    """

    steps: tuple[OneStep, ...]
    entropy: Mapping[str, tuple[FiniteFloat, ...]]
    reward: Mapping[str, tuple[FiniteFloat, ...]]


class SignedGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer with the advantages of one sign only, those of other answers if `blind`.

    With `keep` the rollouts are kept and no loss is computed.
    """

    sign: Sign | None = None
    blind: torch.Generator | None = None
    keep = False

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """TRL's loss of these rollouts; advantages of the other sign are 0."""
        if self.keep:
            self.kept = inputs
            nothing: Tensor = next(p for p in model.parameters() if p.requires_grad).sum() * 0
            return nothing
        if self.sign is not None:
            advantages = inputs["advantages"]
            if self.blind is not None:
                advantages = advantages[torch.randperm(len(advantages), generator=self.blind)]
            inputs = {**inputs, "advantages": only(advantages, self.sign)}
        loss: Tensor = super().compute_loss(model, inputs, *args, **kwargs)
        return loss


def run_seed(task: str, seed: int, recipe: Recipe) -> dict[str, Any]:
    """Run a seed: the fields of `SeedResult` as plain values."""
    entropy, reward = {}, {}
    for sign in SIGNS if recipe.steps else ():
        for form in ("", " blind"):
            both = trained(task, seed, recipe, sign, blind=bool(form))
            entropy[sign + form], reward[sign + form] = both
    return asdict(SeedResult(one_steps(task, seed, recipe), entropy, reward))


def shape(recipe: Recipe) -> Any:
    """The type of what `run_seed` returns of a recipe, for what went through JSON."""
    names = {sign + form for sign in SIGNS for form in ("", " blind")} if recipe.steps else set()

    def check(result: SeedResult) -> SeedResult:
        for series in (result.entropy, result.reward):
            if series.keys() != names or {len(v) for v in series.values()} - {recipe.steps}:
                wanted = ", ".join(sorted(names)) or "none"
                raise ValueError(f"the trainings should be {wanted}, {recipe.steps} steps each")
        return result

    return Annotated[SeedResult, AfterValidator(check)]


def group_trainer(
    task: str,
    seed: int,
    recipe: Recipe,
    place: str,
    questions: int,
    kind: type[SignedGRPOTrainer] | None = None,
    **settings: Any,
) -> SignedGRPOTrainer:
    """TRL's trainer on a task, `questions` a step; `settings` are fields of TRL's GRPOConfig."""
    asked = TASKS[task]
    model, tokenizer = load(asked.model())
    tokenizer.padding_side = "left"
    arguments: dict[str, Any] = {
        "output_dir": place,
        "seed": seed,
        "per_device_train_batch_size": questions * recipe.group,
        "num_generations": recipe.group,
        "max_completion_length": recipe.tokens,
        "temperature": recipe.temperature,
        "beta": 0.0,
        "loss_type": "grpo",
        "use_cpu": True,
        "bf16": False,
        **checkpointing(False),
        "dataloader_pin_memory": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "lr_scheduler_type": "constant",
    }
    trainer = (kind or SignedGRPOTrainer)(
        model=model.float(),
        reward_funcs=asked.reward,
        args=GRPOConfig(**arguments | settings),
        train_dataset=Dataset.from_list(asked.questions(seed, recipe.questions)),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trained(
    task: str, seed: int, recipe: Recipe, sign: Sign | None, blind: bool = False
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Token entropy (nats) of the policy on its own answers, and their reward, by step."""
    with tempfile.TemporaryDirectory() as place:
        trainer = group_trainer(
            *(task, seed, recipe, place, recipe.questions_a_step),
            max_steps=recipe.steps,
            learning_rate=recipe.learning_rate,
        )
        trainer.sign = sign
        trainer.blind = torch.Generator().manual_seed(seed) if blind else None
        trainer.train()
    logged = [row for row in trainer.state.log_history if "entropy" in row]
    return tuple(row["entropy"] for row in logged), tuple(row["reward"] for row in logged)


def one_steps(task: str, seed: int, recipe: Recipe) -> tuple[OneStep, ...]:
    """The one-step effects of every question with both right and wrong answers."""
    with tempfile.TemporaryDirectory() as place:
        trainer = group_trainer(
            *(task, seed, recipe, place, recipe.questions), max_steps=1, learning_rate=0.0
        )
        trainer.keep = True
        trainer.train()
        trainer.keep = False
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, ids in enumerate(trainer.kept["prompt_ids"].tolist()):
        rows.setdefault(tuple(ids), []).append(row)
    generator = torch.Generator().manual_seed(seed)
    measured = []
    for number, prompt in enumerate(sorted(rows)):
        group = {name: trainer.kept[name][rows[prompt]] for name in ROLLOUT}
        if (group["advantages"] > 0).any() and (group["advantages"] < 0).any():
            measured.append(_one_step(trainer, group, number, recipe.step, generator))
    return tuple(measured)


def _one_step(
    trainer: SignedGRPOTrainer, group: Group, number: int, step: float, generator: torch.Generator
) -> OneStep:
    advantages = group["advantages"]
    right = advantages > 0
    masked = torch.randperm(len(right), generator=generator)[: int((~right).sum())]
    arms = {
        "full": advantages,
        "masked": only(advantages, "positive"),
        "blind": advantages.index_fill(0, masked, 0.0),
    }
    before = _right_logps(trainer.model, group, right)
    changes = {
        name: float((_after(trainer, {**group, "advantages": a}, right, step) - before).mean())
        for name, a in arms.items()
    }
    return OneStep(number, int(right.sum()), **changes, score=_score(trainer.model, group, right))


def group_loss(trainer: SignedGRPOTrainer, group: Group) -> Tensor:
    """TRL's loss of a group; answers whose advantage is 0 have no gradient and are left out.

    The loss is a mean over answers, so that of those left in counts by their share.
    """
    kept = group["advantages"] != 0
    part = {name: value[kept] for name, value in group.items()}
    loss: Tensor = trainer.compute_loss(trainer.model, part) * (int(kept.sum()) / len(kept))
    return loss


def _after(trainer: SignedGRPOTrainer, group: Group, right: Tensor, step: float) -> Tensor:
    """The right answers' log-probs after a step down TRL's loss; the weights are put back."""
    weights = [p for p in trainer.model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(group_loss(trainer, group), weights)
    with torch.no_grad():
        before = [p.detach().clone() for p in weights]
        for p, gradient in zip(weights, gradients, strict=True):
            p -= step * gradient
        found = _right_logps(trainer.model, group, right)
        for p, old in zip(weights, before, strict=True):
            p.copy_(old)
    return found


def _inputs(group: Group) -> tuple[dict[str, Tensor], Tensor]:
    """Model inputs of the whole sequences, and labels that leave prompt and padding out."""
    ids = torch.cat([group["prompt_ids"], group["completion_ids"]], 1)
    mask = torch.cat([group["prompt_mask"], group["completion_mask"]], 1)
    answer = torch.cat([torch.zeros_like(group["prompt_mask"]), group["completion_mask"]], 1)
    return {"input_ids": ids, "attention_mask": mask}, ids.masked_fill(answer == 0, -100)


def _right_logps(model: PreTrainedModel, group: Group, right: Tensor) -> Tensor:
    inputs, labels = _inputs({name: value[right] for name, value in group.items()})
    with torch.no_grad():
        return sequence_logps(model(**inputs).logits, labels)[0]


def _score(model: PreTrainedModel, group: Group, right: Tensor) -> float:
    """The mean GWHES of the right answers."""
    inputs, labels = _inputs(group)
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    features = []
    for logits, hidden, row in zip(output.logits, output.hidden_states[-1], labels, strict=True):
        places = (row[1:] != -100).nonzero()[:, 0]
        features.append(token_features(logits[places], row[1:][places], hidden[places]))
    good = [f for f, is_right in zip(features, right.tolist(), strict=True) if is_right]
    bad = [f for f, is_right in zip(features, right.tolist(), strict=True) if not is_right]
    return float(torch.stack([gwhes(f, good, bad) for f in good]).mean())
