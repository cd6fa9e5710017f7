"""Attention over prompts and many answers to each, packed into one row: each answer sees its own.

A mask over the pack would say the same, but pays for every pair of tokens; here each answer meets
its prompt and itself only, beside answers of like length, and no layer waits for the device. Keys
and values of a beginning that all prompts share (a system message) are computed once and kept. What
is packed, and what is done with the result, is `packing`'s and `scoring`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "squeeze_tree"


@dataclass(frozen=True)
class _Block:
    """A prompt or an answer: where its tokens stand, and where the prompt that it answers does."""

    start: int
    length: int
    prompt_start: int = 0
    prompt_length: int = 0


class _Group:
    """Blocks of like lengths, whose attention is one product.

    `queries` [blocks, longest] and `keys` [blocks, seen] say where in the row (and in what stands
    before it) they are, padded with the first place; `mask` [blocks, 1, longest, seen] is false at
    padded keys. Padded queries see the keys of another token, and are not read.
    """

    def __init__(self, blocks: Sequence[_Block], past: int, device: torch.device) -> None:
        own, of_prompt = (
            _Places([(getattr(b, start), getattr(b, length)) for b in blocks])
            for start, length in (("start", "length"), ("prompt_start", "prompt_length"))
        )
        n, longest = own.index.shape
        before = torch.arange(past).expand(n, -1)
        keys = torch.cat([before, past + of_prompt.index, past + own.index], dim=1)
        seen = torch.nn.functional.pad(of_prompt.valid, (past, 0), value=True)
        causal = torch.ones(longest, longest, dtype=torch.bool).tril()
        shape = (n, longest, -1)
        mask = torch.cat([seen[:, None].expand(shape), causal.expand(shape)], dim=2)
        self.queries, self.keys = own.index.to(device), keys.to(device)
        self.mask = mask[:, None].to(device)
        self.own = own  # on the host


class _Places:
    """Stretches of a row as one table of places, padded with the first place of the row."""

    def __init__(self, stretches: Sequence[tuple[int, int]]) -> None:
        starts, lengths = torch.tensor(stretches).T
        steps = torch.arange(int(lengths.max()))
        self.valid = steps < lengths[:, None]
        self.index = torch.where(self.valid, starts[:, None] + steps, 0)


def _alike(blocks: Sequence[_Block], length: Callable[[_Block], int]) -> Iterator[list[_Block]]:
    """The blocks, longest first, in lists whose longest is at most twice as long as any other."""
    group: list[_Block] = []
    for block in sorted(blocks, key=length, reverse=True):
        if group and 2 * length(block) < length(group[0]):
            yield group
            group = []
        group.append(block)
    if group:
        yield group


class Tree:
    """A packed row: prompts of the given lengths, then the answers to the first, and so on.

    `answers` holds the lengths of each prompt's answers. `before` holds keys and values, by layer,
    of the tokens that stand before every prompt. The tree collects the row's own in `seen` if
    `remember` is set.
    """

    def __init__(
        self,
        prompts: Sequence[int],
        answers: Sequence[Sequence[int]],
        device: torch.device,
        before: Tree | None = None,
        *,
        remember: bool = False,
    ) -> None:
        self.length = sum(prompts)
        self.remember = remember
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        self.before = before.seen if before else {}
        starts = accumulate(prompts, initial=0)
        blocks = [_Block(start, length) for start, length in zip(starts, prompts, strict=False)]
        end = self.length
        for owner, lengths in zip(blocks.copy(), answers, strict=True):
            for length in lengths:
                blocks.append(_Block(end, length, owner.start, owner.length))
                end += length
        some = [block for block in blocks if block.length]
        # An answer is padded to at most twice its length, and so is the prompt that it looks at.
        self.groups = [
            _Group(group, before.length if before else 0, device)
            for like_prompts in _alike(some, lambda b: b.prompt_length)
            for group in _alike(like_prompts, lambda b: b.length)
        ]
        # Where in the groups' padded products, one after the other, each token's stands.
        order = torch.zeros(end, dtype=torch.long)
        first = 0
        for group in self.groups:
            places = first + torch.arange(group.own.valid.numel()).view_as(group.own.valid)
            order[group.own.index[group.own.valid]] = places[group.own.valid]
            first += group.own.valid.numel()
        self.order = order.to(device)


def _tree_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "1 heads length width"],
    key: Float[Tensor, "1 kv_heads length width"],
    value: Float[Tensor, "1 kv_heads length value_width"],
    attention_mask: Tensor | None,
    *,
    tree: Tree,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "1 length heads value_width"], None]:
    """One layer's attention for `transformers`' AttentionInterface."""
    layer: Any = module.layer_idx
    if tree.remember:
        tree.seen[layer] = (key, value)
    if layer in tree.before:
        pairs = zip(tree.before[layer], (key, value), strict=True)
        key, value = (torch.cat([past.to(own.dtype), own], dim=2) for past, own in pairs)
    heads = query.shape[1] // key.shape[1]
    keys, values = (x[0].repeat_interleave(heads, dim=0) for x in (key, value))
    parts = []
    for group in tree.groups:
        found = scaled_dot_product_attention(
            query[0][:, group.queries].transpose(0, 1),
            keys[:, group.keys].transpose(0, 1),
            values[:, group.keys].transpose(0, 1),
            attn_mask=group.mask,
            scale=scaling,
        )
        parts.append(found.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)[tree.order][None], None


def supports_tree(model: PreTrainedModel) -> bool:
    """Whether the model's attention can be exchanged for this one without another meaning."""
    return bool(
        getattr(model, "is_backend_compatible", bool)()
        and model.config.get_text_config()._attn_implementation == "sdpa"
    )


@contextmanager
def tree_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model's forward takes `tree=` and attends by it."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _tree_attention)
    config = model.config.get_text_config()
    usual = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual
