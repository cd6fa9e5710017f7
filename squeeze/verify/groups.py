"""Group-relative trainers as subjects: GRPO, RLOO and kin, which sample what they train on.

A batch is what the trainer samples from its prompts. What was sampled, and how it was rewarded, is
seen where the reward functions are called; what is trained on, where the model reads it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from squeeze.losses.policy_gradient import policy_loss
from squeeze.theory.policy_gradient import (
    Rollouts,
    Surrogate,
    group_advantages,
    rloo_advantages,
)
from squeeze.training.trl_compat import sampled_batch
from squeeze.verify.families import Metrics
from squeeze.verify.scorer import Answer, Scores, moved, score_answers
from squeeze.verify.subject import MOVED, TrainerSubject, take_log
from squeeze.verify.tokens import prompt_ids
from squeeze.verify.types import DoesNotApply

GROUP = 4  # rollouts to a prompt
LENGTH = 12  # tokens of a rollout at most
AS_GRPO = {"grpo": "response", "sapo": "response", "bnpo": "batch", "dapo": "batch"} | {
    "cispo": "batch",
    "luspo": "sum",
    "dr_grpo": "length",
}  # loss type -> the average over tokens that it takes
CLIPPED = ("grpo", "bnpo", "dapo", "dr_grpo")


@dataclass
class Rewarded:
    """What a trainer's reward functions were asked: (prompt, completion's ids) -> their rewards."""

    rewards: dict[tuple[str, tuple[int, ...]], list[float | None]] = field(default_factory=dict)
    order: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    all_seen: bool = True

    def require_all(self) -> None:
        """Raise `DoesNotApply` where some rewards were not seen."""
        if not self.all_seen:
            raise DoesNotApply("its rewards are a model's or asynchronous: they are not seen")

    def listen(self, function: Any, position: int) -> Any:
        """The same reward function, what it is asked and answers kept; others as they are."""
        if isinstance(function, torch.nn.Module) or inspect.iscoroutinefunction(function):
            self.all_seen = False
            return function

        @wraps(function)
        def heard(*args: Any, **kwargs: Any) -> Any:
            values = function(*args, **kwargs)
            asked = zip(kwargs["prompts"], kwargs["completion_ids"], values, strict=True)
            for prompt, ids, value in asked:
                key = said(prompt), tuple(int(i) for i in ids)
                if position == 0:
                    self.order.append(key)
                    self.rewards[key] = []
                self.rewards.setdefault(key, []).append(value)
            return values

        return heard


def said(prompt: Any) -> str:
    """A prompt as a key, whatever the order of its fields."""
    return json.dumps(prompt, sort_keys=True)


@dataclass(frozen=True)
class Sampled:
    """One batch that a trainer sampled: its tensors, and each row's answer and prompt's number.

    `row` is None where no prompt of the data is what the row begins with.
    """

    trainer: Any
    batch: dict[str, Any]
    answers: list[Answer]
    rows: list[int | None]
    metrics: Metrics

    @property
    def advantages(self) -> Float[Tensor, " rollouts"]:
        """Those that the trainer gave its rollouts."""
        found: Tensor = self.batch["advantages"].detach()
        return found

    def groups(self) -> list[list[int]]:
        """Rollouts by the prompt that they begin with."""
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for i, answer in enumerate(self.answers):
            by_prompt.setdefault(answer.ids[: answer.start], []).append(i)
        return list(by_prompt.values())


class GroupSubject(TrainerSubject):
    """A factory of group-relative trainers; as `TrainerSubject`, the rows being prompts."""

    @property
    def is_leave_one_out(self) -> bool:
        """RLOO, whose ratio and clip are of whole sequences."""
        return self.family.name == "RLOOTrainer"

    def _plain_options(self) -> dict[str, Any]:
        batch = GROUP * len(self.raw)
        return super()._plain_options() | {
            "per_device_train_batch_size": batch,
            "per_device_eval_batch_size": batch,
            "num_generations": GROUP,
            "max_completion_length": LENGTH,
        }

    def build(self, model: Any = None, **options: Any) -> Any:
        """A trainer whose reward functions are listened to; raises as `TrainerSubject.build`."""
        return listened(super().build(model, **options))

    # --- what is sampled ------------------------------------------------------------------------

    @cached_property
    def prompts(self) -> dict[tuple[int, ...], int]:
        """Prompt ids as at inference, and the number of the row."""
        rows = enumerate(self.raw)
        return {prompt_ids(row["prompt"], self.tokenizer): i for i, row in rows}

    def sample(self, trainer: Any) -> Sampled:
        """One batch of rollouts of a trainer as it stands; random state and log are restored."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            take_log(trainer)
            batch = sampled_batch(trainer)
            metrics = take_log(trainer)
        answers = [_answer(batch, i) for i in range(len(batch["completion_ids"]))]
        rows = [self.prompts.get(a.ids[: a.start]) for a in answers]
        return Sampled(trainer, batch, answers, rows, metrics)

    @cached_property
    def sampled(self) -> Sampled:
        """A batch of the trainer before it trains."""
        return self.sample(self.trainer)

    def value(
        self,
        sampled: Sampled,
        change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> tuple[Tensor, Metrics]:
        """The trainer's loss of a batch that it sampled, with gradient, and what it logs of it."""
        trainer = sampled.trainer
        trainer.model.train()
        take_log(trainer)
        loss: Tensor = trainer.compute_loss(trainer.model, change(dict(sampled.batch)))
        return loss, take_log(trainer)

    def heard(
        self, asked: Sequence[tuple[str, tuple[int, ...]]], numbers: dict[str, int]
    ) -> tuple[list[Answer], list[int | None]]:
        """Rollouts as the reward functions saw them, and their prompts' numbers in the data."""
        starts = {row: ids for ids, row in self.prompts.items()}
        rows: list[int | None] = [numbers[prompt] for prompt, _ in asked]
        found = []
        for (_, completion), row in zip(asked, rows, strict=True):
            assert row is not None
            found.append(Answer(starts[row] + completion, len(starts[row])))
        return found, rows

    def rewards(self, sampled: Sampled) -> Float[Tensor, " rollouts"]:
        """The rewards of rollouts, as the reward functions gave them, weighted and summed."""
        rewarded: Rewarded = sampled.trainer.squeeze_rewarded
        rewarded.require_all()
        weights = sampled.trainer.reward_weights.tolist()
        found = []
        for answer, row in zip(sampled.answers, sampled.rows, strict=True):
            if row is None:
                raise DoesNotApply("a rollout's prompt is none of the data's")
            known = rewarded.rewards.get(
                (said(self.raw[row]["prompt"]), answer.ids[answer.start :])
            )
            if known is None or None in known:
                raise DoesNotApply("a rollout has no reward")
            found.append(sum(w * v for w, v in zip(weights, known, strict=True) if v is not None))
        return torch.tensor(found)

    # --- what theory says of it -----------------------------------------------------------------

    def declared_advantages(self, sampled: Sampled) -> Float[Tensor, " rollouts"]:
        """Advantages by the trainer's arguments, from rewards alone."""
        args, rewards = sampled.trainer.args, self.rewards(sampled)
        if getattr(args, "multi_objective_aggregation", "sum_then_normalize") != (
            "sum_then_normalize"
        ):
            raise DoesNotApply("no closed form is known here for normalize_then_sum")
        groups = sampled.groups()
        if len({len(group) for group in groups}) != 1:
            raise DoesNotApply("two rows have the same prompt")
        order = torch.tensor(groups)
        table = rewards[order]
        if not self.is_leave_one_out:
            by_group = group_advantages(table, scale=_scale(args.scale_rewards))
        else:
            if args.reward_clip_range:
                table = table.clamp(*args.reward_clip_range)
            by_group = rloo_advantages(table)
            if args.normalize_advantages:
                by_group = (by_group - by_group.mean()) / (by_group.std() + 1e-4)
        found = torch.empty_like(rewards)
        found[order.flatten()] = by_group.flatten()
        return found

    def surrogate(self, *, at_start: bool) -> Surrogate:
        """The loss that the arguments declare; at the start ratios are 1 and kin are the same.

        Raises `DoesNotApply` where no closed form is known.
        """
        args = self.args
        if self.is_leave_one_out:
            return Surrogate("sequence", args.epsilon, _high(args), "sum")
        others: dict[str, Any] = {
            "top_entropy_quantile": 1.0,
            "entropy_coef": 0.0,
            "use_adaptive_entropy": False,
        }
        others |= {"off_policy_mask_threshold": None, "mask_truncated_completions": False}
        for name, plain in others.items():
            if getattr(args, name, plain) != plain:
                raise DoesNotApply(f"no closed form is known here for {name}")
        average = AS_GRPO.get(args.loss_type)
        clipped = args.loss_type in CLIPPED and args.delta is None
        if average is None or not (
            at_start or (clipped and args.importance_sampling_level == "token")
        ):
            raise DoesNotApply(f"no closed form is known here for loss_type {args.loss_type!r}")
        length = args.max_completion_length if average == "length" else None
        return Surrogate("token", args.epsilon, _high(args), average, length)  # type: ignore[arg-type]

    def score(self, model: Any, answers: Sequence[Answer]) -> Scores:
        """Independent scores at the temperature that the trainer samples and trains with."""
        return score_answers(model, answers, temperature=self.args.temperature)

    def declared_loss(
        self, policy: Scores, old: Scores | None, advantages: Tensor, *, at_start: bool
    ) -> Tensor:
        """The loss of rollouts at these scores; `old` are the sampler's, None the policy's own."""
        mask = pad_sequence([torch.ones(len(t)) for t in policy.tokens], batch_first=True).bool()
        before = None if old is None else pad_sequence(list(old.tokens), batch_first=True).detach()
        tokens = pad_sequence(list(policy.tokens), batch_first=True)
        surrogate = self.surrogate(at_start=at_start)
        rollouts = Rollouts(tokens, mask, advantages[:, None], before)
        loss: Tensor = policy_loss(rollouts, surrogate)
        if getattr(self.args, "loss_type", "") == "cispo":
            loss = loss * min(1.0, surrogate.high)  # CISPO's ε is the ratio's bound itself
        if self.is_leave_one_out or not self.args.beta or before is None:
            return loss  # at the start the penalty and its gradient are 0
        terms = kl_terms(tokens, before) * mask
        if getattr(self.args, "use_bias_correction_kl", False):
            terms = terms * rollouts.log_ratio.exp()
        penalty: Tensor = (surrogate.weights(mask).to(tokens) * terms).sum()
        return loss + float(self.args.beta) * penalty


class GroupInstance(GroupSubject):
    """A finished group-relative trainer; what needs another one does not apply."""

    def __init__(self, trainer: Any) -> None:
        rows = [dict(row) for row in trainer.train_dataset]
        super().__init__(lambda *_, **__: trainer, name=type(trainer).__name__, data=rows)
        self.trainer = listened(trainer)

    def build(self, model: Any = None, **options: Any) -> Any:
        """Always `DoesNotApply`."""
        raise DoesNotApply("a finished trainer cannot be built anew; give a factory")


def listened(trainer: Any) -> Any:
    """The trainer, its reward functions listened to from now on."""
    rewarded = Rewarded()
    trainer.squeeze_rewarded = rewarded
    trainer.reward_funcs = [rewarded.listen(f, i) for i, f in enumerate(trainer.reward_funcs)]
    return trainer


def kl_terms(policy: Tensor, reference: Tensor) -> Tensor:
    """e^d − d − 1, d = log π_ref − log π, a token; Shao et al. 2024, arXiv 2402.03300, Eq. 4."""
    d = reference - policy
    return d.exp() - d - 1


def _answer(batch: dict[str, Any], i: int) -> Answer:
    prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist()
    completion = batch["completion_ids"][i][batch["completion_mask"][i].bool()].tolist()
    return Answer(tuple(prompt + completion), len(prompt))


def _scale(name: Any) -> Any:
    return {True: "group", False: "none"}.get(name, name)


def _high(args: Any) -> float:
    high = getattr(args, "epsilon_high", None)
    return float(args.epsilon if high is None else high)


def at_moved(model: Any) -> Any:
    """The place away from the start where rollouts are sampled or scored."""
    return moved(model, MOVED)
