"""LD-DPO and WPO against TRL's own loss, in value and in every token's gradient."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from squeeze.losses import PairLogps, get_loss
from squeeze.losses.token_weights import beyond, wpo_weights
from tests.losses.trl_peer import configure, dpo_trainer

pytestmark = pytest.mark.cpu
LENGTHS = torch.tensor([[5], [2], [4], [3], [6], [1]])  # three chosen, then three rejected


class Tokens(nn.Module):
    """Stands where the model is and returns given token log-probs and log Σ π²."""

    def __init__(self, logps: Tensor, log_sum_sq: Tensor) -> None:
        super().__init__()
        self.logps, self.log_sum_sq = logps, log_sum_sq

    def forward(self, **_: Any) -> SimpleNamespace:
        zeros = torch.zeros_like(self.logps.detach())
        return SimpleNamespace(
            log_probs=self.logps,
            log_sum_sq_probs=self.log_sum_sq,
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros.bool(),
        )


@pytest.fixture
def tokens() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Policy and reference token log-probs, log Σ π², and the mask: 0 outside the responses."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(6) < LENGTHS
    drawn = torch.rand(3, 6, 6, generator=generator, dtype=torch.float64) * -2
    policy, reference, squares = drawn * mask
    return policy.requires_grad_(), reference, squares, mask


def theirs(
    policy: Tensor, reference: Tensor, squares: Tensor, mask: Tensor, **settings: Any
) -> Any:
    """TRL's sigmoid loss at β = 0.3 with an attribute of its trainer set for the while."""
    trainer = configure(dpo_trainer(), ["sigmoid"], beta=0.3)
    before = {name: getattr(trainer, name) for name in settings}
    before["ref_model"] = trainer.ref_model
    for name, value in {**settings, "ref_model": Tokens(reference, squares)}.items():
        setattr(trainer, name, value)
    ones = torch.ones(6, 7, dtype=torch.long)
    batch = {
        "input_ids": ones,
        "attention_mask": ones,
        "completion_mask": torch.cat([torch.zeros(6, 1), mask], 1).long(),
    }
    try:
        # a model's log-probs are 0, and without slope, outside the responses
        fed = Tokens(policy * mask, squares)
        return trainer._compute_loss(fed, batch, return_outputs=False)
    finally:
        for name, value in before.items():
            setattr(trainer, name, value)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_ld_dpo_is_trls_ld_alpha_and_a_token_beyond_the_shorter_length_gets_alpha_times(
    tokens: Any, alpha: float
) -> None:
    policy, reference, squares, mask = tokens
    late = beyond(mask, torch.minimum(LENGTHS[:3, 0], LENGTHS[3:, 0]).repeat(2))
    ratios = [each.sum(-1).chunk(2) for each in (policy, reference, late * (policy - reference))]
    logps = PairLogps(*ratios[0], *ratios[1], margin_beyond=ratios[2][0] - ratios[2][1])
    loss = get_loss("ld_dpo")
    value = theirs(policy, reference, squares, mask, ld_alpha=alpha)
    torch.testing.assert_close(loss(logps, beta=0.3, ld_alpha=alpha).mean(), value)
    (slope,) = torch.autograd.grad(value, policy)
    residual = torch.cat(loss.residuals(logps, beta=0.3, ld_alpha=alpha))[:, None] / 3
    torch.testing.assert_close(slope, (residual * mask * torch.where(late, alpha, 1.0)).detach())


def test_wpo_is_trls_use_weighting_in_value_and_gradient(tokens: Any) -> None:
    policy, reference, squares, mask = tokens
    halves = [each.chunk(2) for each in (policy, squares, mask)]
    weight = wpo_weights(*(half[0] for half in halves), *(half[1] for half in halves))
    logps = PairLogps(*policy.sum(-1).chunk(2), *reference.sum(-1).chunk(2), pair_weight=weight)
    loss = get_loss("wpo")
    value = theirs(policy, reference, squares, mask, use_weighting=True)
    torch.testing.assert_close(loss(logps, beta=0.3).mean(), value)
    (slope,) = torch.autograd.grad(value, policy)
    residual = torch.cat(loss.residuals(logps, beta=0.3))[:, None] / 3
    torch.testing.assert_close(slope, (residual * mask).detach())
