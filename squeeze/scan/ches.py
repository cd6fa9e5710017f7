"""The CHES score of a preference pair: how alike a model's hidden states are along its two answers.

Pure arithmetic on hidden states, and the road from examples to them; tables and files are not here.
Source: Razin et al., ICLR 2025, arXiv 2410.08847, Definition 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from squeeze.data.encoding import EncodedItem, encode_item
from squeeze.data.examples import PreferenceExample
from squeeze.data.probe_set import CHOSEN, REJECTED, ProbeItem
from squeeze.scoring import hidden_states

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Ches:
    """Both forms of one example's score, in squared units of the hidden state; high is at risk."""

    example: str
    ches: float
    normalised: float


def ches(
    chosen: Float[Tensor, "chosen hidden"], rejected: Float[Tensor, "rejected hidden"]
) -> tuple[float, float]:
    """Return the CHES score and its length-normalised form, from hidden states.

    ⟨Σh+, Σh−⟩ − ‖Σh+‖², and the same with means instead of sums. The rows are the states that
    *predict* the answers' tokens, h(x, y_<k) for k = 1 … |y|: from the prompt's last token to the
    answer's last but one, after the model's final norm. Summed in float64, as ⟨Σh+, Σh− − Σh+⟩,
    which is exactly 0 for equal answers.
    Source: Razin et al. 2025, arXiv 2410.08847, Definition 2; the normalised form as in their
    filtering experiments (§6), ⟨Σh+, Σh−⟩/(|y+||y−|) − ‖Σh+‖²/|y+|².
    """
    a, b = chosen.double().sum(0), rejected.double().sum(0)
    c, d = a / len(chosen), b / len(rejected)
    return float(a @ (b - a)), float(c @ (d - c))


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[PreferenceExample],
    max_length: int | None = None,
) -> list[EncodedItem]:
    """Tokenize prompt, chosen and rejected of every example, as training does.

    Raises `InputError` naming the example where an answer is empty or longer than `max_length`.
    """
    pairs = (
        ProbeItem(e.id, "scan", e.prompt, {CHOSEN: e.chosen, REJECTED: e.rejected})
        for e in examples
    )
    return [encode_item(tokenizer, pair, max_length) for pair in pairs]


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put the model in eval mode for the block, and back."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def ches_scores(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[PreferenceExample],
    *,
    max_length: int | None = None,
    dtype: torch.dtype | None = None,
) -> list[Ches]:
    """Return the scores of each example's chosen and rejected answer, in the examples' order.

    The answers end with what the tokenizer's chat template writes after them (the end-of-text
    token), as they do in training. One pass an example; `dtype` runs the model under autocast.
    Raises `InputError` as `encode_pairs` does.
    """
    scores = []
    items = encode_pairs(tokenizer, examples, max_length)
    with evaluating(model):
        for item in items:
            hidden = hidden_states(model, item, dtype=dtype)
            scores.append(Ches(item.example, *ches(hidden[CHOSEN], hidden[REJECTED])))
    return scores
