"""Attention over a prompt and many answers to it, packed into one row: each answer sees its own.

A mask over the pack would say the same, but pays for every pair of tokens; here each answer meets
the prompt and itself only. Keys and values of a beginning that all prompts share (a system message)
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


class Tree:
    """A packed row: `prompt` tokens, then answers of the given lengths; built for one device.

    `before` holds keys and values, by layer, of the tokens that stand before this row's first. The
    tree collects the row's own in `seen` if `remember` is set.
    """

    def __init__(
        self,
        prompt: int,
        answers: Sequence[int],
        device: torch.device,
        before: Tree | None = None,
        *,
        remember: bool = False,
    ) -> None:
        self.prompt = prompt
        self.remember = remember
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        self.before = before.seen if before else {}
        past = before.prompt if before else 0
        longest = max(answers, default=0)
        steps = torch.arange(longest, device=device)
        lengths = torch.tensor(list(answers), dtype=torch.long, device=device)
        starts = prompt + lengths.cumsum(0) - lengths
        # [answers, longest]: where each token of each answer stands; the padding repeats a token.
        self.valid = steps < lengths[:, None]
        self.index = torch.where(self.valid, starts[:, None] + steps, 0)
        self.prompt_mask = _causal(prompt, past, device)
        # Padding is at the end, where no token of the answer looks.
        self.answer_mask = _causal(longest, past + prompt, device)


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
    prompt_key, prompt_value = key[:, :, : tree.prompt], value[:, :, : tree.prompt]
    if layer in tree.before:
        before = [x.repeat_interleave(groups, dim=1) for x in tree.before[layer]]
        prompt_key = torch.cat([before[0].to(key.dtype), prompt_key], dim=2)
        prompt_value = torch.cat([before[1].to(value.dtype), prompt_value], dim=2)
    of_prompt = scaled_dot_product_attention(
        query[:, :, : tree.prompt],
        prompt_key,
        prompt_value,
        attn_mask=tree.prompt_mask,
        scale=scaling,
    )
    parts = [of_prompt[0].transpose(0, 1)]
    if tree.index.numel():
        q, k, v = (x[0][:, tree.index].transpose(0, 1) for x in (query, key, value))
        many = (len(tree.index), -1, -1, -1)
        found = scaled_dot_product_attention(
            q,
            torch.cat([prompt_key.expand(many), k], dim=2),
            torch.cat([prompt_value.expand(many), v], dim=2),
            attn_mask=tree.answer_mask,
            scale=scaling,
        )
        parts.append(found.transpose(1, 2)[tree.valid])
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
