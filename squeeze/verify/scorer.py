"""Independent scores of answers: one plain pass a sequence, no padding, no batch, no fused head.

What a trainer computes in its own way is held against this. It is differentiable, where
`squeeze.scoring` is fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.scoring import lm_head

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Answer:
    """Token ids of one sequence that a model reads, and where its answer begins."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Scores:
    """Of each answer: log-prob, or reward (nats); number of tokens; entropy summed over them."""

    values: Float[Tensor, " answers"]
    lengths: Int[Tensor, " answers"]
    entropies: Float[Tensor, " answers"]


def score_answers(model: Any, answers: Sequence[Answer]) -> Scores:
    """Scores of answers under a causal language model or a reward model (one logit), with gradient.

    Adapters of a PEFT model count as they are set. The model is put in eval mode and restored.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    was_training = inner.training
    inner.eval()
    try:
        rows = [_score(inner, answer) for answer in answers]
    finally:
        inner.train(was_training)
    lengths = torch.tensor([len(a.ids) - a.start for a in answers])
    return Scores(torch.stack([v for v, _ in rows]), lengths, torch.stack([e for _, e in rows]))


def _score(model: Any, answer: Answer) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([answer.ids], device=model.device)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    if hasattr(model, "score"):  # a classification head: the last token's logit is the reward
        return model.score(hidden[-1]).squeeze(), torch.zeros(())
    head = lm_head(model)
    logits = hidden[answer.start - 1 : -1] @ head["head"].T
    if head["bias"] is not None:
        logits = logits + head["bias"]
    if head["softcap"] is not None:
        logits = head["softcap"] * torch.tanh(logits / head["softcap"])
    logps = logits.float().log_softmax(-1)
    taken = logps.gather(1, ids[0, answer.start :, None]).sum()
    return taken, -(logps.exp() * logps).sum().detach()


def trainable(model: Any) -> list[Tensor]:
    """The parameters that training changes."""
    return [p for p in model.parameters() if p.requires_grad]


def gradient(value: Tensor, model: Any) -> Float[Tensor, " parameters"]:
    """∂value/∂(trainable parameters), flat, 0 where there is none."""
    parameters = trainable(model)
    if not value.requires_grad:
        return torch.cat([torch.zeros(p.numel()) for p in parameters])
    found = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([g.detach().flatten() for g in found])


@contextmanager
def moved(model: Any, scale: float, seed: int = 1) -> Iterator[None]:
    """Within it the trainable weights are `scale`·N(0, 1) away from where they were."""
    if scale == 0:
        yield
        return
    parameters = trainable(model)
    before = [p.detach().clone() for p in parameters]
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for p in parameters:
                p += scale * torch.randn(p.shape, generator=generator).to(p)
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(parameters, before, strict=True):
                p.copy_(old)
