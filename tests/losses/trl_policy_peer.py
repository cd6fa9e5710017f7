"""TRL's GRPO and RLOO losses as functions of our rollouts, and the advantages it trains on.

The loss comes out of the trainers' own `compute_loss`, with given log-probs where the model is; the
advantages out of one real step on a tiny model.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from squeeze.losses.policy_gradient import PolicyGradient
from squeeze.theory.policy_gradient import Rollouts
from tests.losses.trl_peer import WORDS, Fed, _settings, tiny_model, tokenizer

SIZE, GROUPS = 4, 3


def reward_length(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that differs within groups: how many different tokens a completion has."""
    return [float(len(set(ids))) for ids in completion_ids]


class _Watched:
    """Keeps what the loss is given, and the rewards that led to it."""

    seen: list[dict[str, Tensor]]

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        self.seen.append(inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]


class WatchedGRPO(_Watched, GRPOTrainer):
    pass


class WatchedRLOO(_Watched, RLOOTrainer):
    pass


def trainer(kind: str, **settings: Any) -> Any:
    """A GRPO or RLOO trainer on the tiny Qwen3, three prompts, groups of four."""
    config, cls = {"grpo": (GRPOConfig, WatchedGRPO), "rloo": (RLOOConfig, WatchedRLOO)}[kind]
    common = _settings() | {
        "per_device_train_batch_size": SIZE * GROUPS,
        "num_generations": SIZE,
        "max_completion_length": 6,
        "max_steps": 1,
        "beta": 0.0,  # no reference model, which would be loaded by name
        "learning_rate": 0.0,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",
    }
    prompts = [[{"role": "user", "content": text}] for text in ("who am i", "are you", "dog")]
    made = cls(
        model=tiny_model("qwen3"),
        reward_funcs=reward_length,
        args=config(**common, **settings),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=tokenizer(),
    )
    made.seen = []
    return made


@cache
def fed_trainer(kind: str) -> Any:
    """One trainer a kind, whose loss is asked again and again."""
    return trainer(kind)


def trl_policy_loss(loss: PolicyGradient, rollouts: Rollouts) -> Tensor:
    """TRL's scalar loss of given log-probs, ratios and advantages."""
    kind = "rloo" if loss.surrogate.ratio == "sequence" else "grpo"
    made = fed_trainer(kind)
    made.epsilon_low, made.epsilon_high = loss.surrogate.low, loss.surrogate.high
    made.current_gradient_accumulation_steps = 1
    mask = rollouts.mask.long()
    old = rollouts.logps.detach() if rollouts.old_logps is None else rollouts.old_logps
    inputs: dict[str, Any] = {
        "prompt_ids": torch.full((len(mask), 1), WORDS.index("who")),
        "prompt_mask": torch.ones(len(mask), 1, dtype=torch.long),
        "completion_ids": torch.ones_like(mask),
        "completion_mask": mask,
        "advantages": rollouts.advantages[:, 0],
    }
    if kind == "rloo":
        inputs["old_logps"] = (old * mask).sum(-1)
    else:
        average = loss.surrogate.average
        made.loss_type = {"response": "grpo", "length": "dr_grpo", "batch": "dapo"}[average]
        if average == "length":
            made.max_completion_length = loss.surrogate.length
        inputs["old_per_token_logps"] = old
        inputs["num_items_in_batch"] = mask.sum()
    return made.compute_loss(Fed(rollouts.logps), inputs)
