"""DP-3: TRL's own losses against ours, and every other TRL loss type through the residual check."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from squeeze.claims.preference import (
    Agreement,
    ResidualCase,
    Residuals,
    check_agreement,
    check_residuals,
)
from squeeze.losses import PairLogps
from tests.examples import examples
from tests.losses.strategies import fixed_pairs, logit_case, pairs
from tests.losses.trl_peer import (
    PEERS,
    TRL_LOSS_TYPES,
    Peer,
    configure,
    dpo_trainer,
    trl_loss,
)

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.loss)
@settings(max_examples=examples(25))
@given(logps=pairs())
def test_loss_equals_trls_in_value_and_gradient(peer: Peer, logps: PairLogps) -> None:
    verdict = check_agreement(Agreement([peer.measure(logps)], bound=peer.bound))
    assert verdict.supported, verdict


def trl_case(loss_type: str, seed: int = 0) -> ResidualCase:
    def function(logps: PairLogps) -> torch.Tensor:
        return trl_loss(logps, [loss_type], label_smoothing=0.1)[None]

    return ResidualCase(f"TRL {loss_type}", function, None, fixed_pairs(seed))


@pytest.mark.parametrize("loss_type", TRL_LOSS_TYPES)
def test_residual_of_every_trl_loss_is_the_slope_of_its_value(loss_type: str) -> None:
    (verdict,) = check_residuals(Residuals([trl_case(loss_type, seed) for seed in range(3)]))
    assert verdict.supported, verdict


@pytest.mark.parametrize("loss_type", TRL_LOSS_TYPES)
def test_logit_gradient_of_every_trl_loss_is_its_residual_times_one_hot_minus_probabilities(
    loss_type: str,
) -> None:
    (verdict,) = check_residuals(Residuals(on_logits=[logit_case(trl_case(loss_type))]))
    assert verdict.supported, verdict


def test_list_of_trl_loss_types_is_complete() -> None:
    with pytest.raises(ValueError, match="Unknown loss type") as caught:
        trl_loss(fixed_pairs(), ["no such loss"])
    assert str(caught.value).split("one of ")[1] == str(TRL_LOSS_TYPES)
    configure(dpo_trainer(), ["sigmoid"])
