"""Packed rows: which items go into one forward pass, and how prompts and responses stand in it.

A prompt is read once and shared by all its responses, several examples stand in one row, and what
all prompts begin with is read once for all. `tree_attention` keeps them apart; what is read from
the hidden states is `scoring`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from squeeze.data.encoding import EncodedItem
from squeeze.tree_attention import Tree

# Tokens that one pass is meant to hold: enough to keep the device busy, and what is between layers
# in a processor's caches.
PACKED_TOKENS = {"cpu": 1024, "cuda": 16_384}
# Every answer gets keys and values of its prompt: so many for each of those tokens, no more.
_KEYS = 8


@dataclass(frozen=True)
class Pass:
    """A forward pass: the model's arguments, the rows that predict responses, and their tokens."""

    inputs: dict[str, Any]
    rows: Tensor | slice
    targets: Int[Tensor, " tokens"]


def _shared_pass(items: Sequence[EncodedItem], device: torch.device, start: Tree | None) -> Pass:
    """A pass over prompts and all their responses, item by item and response by response."""
    skip = start.length if start else 0
    ids, positions = _pack(items, device, skip)
    prompts = [len(item.prompt_ids) - skip for item in items]
    lengths = [[len(r) - 1 for r in item.response_ids.values()] for item in items]
    rows: list[int] = []
    first, last_of_prompt = sum(prompts), -1
    for prompt, answers in zip(prompts, lengths, strict=True):
        last_of_prompt += prompt
        for length in answers:
            rows += [last_of_prompt, *range(first, first + length)]
            first += length
    targets = [token for item in items for ids in item.response_ids.values() for token in ids]
    inputs = {
        **{"input_ids": ids, "position_ids": positions, "attention_mask": _NO_MASK.to(device)},
        **{"use_cache": False, "tree": Tree(prompts, lengths, device, start)},
    }
    return Pass(inputs, *(torch.tensor(values, device=device) for values in (rows, targets)))


def _plain_passes(items: Sequence[EncodedItem], device: torch.device) -> Iterator[Pass]:
    """The same by one ordinary pass a response; the reference for the shared-prefix path."""
    for item in items:
        for response in item.response_ids.values():
            ids = torch.tensor([item.prompt_ids + response[:-1]], device=device)
            rows = slice(len(item.prompt_ids) - 1, None)
            targets = torch.tensor(response, device=device)
            yield Pass({"input_ids": ids, "use_cache": False}, rows, targets)


def passes(
    items: Sequence[EncodedItem], share: bool, start: Tree | None, device: torch.device
) -> list[Pass]:
    """The passes over a pack of items."""
    return [_shared_pass(items, device, start)] if share else [*_plain_passes(items, device)]


# transformers takes a mask of four dimensions as it is and builds none; the tree is what counts.
_NO_MASK = torch.ones(1, 1, 1, 1, dtype=torch.bool)


def common_length(items: Sequence[EncodedItem]) -> int:
    """How many tokens all prompts begin with, which are read once; 0 where that is of no use."""
    if len(items) < 2:
        return 0
    first, last = (pick(item.prompt_ids for item in items) for pick in (min, max))
    common = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    return min(common, len(min((item.prompt_ids for item in items), key=len)) - 1)


def start_pass(items: Sequence[EncodedItem], length: int, device: torch.device) -> Pass:
    """A pass over the first `length` tokens of all prompts, whose tree remembers them."""
    tree = Tree([length], [[]], device, remember=True)
    ids = torch.tensor([items[0].prompt_ids[:length]], device=device)
    inputs = {"input_ids": ids, "attention_mask": _NO_MASK.to(device), "use_cache": False}
    return Pass(inputs | {"tree": tree}, slice(0), ids[0, :0])


def _pack(
    items: Sequence[EncodedItem], device: torch.device, skip: int
) -> tuple[Int[Tensor, "1 length"], Int[Tensor, "1 length"]]:
    """Token ids and position ids of prompts without their first `skip` tokens, then of responses.

    The last token of a response predicts nothing and is left out.
    """
    ids: list[int] = []
    positions: list[int] = []
    for item in items:
        ids += item.prompt_ids[skip:]
        positions += range(skip, len(item.prompt_ids))
    for item in items:
        prompt = len(item.prompt_ids)
        for response in item.response_ids.values():
            ids += response[:-1]
            positions += range(prompt, prompt + len(response) - 1)
    return torch.tensor([ids], device=device), torch.tensor([positions], device=device)


def _tokens(item: EncodedItem) -> int:
    """The tokens of an item, or a share of the keys that they look at if those are many more."""
    prompt, responses = len(item.prompt_ids), [*map(len, item.response_ids.values())]
    tokens = prompt + sum(responses)
    return max(tokens, (tokens + prompt * len(responses)) // _KEYS)


def packs(items: Sequence[EncodedItem], device: torch.device) -> list[list[EncodedItem]]:
    """The items in order, as many at once as a pass is meant to hold, one at least."""
    limit = PACKED_TOKENS["cuda" if device.type == "cuda" else "cpu"]
    found: list[list[EncodedItem]] = []
    size = 0
    for item in items:
        if not found or size + _tokens(item) > limit:
            found.append([])
            size = 0
        found[-1].append(item)
        size += _tokens(item)
    return found
