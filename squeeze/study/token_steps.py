"""The DPO steps on real pairs that DO-5 looks at: one SGD step of the adapter, at the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from squeeze.claims.tokens import CHOSEN, REJECTED, PairStep
from squeeze.data.encoding import EncodedItem
from squeeze.theory.decomposition import UpdateTerm, logp_residual
from squeeze.theory.entk import response_positions, sequence_logits, trainable_parameters
from squeeze.training.trainers import lora_config

if TYPE_CHECKING:
    from squeeze.study.seed_run import Experiment


def pair_steps(experiment: Experiment, count: int) -> list[PairStep]:
    """A step on each of the first `count` training pairs, of a fresh adapter on the base model.

    At the reference DPO's weights on the two log-probs are ∓β/2.
    """
    from peft import get_peft_model

    torch.manual_seed(experiment.config.seed)
    model: Any = get_peft_model(experiment.arms.model(()), lora_config(experiment.config)).eval()
    items = [item for item in experiment.arms.items if item.split == "train"][:count]
    half = experiment.config.beta / 2
    return [_step(model, item, half) for item in items]


def _step(model: torch.nn.Module, item: EncodedItem, weight: float) -> PairStep:
    terms = [_term(model, item, CHOSEN, -weight), _term(model, item, REJECTED, weight)]
    rejected = torch.tensor(item.response_ids[REJECTED])
    return PairStep(terms[1].logits, rejected, terms, trainable_parameters(model))


def _term(model: torch.nn.Module, item: EncodedItem, kind: str, weight: float) -> UpdateTerm:
    ids = torch.tensor(item.prompt_ids + item.response_ids[kind])
    positions = response_positions(len(item.prompt_ids), len(ids))
    targets = torch.tensor(item.response_ids[kind])
    return UpdateTerm(sequence_logits(model, ids, positions), logp_residual(targets, weight), kind)
