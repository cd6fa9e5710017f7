"""One row of numbers a preference pair, from one forward pass of the untrained model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.data.encoding import EncodedItem
from squeeze.data.probe_set import CHOSEN, REJECTED
from squeeze.errors import InputError
from squeeze.kernels import token_statistics
from squeeze.kernels.inputs import LogitTransform
from squeeze.scan.ches import ches, evaluating
from squeeze.scan.distance import edit_distance
from squeeze.scoring import hidden_states, lm_head
from squeeze.theory.softmax import squeezing_threshold

_POSITIONS = 64  # whose [positions, vocab] logits are held at once


@dataclass(frozen=True)
class ScanRow:
    """What is known of one pair before training; log-probs in nats, shares from 0 to 1.

    `rejected_peakiness` is the mean of ‖π‖² over the positions of the rejected answer. The last
    three are what claim SM-4 says of a negative gradient at those positions:
    `positions_none_fall` is the share of them with π(y−) ≥ ‖π‖², where no other label falls;
    `labels_falling` the share of the vocabulary below the threshold ‖π‖² − π(y−), which falls, and
    `mass_falling` the probability those labels hold, both as means over the positions.
    """

    example: str
    ches: float
    normalised_ches: float
    edit_distance: float
    chosen_tokens: int
    rejected_tokens: int
    chosen_logp: float
    rejected_logp: float
    chosen_mean_logp: float
    rejected_mean_logp: float
    rejected_peakiness: float
    positions_none_fall: float
    labels_falling: float
    mass_falling: float


def scan(
    model: torch.nn.Module, items: Sequence[EncodedItem], *, dtype: torch.dtype | None = None
) -> Iterator[ScanRow]:
    """Yield the row of each item (with a chosen and a rejected answer), in order.

    `dtype` runs the model's body under autocast; it is put in eval mode and back. Raises
    `InputError` naming the example where the model's numbers are not finite.

    >>> from squeeze import scan_pairs
    >>> from squeeze.models import load
    >>> from squeeze.data.encoding import EncodedItem
    >>> model, tokenizer = load(directory)
    >>> item = EncodedItem("a", "train", tokenizer("2 + 2 =").input_ids, {
    ...     "chosen": tokenizer(" 4").input_ids, "rejected": tokenizer(" 5!").input_ids})
    >>> (row,) = scan_pairs(model, [item])
    >>> row.example, 0 <= row.edit_distance <= 1, row.chosen_logp < 0
    ('a', True, True)
    """
    head = lm_head(model)
    with evaluating(model):
        for item in items:
            yield _row(model, item, head, dtype)


@torch.no_grad()
def _row(
    model: torch.nn.Module, item: EncodedItem, head: dict[str, Any], dtype: torch.dtype | None
) -> ScanRow:
    states = hidden_states(model, item, dtype=dtype)
    similarity, normalised = ches(states[CHOSEN], states[REJECTED])
    chosen, rejected = (item.response_ids[kind] for kind in (CHOSEN, REJECTED))
    hidden = torch.cat([states[CHOSEN], states[REJECTED]]).to(head["head"].dtype)
    targets = torch.tensor([*chosen, *rejected], device=hidden.device)
    statistics = token_statistics(targets, hidden=hidden, **head)
    chosen_logp, rejected_logp = statistics.target_logp.double().split((len(chosen), len(rejected)))
    if not bool(statistics.target_logp.isfinite().all()):
        raise InputError(
            f"example {item.example!r}: the model gives a log-prob that is not finite; check its "
            "weights for NaN, or use --dtype float32"
        )
    behind = slice(len(chosen), None)
    none_fall, labels, mass = falling(hidden[behind], targets[behind], head)
    return ScanRow(
        example=item.example,
        ches=similarity,
        normalised_ches=normalised,
        edit_distance=edit_distance(chosen, rejected),
        chosen_tokens=len(chosen),
        rejected_tokens=len(rejected),
        chosen_logp=float(chosen_logp.sum()),
        rejected_logp=float(rejected_logp.sum()),
        chosen_mean_logp=float(chosen_logp.mean()),
        rejected_mean_logp=float(rejected_logp.mean()),
        rejected_peakiness=float(statistics.peakiness[behind].double().mean()),
        positions_none_fall=none_fall,
        labels_falling=labels,
        mass_falling=mass,
    )


@torch.no_grad()
def falling(
    hidden: Float[Tensor, "tokens hidden"],
    labels: Int[Tensor, " tokens"],
    head: dict[str, Any],
) -> tuple[float, float, float]:
    """Return `positions_none_fall`, `labels_falling` and `mass_falling` of `ScanRow` (claim SM-4).

    `head` is `lm_head`'s.
    """
    none_fall = shares = mass = 0.0
    for states, label in zip(hidden.split(_POSITIONS), labels.split(_POSITIONS), strict=True):
        logits = (states @ head["head"].T).float()
        if head["bias"] is not None:
            logits += head["bias"].float()
        logits = LogitTransform(head["softcap"]).apply_(logits)
        probs, threshold = logits.softmax(-1), squeezing_threshold(logits, label)
        falls = probs < threshold[:, None]
        falls.scatter_(-1, label[:, None], False)  # the rejected label itself is meant to fall
        none_fall += float((threshold <= 0).sum())
        shares += float(falls.double().mean(-1).sum())
        mass += float((probs * falls).double().sum())
    return none_fall / len(labels), shares / len(labels), mass / len(labels)
