"""A weight on the rejected term's gradient: what it multiplies, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from squeeze.claims.preference import ResidualCase, autograd_residual
from squeeze.errors import InputError
from squeeze.losses import LOSSES, get_loss, weighted
from tests.losses.strategies import fixed_pairs

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize(("term", "scaled", "same"), [("rejected", 1, 0), ("chosen", 0, 1)])
@pytest.mark.parametrize("name", LOSSES)
def test_weight_scales_its_term_s_gradient_and_nothing_else(
    name: str, term: str, scaled: int, same: int
) -> None:
    logps = fixed_pairs()
    plain, half = get_loss(name), get_loss(f"weighted_{name}")
    hyper = {f"{term}_weight": 0.25}
    torch.testing.assert_close(half(logps, **hyper), plain(logps), rtol=1e-14, atol=0)
    before = autograd_residual(ResidualCase(name, plain.function, None, logps))
    after = autograd_residual(ResidualCase(name, half.function, None, logps, hyper))
    torch.testing.assert_close(after[same], before[same], rtol=1e-12, atol=0)
    torch.testing.assert_close(after[scaled], 0.25 * before[scaled], rtol=1e-12, atol=0)


def test_weighted_formula_is_autograds_gradient() -> None:
    logps, loss = fixed_pairs(), get_loss("weighted_ipo")
    hyper = {"rejected_weight": 0.25, "chosen_weight": 0.5, "tau": 0.3}
    automatic = autograd_residual(ResidualCase("weighted_ipo", loss.function, None, logps, hyper))
    for ours, autograds in zip(loss.residuals(logps, **hyper), automatic, strict=True):
        torch.testing.assert_close(ours, autograds, rtol=1e-12, atol=0)


def test_without_a_weight_the_loss_is_the_plain_one() -> None:
    logps, loss, plain = fixed_pairs(), get_loss("weighted_sigmoid"), get_loss("sigmoid")
    assert torch.equal(loss(logps), plain(logps))
    for ours, theirs in zip(loss.residuals(logps), plain.residuals(logps), strict=True):
        assert torch.equal(ours, theirs)
    ours, theirs = (
        autograd_residual(ResidualCase("sigmoid", given.function, None, logps))
        for given in (loss, plain)
    )
    assert torch.equal(ours[1], theirs[1])


def test_weighted_loss_says_what_it_is() -> None:
    plain, loss = get_loss("ipo"), weighted(get_loss("ipo"))
    assert loss.name == "weighted_ipo"
    own = {"tau": 0.1, "length_normalized": False}
    assert loss.hyperparameters == own | {"rejected_weight": 1.0, "chosen_weight": 1.0}
    assert loss.paper == f"the dose of squeeze's claim DO-3, on {plain.paper}"
    assert (
        loss.formula
        == f"{plain.formula}, the gradient through s− times λ (through s+ times chosen_weight)"
    )
    assert loss.needs_reference
    assert not get_loss("weighted_simpo").needs_reference


def test_weight_leaves_the_value_at_the_start_alone() -> None:
    assert get_loss("weighted_ipo").at_init(tau=0.25, rejected_weight=0.0) == 4.0
    assert get_loss("weighted_ipo").at_init(tau=0.25) == 4.0
    assert get_loss("weighted_sft").at_init() is None


def test_weighted_loss_without_a_formula_has_none_either() -> None:
    bare = weighted(replace(get_loss("sigmoid"), residual=None))
    assert bare.residual is None
    with pytest.raises(InputError, match="'weighted_sigmoid' is registered without a residual"):
        bare.residuals(fixed_pairs())
