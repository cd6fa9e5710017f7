"""Online softmax statistics: fold tiles of logits into running sums, then finish.

For each row, relative to the running maximum m, three sums are kept:

    s = Σ e^{z−m},    w = Σ (z−m) e^{z−m},    q = Σ e^{2(z−m)}.

The statistics follow without cancellation, because each is a sum of terms of one sign:

    log-sum-exp      m + log s
    log p(argmax)    −log s                      (s ≥ 1, so log s ≥ 0)
    log p(target)    (z_target − m) − log s      (both terms ≤ 0)
    entropy          log s + (−w/s)              (both terms ≥ 0)
    ‖π‖²             q / s²

The textbook entropy lse − Σ z e^{z−m}/s subtracts two numbers of size |z|: at logits of ±1e4 it
loses 1e4 · 2⁻²⁴ ≈ 6e-4 nats in float32. A new maximum m' rescales with d = m − m' ≤ 0:

    s ← e^d s,    w ← e^d (w + d s),    q ← e^{2d} q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.kernels.inputs import IDENTITY, LogitTransform
from squeeze.kernels.statistics import TokenStatistics

# e^x is exactly 0 below this in float32 and float64, so clamping z − m here changes no sum; it
# keeps (−inf)·0 = NaN out of w.
EXPONENT_FLOOR = -1000.0


@dataclass(frozen=True)
class OnlineState:
    """Running sums of T rows; `fold` functions update them in place."""

    maximum: Float[Tensor, " tokens"]
    argmax_token: Int[Tensor, " tokens"]
    sum_exp: Float[Tensor, " tokens"]
    sum_shifted_exp: Float[Tensor, " tokens"]
    sum_square_exp: Float[Tensor, " tokens"]
    target_logit: Float[Tensor, " tokens"]
    topk_logits: Float[Tensor, "tokens k"]
    topk_tokens: Int[Tensor, "tokens k"]

    @classmethod
    def empty(
        cls, n_tokens: int, top_k: int, dtype: torch.dtype, device: torch.device
    ) -> OnlineState:
        """Return the state before the first tile."""
        low = torch.full((n_tokens,), float("-inf"), dtype=dtype, device=device)
        zero = torch.zeros((n_tokens,), dtype=torch.int64, device=device)
        return cls(
            maximum=low,
            argmax_token=zero,
            sum_exp=torch.zeros_like(low),
            sum_shifted_exp=torch.zeros_like(low),
            sum_square_exp=torch.zeros_like(low),
            target_logit=low.clone(),
            topk_logits=low.new_full((n_tokens, top_k), float("-inf")),
            topk_tokens=zero.new_zeros((n_tokens, top_k)),
        )

    def rows(self, start: int, stop: int) -> OnlineState:
        """Return views of rows start to stop; folding into them folds into this state."""
        return OnlineState(*(getattr(self, name)[start:stop] for name in self.__dataclass_fields__))

    def finish(self) -> TokenStatistics:
        """Turn the running sums into statistics."""
        log_sum = self.sum_exp.log()
        has_topk = self.topk_logits.shape[1] > 0
        shifted_topk = self.topk_logits - self.maximum.unsqueeze(-1)
        return TokenStatistics(
            target_logp=(self.target_logit - self.maximum) - log_sum,
            argmax_token=self.argmax_token,
            # maximum − maximum is 0, or NaN where the row has no distribution
            argmax_logp=(self.maximum - self.maximum) - log_sum,
            logsumexp=self.maximum + log_sum,
            entropy=log_sum - self.sum_shifted_exp / self.sum_exp,
            peakiness=self.sum_square_exp / self.sum_exp.square(),
            topk_tokens=self.topk_tokens if has_topk else None,
            topk_logps=shifted_topk - log_sum.unsqueeze(-1) if has_topk else None,
        )


@dataclass(frozen=True)
class Tile:
    """A tile of raw logits, and what is still to be done to them: pick rows, add bias, transform.

    Row i of the state belongs to row `rows[i]` of `values` (to row i where `rows` is None).
    """

    values: Float[Tensor, "source_rows columns"]
    first_column: int
    transform: LogitTransform = IDENTITY
    bias: Float[Tensor, " columns"] | None = None
    rows: Int[Tensor, " tokens"] | None = None

    def prepared(self, dtype: torch.dtype) -> Tile:
        """Return the finished logits as a new contiguous tile; the values here stay as they are."""
        values = self.values if self.rows is None else self.values[self.rows]
        values = values.to(dtype, copy=True, memory_format=torch.contiguous_format)
        if self.bias is not None:
            values.add_(self.bias)
        return Tile(self.transform.apply_(values), self.first_column)


@runtime_checkable
class Fold(Protocol):
    """Fold one tile into the state of its rows, in place.

    A fold that `streams` reads each logit once, straight from where it lies, and leaves it alone;
    one that doesn't works on a copy and wants tiles that fit the cache.
    """

    streams: bool

    def __call__(self, tile: Tile, targets: Int[Tensor, " tokens"], state: OnlineState) -> None: ...


class EagerFold:
    """Fold with plain torch operations: any device, any dtype; needs two copies of the tile."""

    streams = False

    def __call__(self, tile: Tile, targets: Int[Tensor, " tokens"], state: OnlineState) -> None:
        """Fold `tile` into `state` in place; see `Fold`."""
        logits = tile.prepared(state.maximum.dtype).values
        _fold_targets(logits, targets - tile.first_column, state)
        tile_maximum, tile_argmax = logits.max(dim=-1)
        maximum = torch.maximum(state.maximum, tile_maximum)
        higher = tile_maximum > state.maximum
        state.argmax_token.copy_(
            torch.where(higher, tile_argmax + tile.first_column, state.argmax_token)
        )
        # While a row has seen only −inf, shift by 0: the sums then stay 0 instead of turning NaN.
        shift = maximum.masked_fill(maximum == float("-inf"), 0.0)
        decay_exponent = (state.maximum - shift).clamp_(min=EXPONENT_FLOOR)
        decay = decay_exponent.exp()
        shifted = logits.sub_(shift.unsqueeze(-1)).clamp_(min=EXPONENT_FLOOR)
        exponential = shifted.exp()
        shifted.mul_(exponential)
        state.sum_shifted_exp.add_(decay_exponent * state.sum_exp).mul_(decay)
        state.sum_shifted_exp.add_(shifted.sum(-1))
        state.sum_exp.mul_(decay).add_(exponential.sum(-1))
        state.sum_square_exp.mul_(decay.square()).add_(exponential.square_().sum(-1))
        state.maximum.copy_(maximum)


def _fold_targets(
    logits: Float[Tensor, "tokens columns"], local: Int[Tensor, " tokens"], state: OnlineState
) -> None:
    """Pick up the target's logit in the rows whose target lies in this tile."""
    inside = (local >= 0) & (local < logits.shape[1])
    picked = logits.gather(-1, local.clamp(0, logits.shape[1] - 1).unsqueeze(-1)).squeeze(-1)
    state.target_logit.copy_(torch.where(inside, picked, state.target_logit))


def fold_topk(tile: Tile, state: OnlineState) -> None:
    """Keep the k largest logits seen so far; `tile` must be a prepared one."""
    k = state.topk_logits.shape[1]
    best = tile.values.topk(min(k, tile.values.shape[1]), dim=-1)
    logits = torch.cat([state.topk_logits, best.values], dim=-1)
    tokens = torch.cat([state.topk_tokens, best.indices + tile.first_column], dim=-1)
    kept = logits.topk(k, dim=-1)
    state.topk_logits.copy_(kept.values)
    state.topk_tokens.copy_(tokens.gather(-1, kept.indices))
