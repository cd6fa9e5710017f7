"""Losses of ranked groups: several responses to one prompt, best first, packed one after another.

`cu_lengths` (cumulative lengths) holds the group offsets: group g is responses
`cu_lengths[g]:cu_lengths[g + 1]`. Every better/worse pair of a group gives one term of any
registered pairwise loss; a group's loss is the mean over its pairs, so that a group of two is the
one-pair loss and a long group weighs no more than a short one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from squeeze.errors import InputError
from squeeze.losses.registry import get_loss
from squeeze.theory.logps import PairLogps

Against = Literal["all", "best"]
IGNORE_INDEX = -100


def sequence_logps(
    logits: Float[Tensor, "sequences tokens vocab"], labels: Int[Tensor, "sequences tokens"]
) -> tuple[Float[Tensor, " sequences"], Int[Tensor, " sequences"]]:
    """Return each response's log-prob, summed over its tokens, and its number of tokens.

    `labels` are the input ids with prompt and padding set to −100; position t of `logits` predicts
    label t + 1. Raises `InputError` naming a sequence without a response token.
    """
    target = labels[:, 1:]
    lengths = (target != IGNORE_INDEX).sum(-1)
    if (lengths == 0).any():
        row = int((lengths == 0).nonzero()[0])
        raise InputError(f"sequence {row} has no response token; its labels are all {IGNORE_INDEX}")
    nll = cross_entropy(
        logits[:, :-1].transpose(1, 2), target, ignore_index=IGNORE_INDEX, reduction="none"
    )
    return -nll.sum(-1), lengths


def ranked_pairs(
    cu_lengths: Int[Tensor, " offsets"], n_responses: int, *, against: Against = "all"
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Return (better, worse, group) indices of every pair: i before j in the same group.

    `against="best"` keeps only the pairs of each group's first response: one good, many bad.
    Raises `InputError` for offsets that do not cover the responses, or a group of one.
    """
    offsets = cu_lengths.tolist()
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != n_responses:
        raise InputError(
            f"cu_lengths must run from 0 to the number of responses, {n_responses}; it is {offsets}"
        )
    better, worse, group = [], [], []
    for g, (start, end) in enumerate(pairwise(offsets)):
        if end - start < 2:
            raise InputError(
                f"group {g} of cu_lengths has {end - start} responses; a pair needs two, drop it"
            )
        for i in range(start, end if against == "all" else start + 1):
            for j in range(i + 1, end):
                better.append(i)
                worse.append(j)
                group.append(g)
    index = torch.tensor([better, worse, group], device=cu_lengths.device)
    return index[0], index[1], index[2]


def packed_loss(
    policy: Float[Tensor, " responses"],
    reference: Float[Tensor, " _"] | None,
    cu_lengths: Int[Tensor, " offsets"],
    *,
    loss: str = "sigmoid",
    lengths: Int[Tensor, " _"] | None = None,
    against: Against = "all",
    **hyper: Any,
) -> Float[Tensor, " groups"]:
    """Return each group's loss: the mean over its better/worse pairs; train on the mean of these.

    `policy` and `reference` are sequence log-probs of all responses, packed; `lengths` their token
    counts, for losses that ask. With groups of two it is the pairwise `loss` itself.
    Raises `InputError` as `ranked_pairs` and `get_loss` do, and when there are not as many
    reference log-probs or lengths as responses.
    Source: Rafailov et al. 2023, arXiv 2305.18290, Eq. 7, applied to all pairs of a ranking.
    """
    for name, values in (("reference", reference), ("lengths", lengths)):
        if values is not None and len(values) != len(policy):
            raise InputError(f"{name} has {len(values)} values for {len(policy)} responses")
    better, worse, group = ranked_pairs(cu_lengths, len(policy), against=against)
    pairs = PairLogps(
        chosen=policy[better],
        rejected=policy[worse],
        ref_chosen=None if reference is None else reference[better],
        ref_rejected=None if reference is None else reference[worse],
        chosen_length=None if lengths is None else lengths[better],
        rejected_length=None if lengths is None else lengths[worse],
    )
    terms = get_loss(loss)(pairs, **hyper)
    totals = torch.zeros(len(cu_lengths) - 1, dtype=terms.dtype, device=terms.device)
    return totals.index_add(0, group, terms) / torch.bincount(group)
