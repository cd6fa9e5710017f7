"""Attention over prompts and many answers to each, packed into one row: each answer sees its own.

A mask over the pack would say the same, but pays for every pair of tokens; here each answer meets
its prompt and itself only. Keys and values of a beginning that all prompts share (a system message)
are computed once and kept. What is packed, and what is done with the result, is `scoring`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "squeeze_tree"


class _Blocks:
    """Stretches of a packed row, of the given lengths one after the other from `start` on.

    `index` [blocks, longest] says where each token stands, padded with another token's place;
    `valid` is false at the padding.
    """

    def __init__(self, start: int, lengths: Sequence[int], device: torch.device) -> None:
        self.longest = max(lengths, default=0)
        steps = torch.arange(self.longest, device=device)
        self.lengths = torch.tensor(list(lengths), dtype=torch.long, device=device)
        starts = start + self.lengths.cumsum(0) - self.lengths
        self.valid = steps < self.lengths[:, None]
        self.index = torch.where(self.valid, starts[:, None] + steps, 0)

    def of(self, states: Float[Tensor, "1 heads length width"]) -> Tensor:
        """The blocks' rows of keys, values or queries, [blocks, heads, longest, width]."""
        return states[0][:, self.index].transpose(0, 1)

    def back(self, found: Float[Tensor, "blocks heads longest width"]) -> Tensor:
        """Their tokens without the padding, as they stand in the row: [tokens, heads, width]."""
        return found.transpose(1, 2)[self.valid]


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
        past = before.length if before else 0
        flat = [length for lengths in answers for length in lengths]
        self.prompts = _Blocks(0, prompts, device)
        self.answers = _Blocks(self.length, flat, device)
        owners = [number for number, lengths in enumerate(answers) for _ in lengths]
        self.owner = torch.tensor(owners, dtype=torch.long, device=device)
        # Padding is at the end of a block, where no token of it looks; but answers look at prompts.
        self.prompt_mask = _causal(self.prompts.longest, past, device)
        shape = (len(flat), 1, self.answers.longest, -1)
        seen = torch.nn.functional.pad(self.prompts.valid, (past, 0), value=True)[self.owner]
        own = _causal(self.answers.longest, 0, device)
        self.answer_mask = torch.cat(
            [seen[:, None, None].expand(shape), own[None, None].expand(shape)], dim=-1
        )


def _causal(length: int, past: int, device: torch.device) -> Tensor:
    """Which of `past` + `length` keys each of the last `length` tokens sees."""
    ones = torch.ones(length, past + length, dtype=torch.bool, device=device)
    return ones.tril(diagonal=past)


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
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    prompt_key, prompt_value = tree.prompts.of(key), tree.prompts.of(value)
    if layer in tree.before:
        many = (len(prompt_key), -1, -1, -1)
        before = [x.repeat_interleave(groups, dim=1).expand(many) for x in tree.before[layer]]
        prompt_key = torch.cat([before[0].to(key.dtype), prompt_key], dim=2)
        prompt_value = torch.cat([before[1].to(value.dtype), prompt_value], dim=2)
    of_prompts = scaled_dot_product_attention(
        tree.prompts.of(query), prompt_key, prompt_value, attn_mask=tree.prompt_mask, scale=scaling
    )
    parts = [tree.prompts.back(of_prompts)]
    if tree.answers.longest:
        of_answers = scaled_dot_product_attention(
            tree.answers.of(query),
            torch.cat([prompt_key[tree.owner], tree.answers.of(key)], dim=2),
            torch.cat([prompt_value[tree.owner], tree.answers.of(value)], dim=2),
            attn_mask=tree.answer_mask,
            scale=scaling,
        )
        parts.append(tree.answers.back(of_answers))
    return torch.cat(parts)[None], None


def supports_tree(model: PreTrainedModel) -> bool:
    """Whether the model's attention can be exchanged for this one without another meaning."""
    return bool(
        getattr(model, "_supports_attention_backend", False)
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
