"""The tiny world's checkable questions under group-relative training: GR-1, GR-2 and NS-1, a seed.

An answer is right if it names the value asked for. Answers are sampled, rewarded and weighed by
TRL's own GRPOTrainer; one-step effects are those of plain gradient descent on its loss for the
group of one question, from the pretrained model. Registered in `preregistered.yaml` under
`verifiable`. Importing this module imports TRL.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from squeeze.claims.statistics import mean, verdict_from_interval
from squeeze.claims.types import Verdict
from squeeze.files import write_text
from squeeze.losses import sequence_logps
from squeeze.models import load
from squeeze.study.registration import verifiable_plan
from squeeze.study.tiny_lm import tiny_lm
from squeeze.study.tiny_lm.grammar import facts, question
from squeeze.theory.policy_gradient import Sign, gwhes, only, token_features
from squeeze.training.trl_compat import checkpointing

Group = Mapping[str, Tensor]
ROLLOUT = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")


@dataclass(frozen=True)
class Recipe:
    """What a seed runs: the group, the answer's length, the steps; sizes in answers and tokens."""

    group: int
    tokens: int
    temperature: float
    step: float  # learning rate of the one-step effects, plain gradient descent
    steps: int  # of the trainings of NS-1
    questions_a_step: int
    learning_rate: float  # of the trainings of NS-1, AdamW


@dataclass(frozen=True)
class OneStep:
    """A question's step: the mean change of log π of its sampled right answers, nats an answer.

    `full` for the group's step, `masked` with the wrong answers' advantages 0, `random` with as
    many answers' advantages 0, drawn blindly; `score` is the right answers' mean GWHES.
    """

    question: int
    n_right: int
    full: float
    masked: float
    random: float
    score: float


@dataclass(frozen=True)
class SeedResult:
    """One seed: the questions that had right and wrong answers, and entropies by step and sign."""

    seed: int
    steps: tuple[OneStep, ...]
    entropy: Mapping[str, tuple[float, ...]]


class SignedGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer with the advantages of one sign only, and what its loss was given, kept."""

    sign: Sign | None = None
    keep = False

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """TRL's loss of these rollouts; advantages of the other sign are 0."""
        if self.keep:
            self.kept = inputs
        if self.sign is not None:
            inputs = {**inputs, "advantages": only(inputs["advantages"], self.sign)}
        loss: Tensor = super().compute_loss(model, inputs, *args, **kwargs)
        return loss


def names_the_value(
    completions: Sequence[Sequence[Mapping[str, str]]], value: Sequence[str], **_: Any
) -> list[float]:
    """The reward: 1 for an answer that has the right word in it, else 0."""
    texts = [completion[-1]["content"].split() for completion in completions]
    return [float(right in words) for words, right in zip(texts, value, strict=True)]


def questions(seed: int) -> list[dict[str, Any]]:
    """Every fact of the world asked about once, in this seed's wording and order."""
    rng = random.Random(f"verifiable/{seed}")
    asked = [
        {"prompt": [{"role": "user", "content": question(rng, fact)}], "value": fact.value}
        for fact in facts()
    ]
    return rng.sample(asked, len(asked))


def run_seed(seed: int, recipe: Recipe, cache: Path | None = None) -> SeedResult:
    """Run a seed, or read it from `cache` (a directory) where it was run already."""
    path = None if cache is None else cache / f"verifiable-{seed}.json"
    if path is not None and path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["recipe"] == asdict(recipe):
            steps = tuple(OneStep(**row) for row in stored["result"]["steps"])
            entropy = {k: tuple(v) for k, v in stored["result"]["entropy"].items()}
            return SeedResult(seed, steps, entropy)
    signs: tuple[Sign, ...] = ("positive", "negative")
    entropy = {sign: entropies(seed, recipe, sign) for sign in signs}
    result = SeedResult(seed, one_steps(seed, recipe), entropy)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"recipe": asdict(recipe), "result": asdict(result)}))
    return result


