"""Kinds of trainers: what each does with its answers' log-probs, from the papers, not from TRL.

A family knows in which order a batch holds its answers, the loss that the trainer's arguments
declare, and what its logged metrics should say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from squeeze.losses import PairLogps, kto_unpaired
from squeeze.verify.declared import cpo_loss, dpo_losses, orpo_loss
from squeeze.verify.scorer import Answer, Scores
from squeeze.verify.types import DoesNotApply

Metrics = dict[str, float]
LOGPS = ("logps/chosen", "logps/rejected")
REWARDS = ("rewards/chosen", "rewards/rejected")


class Family:
    """What is common: no reference, nothing known of loss or metrics."""

    name = "trainer"
    has_reference = False

    def kinds(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
        """(row of the batch, kind of answer) of each sequence, in the batch's order."""
        return [(i, "completion") for i in range(len(rows))]

    def others(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Further sequences that the loss reads the log-probs of."""
        return []

    def loss(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Tensor:
        """The batch loss that the arguments declare, at these scores (`others` at the end)."""
        raise DoesNotApply(f"no closed form is known here for the loss of a {self.name}")

    def logged(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Metrics:
        """What the trainer should log at these scores, as far as it concerns answers."""
        return {}

    def trains_prompts(self, args: Any) -> bool:
        """Whether the trainer is told that prompts carry loss as well."""
        return False


def pairs_of(policy: Scores, reference: Scores | None) -> PairLogps:
    """Scores of chosen answers, then of rejected ones, as pairs."""
    half = len(policy.values) // 2
    known = None if reference is None else reference.values
    return PairLogps(
        chosen=policy.values[:half],
        rejected=policy.values[half:],
        ref_chosen=None if known is None else known[:half],
        ref_rejected=None if known is None else known[half:],
        chosen_length=policy.lengths[:half],
        rejected_length=policy.lengths[half:],
    )


def _length_desensitized(scores: Scores, alpha: float) -> Scores:
    """Log-probs less (1 − α) of what lies beyond a pair's shorter length; arXiv 2409.06411, Eq. 8.

    What the loss `ld_dpo` of `squeeze.losses` takes from a margin, on answers of their own lengths.
    """
    shorter = scores.lengths.reshape(2, -1).amin(0).repeat(2)
    tails = [t[int(n) :].sum() for t, n in zip(scores.tokens, shorter, strict=True)]
    return replace(scores, values=scores.values - (1 - alpha) * torch.stack(tails))


def _rewards(chosen: Tensor, rejected: Tensor) -> Metrics:
    return {
        "rewards/chosen": chosen.mean().item(),
        "rewards/rejected": rejected.mean().item(),
        "rewards/margins": (chosen - rejected).mean().item(),
        "rewards/accuracies": (chosen > rejected).float().mean().item(),
    }


def logged_of_pairs(pair: PairLogps, beta: float, *, means: bool = False) -> Metrics:
    """Log-probs, and rewards, which are β times the log-ratios (log-probs without a reference).

    With `means` both are means over an answer's tokens.
    """
    zero = torch.zeros_like(pair.chosen)
    sides = [(pair.chosen, pair.ref_chosen), (pair.rejected, pair.ref_rejected)]
    chosen, rejected = [(s, zero if reference is None else reference) for s, reference in sides]
    n_chosen, n_rejected = (
        (pair.n_chosen_tokens, pair.n_rejected_tokens) if means else (zero + 1, zero + 1)
    )
    logps = {
        "logps/chosen": (chosen[0] / n_chosen).mean().item(),
        "logps/rejected": (rejected[0] / n_rejected).mean().item(),
    }
    ratios = (chosen[0] - chosen[1]) / n_chosen, (rejected[0] - rejected[1]) / n_rejected
    return logps | _rewards(beta * ratios[0], beta * ratios[1])


class Pairs(Family):
    """DPO and its kin: the chosen answers of a batch, then the rejected ones, a reference."""

    name = "DPOTrainer"
    has_reference = True

    def kinds(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
        """Chosen answers first."""
        return [(i, kind) for kind in ("chosen", "rejected") for i in range(len(rows))]

    def loss(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Tensor:
        """`loss_type`, from `declared`, each pair's times its weight with WPO's `use_weighting`."""
        whole = pairs_of(policy, reference)
        losses = dpo_losses(self.pair(policy, reference, args), args, whole)
        if getattr(args, "use_weighting", False):
            losses = losses * policy.alignments.reshape(2, -1).sum(0).exp()
        return losses.mean()

    def pair(self, policy: Scores, reference: Scores | None, args: Any) -> PairLogps:
        """The log-probs that the loss reads, weighted by `ld_alpha` beyond the shorter length."""
        alpha = getattr(args, "ld_alpha", None)
        if alpha is None:
            return pairs_of(policy, reference)
        known = None if reference is None else _length_desensitized(reference, alpha)
        return pairs_of(_length_desensitized(policy, alpha), known)

    def logged(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Metrics:
        """Rewards are β times the log-ratios; the entropy is a mean over the answers' tokens."""
        entropy = (policy.entropies.sum() / policy.lengths.sum()).item()
        return logged_of_pairs(self.pair(policy, reference, args), args.beta) | {"entropy": entropy}


class ReferenceFreePairs(Pairs):
    """CPO and SimPO."""

    name = "CPOTrainer"
    has_reference = False

    def loss(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Tensor:
        """`loss_type`, from `declared`."""
        return cpo_loss(pairs_of(policy, None), args)

    def means(self, args: Any) -> bool:
        """Whether log-probs are means over an answer's tokens."""
        return args.loss_type in ("simpo", "ipo")

    def logged(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Metrics:
        """Rewards are β times the log-probs, which are means a token for some losses."""
        return logged_of_pairs(pairs_of(policy, None), args.beta, means=self.means(args))


class OddsRatio(ReferenceFreePairs):
    """ORPO."""

    name = "ORPOTrainer"

    def loss(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Tensor:
        """SFT and the odds ratio, from `declared`."""
        return orpo_loss(pairs_of(policy, None), args)

    def means(self, args: Any) -> bool:
        """ORPO's always are."""
        return True


class Unpaired(Family):
    """KTO: single answers with a label; the KL estimate reads mismatched answers as well."""

    name = "KTOTrainer"
    has_reference = True

    def others(self, rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """The mismatched answers, from the rows that the trainer prepared."""
        return [
            Answer(
                tuple(row["prompt_ids"]) + tuple(row["KL_completion_ids"]), len(row["prompt_ids"])
            )
            for row in rows
            if "KL_completion_ids" in row
        ]

    def loss(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Tensor:
        """Eq. 8 of arXiv 2402.01306, or APO-zero's unpaired form."""
        assert reference is not None
        n = len(rows)
        ratios = policy.values - reference.values
        label = torch.tensor([bool(row["label"]) for row in rows])
        if args.loss_type == "kto":
            weights = {
                "desirable_weight": args.desirable_weight,
                "undesirable_weight": args.undesirable_weight,
            }
            kl = ratios[n:].detach().mean().clamp(min=0)
            return kto_unpaired(ratios[:n], label, kl=kl, beta=args.beta, **weights).mean()
        if args.loss_type == "apo_zero_unpaired":
            x = args.beta * ratios[:n]
            weight = torch.where(label, args.desirable_weight, args.undesirable_weight)
            return (weight * torch.sigmoid(torch.where(label, -x, x))).mean()
        raise DoesNotApply(f"no closed form is known here for loss_type {args.loss_type!r}")

    def logged(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Metrics:
        """Means over the rows of each label that the batch has."""
        assert reference is not None
        n = len(rows)
        label = torch.tensor([bool(row["label"]) for row in rows])
        rewards = args.beta * (policy.values - reference.values)[:n]
        found = {}
        for side, rows_of in (("chosen", label), ("rejected", ~label)):
            if rows_of.any():
                found[f"logps/{side}"] = policy.values[:n][rows_of].mean().item()
                found[f"rewards/{side}"] = rewards[rows_of].mean().item()
        return found | {"entropy": (policy.entropies[:n].sum() / policy.lengths[:n].sum()).item()}


class Supervised(Family):
    """SFT: the mean negative log-prob of the answers' tokens."""

    name = "SFTTrainer"

    def trains_prompts(self, args: Any) -> bool:
        """`completion_only_loss=False`."""
        return getattr(args, "completion_only_loss", None) is False

    def loss(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Tensor:
        """Maximum likelihood, a mean over the batch's tokens."""
        if getattr(args, "loss_type", "nll") not in ("nll", "chunked_nll"):
            raise DoesNotApply(f"no closed form is known here for loss_type {args.loss_type!r}")
        return -policy.values.sum() / policy.lengths.sum()

    def logged(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Metrics:
        """The entropy."""
        return {"entropy": (policy.entropies.sum() / policy.lengths.sum()).item()}


class Reward(Pairs):
    """A reward model: a score is a reward, not a log-prob."""

    name = "RewardTrainer"
    has_reference = False

    def loss(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Tensor:
        """−log σ(r+ − r−), Bradley-Terry; Ouyang et al. 2022, arXiv 2203.02155, Eq. 1.

        With `center_rewards_coefficient` plus it times (r+ + r−)²; arXiv 2312.09244, §2.1.
        """
        pair = pairs_of(policy, None)
        loss = -logsigmoid(pair.chosen - pair.rejected)
        centre = getattr(args, "center_rewards_coefficient", None) or 0.0
        return (loss + centre * (pair.chosen + pair.rejected).square()).mean()

    def logged(self, policy: Scores, reference: Scores | None, args: Any, rows: Any) -> Metrics:
        """Margin and accuracy."""
        pair = pairs_of(policy, None)
        found = _rewards(pair.chosen, pair.rejected)
        return {"margin": found["rewards/margins"], "accuracy": found["rewards/accuracies"]}


class Groups(Family):
    """GRPO and RLOO: several rollouts to a prompt; `squeeze.verify.groups` has what they are."""

    def __init__(self, name: str) -> None:
        self.name = name


FAMILIES: Mapping[str, Family] = {
    "DPOTrainer": Pairs(),
    "KTOTrainer": Unpaired(),
    "CPOTrainer": ReferenceFreePairs(),
    "ORPOTrainer": OddsRatio(),
    "SFTTrainer": Supervised(),
    "RewardTrainer": Reward(),
    "GRPOTrainer": Groups("GRPOTrainer"),
    "RLOOTrainer": Groups("RLOOTrainer"),
}


def family_of(trainer: Any) -> Family:
    """The family of a trainer by the names of its classes, nearest first; `Family()` if none."""
    names = [cls.__name__ for cls in type(trainer).__mro__]
    return next((FAMILIES[name] for name in names if name in FAMILIES), Family())


def is_group_relative(trainer: Any) -> bool:
    """Whether a trainer samples groups of rollouts, as GRPO and RLOO do."""
    return isinstance(family_of(trainer), Groups)
