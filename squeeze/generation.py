"""Sampling answers from a language model: batched, with fixed prompts and a fixed seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 32


@dataclass(frozen=True)
class Answer:
    """A generated answer: its text, how many tokens it has, and whether it came to an end."""

    text: str
    n_tokens: int
    ended: bool


@torch.no_grad()
def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    seed: int = 0,
    temperature: float = 1.0,
    batch_size: int = BATCH,
) -> list[Answer]:
    """One answer to each prompt (token ids), its text without special tokens, in order.

    Samples from the full distribution at `temperature`; 0 is greedy decoding. Prompts are padded on
    the left with the tokenizer's pad token. The same seed, prompts and batch size give the same
    texts; the caller's random state and the model's mode are left as they were. Raises `ValueError`
    for an empty prompt, a negative temperature, or a tokenizer without a pad token.
    """
    if temperature < 0 or tokenizer.pad_token_id is None or not all(map(len, prompts_ids)):
        raise ValueError("needs prompts of at least one token, temperature >= 0 and a pad token")
    model_: Any = model  # `generate` comes from a mixin that the type checker cannot see
    # Everything is said here, so that defaults in a model's generation_config change nothing.
    sampling: dict[str, Any] = {"do_sample": temperature > 0, "num_beams": 1}
    if temperature > 0:
        sampling |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
    devices = [model.device] if model.device.type == "cuda" else []
    training, answers = model.training, list[Answer]()
    ends = _ends(model, tokenizer)
    model.eval()
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            for start in range(0, len(prompts_ids), batch_size):
                ids, mask = _left_padded(
                    prompts_ids[start : start + batch_size], int(tokenizer.pad_token_id)
                )
                output = model_.generate(
                    input_ids=ids.to(model.device),
                    attention_mask=mask.to(model.device),
                    max_new_tokens=max_new_tokens,
                    pad_token_id=tokenizer.pad_token_id,
                    use_cache=True,
                    **sampling,
                )
                said = output[:, ids.shape[1] :]
                texts = tokenizer.batch_decode(said, skip_special_tokens=True)
                for text, row in zip(texts, said.tolist(), strict=True):
                    end = next((i for i, token in enumerate(row) if token in ends), None)
                    answers.append(Answer(text, len(row) if end is None else end, end is not None))
    finally:
        model.train(training)
    return answers


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens at which the model's answers end."""
    found = getattr(model.generation_config, "eos_token_id", None) or tokenizer.eos_token_id
    return set(found) if isinstance(found, list) else {found}


def _left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of a batch, both [batch, longest]."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask
