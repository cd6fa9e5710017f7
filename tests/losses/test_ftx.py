"""LLaMA-Factory's `pref_ftx` on any loss: what it adds to the value and to the gradient."""

from __future__ import annotations

import pytest
import torch

from squeeze.claims.preference import ResidualCase, autograd_residual
from squeeze.losses import LOSSES, get_loss
from squeeze.losses.ftx import with_sft
from tests.losses.strategies import fixed_pairs

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("name", LOSSES)
def test_ftx_adds_the_mean_token_loss_of_chosen_and_nothing_else(name: str) -> None:
    logps = fixed_pairs()
    per_token = logps.chosen / logps.n_chosen_tokens
    plain, loss = get_loss(name), get_loss(f"ftx_{name}")
    torch.testing.assert_close(
        loss(logps, ftx=0.25), plain(logps) - 0.25 * per_token, rtol=1e-12, atol=0
    )
    torch.testing.assert_close(loss(logps), plain(logps) - per_token, rtol=1e-12, atol=0)


def test_ftx_passes_the_losss_own_constants_on_and_its_formula_is_autograds_gradient() -> None:
    logps, loss = fixed_pairs(), get_loss("ftx_ipo")
    hyper = {"ftx": 0.25, "tau": 0.3}
    torch.testing.assert_close(
        loss(logps, **hyper),
        get_loss("ipo")(logps, tau=0.3) - 0.25 * logps.chosen / logps.n_chosen_tokens,
        rtol=1e-12,
        atol=0,
    )
    for given in (hyper, {"tau": 0.3}):
        automatic = autograd_residual(ResidualCase("ftx_ipo", loss.function, None, logps, given))
        for ours, autograds in zip(loss.residuals(logps, **given), automatic, strict=True):
            torch.testing.assert_close(ours, autograds, rtol=1e-12, atol=0)


def test_a_loss_with_ftx_says_what_it_is() -> None:
    plain, loss = get_loss("ipo"), with_sft(get_loss("ipo"))
    assert loss.name == "ftx_ipo"
    assert loss.hyperparameters == {"tau": 0.1, "length_normalized": False, "ftx": 1.0}
    assert loss.paper == f"LLaMA-Factory's pref_ftx, on {plain.paper}"
    assert loss.formula == f"{plain.formula} − ftx·s+/|y+|"
    assert loss.needs_reference
    assert not get_loss("ftx_simpo").needs_reference
    assert loss.init is None


def test_a_loss_without_a_residual_formula_has_none_with_ftx() -> None:
    from dataclasses import replace

    assert with_sft(replace(get_loss("ipo"), residual=None)).residual is None
    assert with_sft(get_loss("ipo")).residual is not None