def _trainer(seed: int, recipe: Recipe, place: str, **settings: Any) -> SignedGRPOTrainer:
    model, tokenizer = load(str(tiny_lm()))
    tokenizer.padding_side = "left"
    arguments: dict[str, Any] = {
        "output_dir": place,
        "seed": seed,
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
    trainer = SignedGRPOTrainer(
        model=model.float(),
        reward_funcs=names_the_value,
        args=GRPOConfig(**arguments | settings),
        train_dataset=Dataset.from_list(questions(seed)),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def entropies(seed: int, recipe: Recipe, sign: Sign) -> tuple[float, ...]:
    """The policy's mean token entropy (nats) on its own answers at each step of one training."""
    with tempfile.TemporaryDirectory() as place:
        trainer = _trainer(
            seed,
            recipe,
            place,
            per_device_train_batch_size=recipe.questions_a_step * recipe.group,
            max_steps=recipe.steps,
            learning_rate=recipe.learning_rate,
        )
        trainer.sign = sign
        trainer.train()
    return tuple(row["entropy"] for row in trainer.state.log_history if "entropy" in row)


def one_steps(seed: int, recipe: Recipe) -> tuple[OneStep, ...]:
    """The one-step effects of every question with both right and wrong answers."""
    with tempfile.TemporaryDirectory() as place:
        trainer = _trainer(
            seed,
            recipe,
            place,
            per_device_train_batch_size=len(facts()) * recipe.group,
            max_steps=1,
            learning_rate=0.0,
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
    blind = torch.randperm(len(right), generator=generator)[: int((~right).sum())]
    arms = {
        "full": advantages,
        "masked": only(advantages, "positive"),
        "random": advantages.index_fill(0, blind, 0.0),
    }
    before = _right_logps(trainer.model, group, right)
    changes = {
        name: float((_after(trainer, {**group, "advantages": a}, right, step) - before).mean())
        for name, a in arms.items()
    }
    return OneStep(number, int(right.sum()), **changes, score=_score(trainer.model, group, right))


def _after(trainer: SignedGRPOTrainer, group: Group, right: Tensor, step: float) -> Tensor:
    """The right answers' log-probs after a step down TRL's loss; the weights are put back."""
    weights = [p for p in trainer.model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(trainer.compute_loss(trainer.model, dict(group)), weights)
    before = [p.detach().clone() for p in weights]
    with torch.no_grad():
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


def judge(results: Sequence[SeedResult]) -> list[Verdict]:
    """The rows of GR-1, GR-2 and NS-1 over seeds, as registered: one number a seed, Student's t."""
    seeds = tuple(result.seed for result in results)
    last = 4  # steps at a training's end whose entropy is averaged

    def gains(a: str, b: str) -> list[float]:
        return [
            float(np.mean([getattr(s, a) > getattr(s, b) for s in r.steps])) - 0.5 for r in results
        ]

    series: dict[str, list[float]] = {
        "GR-1": gains("masked", "full"),
        "GR-1 against masking at random": gains("masked", "random"),
        "GR-2": [
            -_spearman([s.score for s in r.steps], [s.full for s in r.steps]) for r in results
        ],
        "NS-1": [
            float(np.mean(r.entropy["negative"][-last:]) - np.mean(r.entropy["positive"][-last:]))
            for r in results
        ],
    }
    return [
        verdict_from_interval(
            row["claim"],
            "tiny",
            row["statistic"],
            mean(series[row["row"]]),
            bound=float(row["bound"]),
            side=row["side"],
            comparison=row["row"],
            seeds=seeds,
            role=row["role"],
            smallest_effect=float(row["smallest_effect"]),
        )
        for row in verifiable_plan()["statistics"]
    ]


def _spearman(x: Sequence[float], y: Sequence[float]) -> float:
    from scipy import stats

    if len(set(x)) < 2 or len(set(y)) < 2:  # a constant shows no association
        return 0.0
    return float(stats.spearmanr(x, y).statistic)


def main() -> None:
    """Run the registered seeds (or those given as arguments) and print their rows.

    `python -m squeeze.study.verifiable [SEED ...]`; seeds are kept in `verifiable-runs`, so that a
    second call goes on where the first one stopped.
    """
    seeds = [int(text) for text in sys.argv[1:]] or verifiable_plan()["evaluation"]
    recipe = Recipe(**verifiable_plan()["recipe"])
    for row in judge([run_seed(seed, recipe, Path("verifiable-runs")) for seed in seeds]):
        print(f"{row.claim} {row.outcome}: {row.effect:.3f} {row.interval} ({row.comparison})")


if __name__ == "__main__":
    main()
