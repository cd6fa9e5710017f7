"""Log-probs and lengths of a batch of pairs: all that a preference loss sees.

Losses (`squeeze.losses`) and their residuals (`squeeze.theory.residuals`) are functions of this
one type. Computing log-probs from a model is not this module's work (`squeeze.scoring`, TRL).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from squeeze.errors import InputError


@dataclass(frozen=True)
class PairLogps:
    """Sequence log-probs of a batch of (chosen, rejected) pairs: sums over response tokens, nats.

    `chosen` and `rejected` are the policy's s+ and s−, `ref_chosen` and `ref_rejected` the
    reference's (None for reference-free use), the lengths count response tokens (None where no
    loss asks). `rejected_token_logps`, padded, with `rejected_mask` true at response tokens, serves
    gates that look at single tokens. `margin_beyond` is the part of `margin` from the tokens beyond
    the pair's shorter length, `pair_weight` how on-policy a pair is; their makers are
    `squeeze.losses.token_weights`. Any float dtype; the lengths are integers.
    """

    chosen: Float[Tensor, " batch"]
    rejected: Float[Tensor, " batch"]
    ref_chosen: Float[Tensor, " batch"] | None = None
    ref_rejected: Float[Tensor, " batch"] | None = None
    chosen_length: Int[Tensor, " batch"] | None = None
    rejected_length: Int[Tensor, " batch"] | None = None
    rejected_token_logps: Float[Tensor, "batch tokens"] | None = None
    rejected_mask: Bool[Tensor, "batch tokens"] | None = None
    margin_beyond: Float[Tensor, " batch"] | None = None
    pair_weight: Float[Tensor, " batch"] | None = None

    @property
    def chosen_logratio(self) -> Float[Tensor, " batch"]:
        """Δ+ = s+ − s+_ref; raises `InputError` without reference log-probs."""
        return self.chosen - _given(self.ref_chosen, "ref_chosen")

    @property
    def rejected_logratio(self) -> Float[Tensor, " batch"]:
        """Δ− = s− − s−_ref; raises `InputError` without reference log-probs."""
        return self.rejected - _given(self.ref_rejected, "ref_rejected")

    @property
    def margin(self) -> Float[Tensor, " batch"]:
        """m = Δ+ − Δ−, DPO's reward margin divided by β (Rafailov et al. 2023, Eq. 7)."""
        return self.chosen_logratio - self.rejected_logratio

    def desensitized_margin(self, ld_alpha: float) -> Float[Tensor, " batch"]:
        """m with the tokens beyond the pair's shorter length times α (LD-DPO, arXiv 2409.06411)."""
        return self.margin - (1 - ld_alpha) * _given(self.margin_beyond, "margin_beyond")

    @property
    def weight(self) -> Float[Tensor, " batch"]:
        """WPO's weight of each pair; raises `InputError` if it was not given."""
        return _given(self.pair_weight, "pair_weight")

    @property
    def n_chosen_tokens(self) -> Int[Tensor, " batch"]:
        """|y+|; raises `InputError` if the lengths were not given."""
        return _given(self.chosen_length, "chosen_length")

    @property
    def n_rejected_tokens(self) -> Int[Tensor, " batch"]:
        """|y−|; raises `InputError` if the lengths were not given."""
        return _given(self.rejected_length, "rejected_length")


def _given(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise InputError(f"this loss needs PairLogps.{name}, which was not given; pass it")
    return value


def nll_weights(logps: PairLogps, normalization: str) -> Float[Tensor, " batch"]:
    """Return w in the SFT term −w·s+, one value a pair.

    "sequence": 1, the sequence's own log-prob. "token": 1/|y+|, each response's mean over its
    tokens (LLaMA-Factory's `pref_ftx`). "batch": B/Σ|y+|, so that the mean over pairs is the mean
    over all chosen tokens of the batch (TRL's loss_type "sft"; it weighs long answers more).
    Raises `InputError` for another word.
    """
    if normalization == "sequence":
        return torch.ones_like(logps.chosen)
    if normalization == "token":
        return 1 / logps.n_chosen_tokens.to(logps.chosen)
    if normalization == "batch":
        lengths = logps.n_chosen_tokens.to(logps.chosen)
        return torch.full_like(logps.chosen, len(lengths)) / lengths.sum()
    raise InputError(f"unknown normalization {normalization!r}; use 'sequence', 'token' or 'batch'")
