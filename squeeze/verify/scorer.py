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
    """Of each answer: log-prob, or reward (nats); number of tokens; entropy summed over them.

    `tokens` are the log-probs of its tokens, whose sum the value is (none of a reward model);
    `maxima` those of the most likely token in their places, `alignments` the means over them of
    log π(y_t) − log Σ_v π(v)²; the last two detached.
    """

    values: Float[Tensor, " answers"]
    lengths: Int[Tensor, " answers"]
    entropies: Float[Tensor, " answers"]
    tokens: tuple[Float[Tensor, " tokens"], ...]
    alignments: Float[Tensor, " answers"]
    maxima: tuple[Float[Tensor, " tokens"], ...]

    def take(self, order: Sequence[int]) -> Scores:
        """The scores of some answers, in this order."""
        rows = torch.tensor(list(order), dtype=torch.long)
        return Scores(
            self.values[rows],
            self.lengths[rows],
            self.entropies[rows],
            tuple(self.tokens[i] for i in order),
            self.alignments[rows],
            tuple(self.maxima[i] for i in order),
        )

    @staticmethod
    def join(parts: Sequence[Scores]) -> Scores:
        """The scores of all answers of these, one after another."""
        return Scores(
            torch.cat([p.values for p in parts]),
            torch.cat([p.lengths for p in parts]),
            torch.cat([p.entropies for p in parts]),
            tuple(t for p in parts for t in p.tokens),
            torch.cat([p.alignments for p in parts]),
            tuple(t for p in parts for t in p.maxima),
        )


def score_answers(model: Any, answers: Sequence[Answer], *, temperature: float = 1.0) -> Scores:
    """Scores of answers under a causal language model or a reward model (one logit), with gradient.

    Log-probs are those of logits divided by `temperature`. Adapters of a PEFT model count as they
    are set. The model is put in eval mode and restored.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    was_training = inner.training
    inner.eval()
    try:
        rows = [_score(inner, answer, temperature) for answer in answers]
    finally:
        inner.train(was_training)
    return Scores.join(rows)


def _score(model: Any, answer: Answer, temperature: float) -> Scores:
    ids = torch.tensor([answer.ids], device=model.device)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    if hasattr(model, "score"):  # a classification head: the last token's logit is the reward
        nothing = torch.zeros(1)
        length = torch.tensor([len(answer.ids) - answer.start])
        return Scores(
            model.score(hidden[-1]).reshape(1), length, nothing, (nothing,), nothing, (nothing,)
        )
    head = lm_head(model)
    logits = hidden[answer.start - 1 : -1] @ head["head"].T
    if head["bias"] is not None:
        logits = logits + head["bias"]
    logits = logits * head["logit_scale"]
    if head["softcap"] is not None:
        logits = head["softcap"] * torch.tanh(logits / head["softcap"])
    logps = (logits.float() / temperature).log_softmax(-1)
    tokens = logps.gather(1, ids[0, answer.start :, None])[:, 0]
    fixed = logps.detach()
    alignment = (tokens.detach() - (2 * fixed).logsumexp(-1)).mean()
    return Scores(
        tokens.sum()[None],
        torch.tensor([len(tokens)]),
        -(fixed.exp() * fixed).sum()[None],
        (tokens,),
        alignment[None],
        (fixed.amax(-1),),
    )


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
