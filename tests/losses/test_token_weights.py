"""`ld_alpha` and WPO's weights against TRL's own loss, in value and in every token's gradient."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from squeeze.errors import InputError
from squeeze.losses import PairLogps, get_loss
from squeeze.losses.token_weights import ld_weights, wpo_weights
from squeeze.theory import residuals
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
def test_ld_alpha_equals_trls_and_its_weights_are_the_tokens_gradients(
    tokens: Any, alpha: float
) -> None:
    policy, reference, squares, mask = tokens
    shared = torch.minimum(LENGTHS[:3, 0], LENGTHS[3:, 0]).repeat(2)
    weights = ld_weights(mask, shared, alpha)
    sums = [(weights * each).sum(-1).chunk(2) for each in (policy, reference)]
    logps = PairLogps(*sums[0], *sums[1])
    ours = get_loss("sigmoid")(logps, beta=0.3).mean()
    value = theirs(policy, reference, squares, mask, ld_alpha=alpha)
    torch.testing.assert_close(ours, value)
    (slope,) = torch.autograd.grad(value, policy)
    formula = torch.cat(residuals.dpo(logps, beta=0.3))[:, None] * weights / 3
    torch.testing.assert_close(slope, formula.detach())


def test_wpo_weight_equals_trls_and_only_scales_the_gradient(tokens: Any) -> None:
    policy, reference, squares, mask = tokens
    halves = [each.chunk(2) for each in (policy, squares, mask)]
    weights = wpo_weights(*(half[0] for half in halves), *(half[1] for half in halves))
    logps = PairLogps(*policy.sum(-1).chunk(2), *reference.sum(-1).chunk(2))
    ours = (weights * get_loss("sigmoid")(logps, beta=0.3)).mean()
    value = theirs(policy, reference, squares, mask, use_weighting=True)
    torch.testing.assert_close(ours, value)
    (slope,) = torch.autograd.grad(value, policy)
    formula = torch.cat(residuals.dpo(logps, beta=0.3))[:, None] * weights.repeat(2)[:, None] / 3
    torch.testing.assert_close(slope, (formula * mask).detach())


def test_without_tail_or_discount_ld_weights_are_the_mask() -> None:
    mask = torch.arange(4) < torch.tensor([[2], [4]])
    assert torch.equal(ld_weights(mask, torch.tensor([4, 4]), 0.0), mask.double())
    assert torch.equal(ld_weights(mask, torch.tensor([1, 1]), 1.0), mask.double())


def test_ld_alpha_above_one_is_refused() -> None:
    with pytest.raises(InputError, match="ld_alpha"):
        ld_weights(torch.ones(1, 1, dtype=torch.bool), torch.ones(1, dtype=torch.long), 1.5)
