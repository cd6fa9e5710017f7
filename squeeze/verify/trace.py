"""Traces of a trainer's model: the tokens that it reads, and those that carry its loss.

The last hidden state at position p does nothing but predict token p + 1, so the loss's derivative
by it is 0 exactly where that token carries no loss. No mask, label or batch layout of the trainer
is believed for this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from squeeze.verify.types import DoesNotApply


@dataclass(frozen=True)
class Sequence:
    """One sequence that the model read: its ids without padding, whether each token carries loss.

    `padding_carries` counts tokens of padding that do.
    """

    ids: tuple[int, ...]
    carries: tuple[bool, ...]
    padding_carries: int = 0


@dataclass
class Forward:
    """A pass with gradient: what went in and the hidden states that came out."""

    input_ids: Tensor
    attention_mask: Tensor | None
    hidden: Tensor


@contextmanager
def forwards(model: Any) -> Iterator[list[Forward]]:
    """Within it, every pass of the model's trunk that has a gradient is recorded, in order."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    seen: list[Forward] = []

    def record(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        hidden = output.last_hidden_state
        ids = kwargs.get("input_ids", args[0] if args else None)
        if hidden.requires_grad and ids is not None:
            hidden.retain_grad()
            seen.append(Forward(ids, kwargs.get("attention_mask"), hidden))

    hook = inner.base_model.register_forward_hook(record, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def sequences(passes: list[Forward]) -> list[Sequence]:
    """The sequences of recorded passes, once the loss was differentiated.

    Raises `DoesNotApply` for a trainer that does not call the model, or packs sequences into one.
    """
    if not passes:
        raise DoesNotApply("no pass of the model with a gradient was seen")
    found = []
    for one in passes:
        grad = one.hidden.grad
        size = torch.zeros(one.hidden.shape[:2]) if grad is None else grad.abs().amax(-1).cpu()
        mask = one.attention_mask
        if mask is not None and mask.dim() != 2:
            raise DoesNotApply("the trainer gives attention masks of its own, several to a row")
        for row, ids in enumerate(one.input_ids.cpu()):
            kept = torch.ones_like(ids).bool() if mask is None else mask[row].cpu().bool()
            carries = torch.cat([torch.zeros(1), size[row, :-1]]) > 0
            own = carries[kept].tolist()
            outside = int(carries[~kept].sum())
            found.append(Sequence(tuple(ids[kept].tolist()), tuple(own), outside))
    return found


def without_padding(seen: Sequence, ids: tuple[int, ...], pad_id: int | None) -> Sequence:
    """A sequence that is `ids` with padding around it which no mask hides, without the padding.

    Which loss depends on padding is asked elsewhere; any other sequence is returned as it is.
    """
    for start in range(len(seen.ids) - len(ids) + 1):
        stop = start + len(ids)
        around = seen.ids[:start] + seen.ids[stop:]
        if around and seen.ids[start:stop] == ids and set(around) == {pad_id}:
            carried = sum(seen.carries[:start]) + sum(seen.carries[stop:])
            return Sequence(ids, seen.carries[start:stop], seen.padding_carries + carried)
    return seen
