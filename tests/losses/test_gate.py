"""Gate-DPO's gate: what it multiplies, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from squeeze.claims.preference import ResidualCase, autograd_residual
from squeeze.errors import InputError
from squeeze.losses import LOSSES, PairLogps, gate, gated, get_loss
from tests.losses.strategies import fixed_pairs

pytestmark = pytest.mark.cpu


def pair(**fields: torch.Tensor) -> PairLogps:
    return PairLogps(torch.tensor([-1.0]).double(), torch.tensor([-6.0]).double(), **fields)


def test_gate_is_the_sigmoid_of_the_geometric_mean_token_probability() -> None:
    logps = pair(rejected_length=torch.tensor([3]))
    p = torch.tensor([-2.0]).double().exp()
    expected = torch.sigmoid(5 * (p - 0.3))
    torch.testing.assert_close(gate(logps, gate_alpha=5.0, gate_tau=0.3), expected)


def test_gate_of_a_quantile_ignores_padding() -> None:
    probabilities = torch.tensor([[0.5, 0.1, 0.9, 1e-9]]).double()
    logps = pair(
        rejected_token_logps=probabilities.log(),
        rejected_mask=torch.tensor([[True, True, True, False]]),
    )
    got = gate(logps, gate_alpha=5.0, gate_tau=0.3, gate_statistic="quantile", gate_quantile=0.0)
    expected = torch.sigmoid(torch.tensor([5 * (0.1 - 0.3)]).double())
    torch.testing.assert_close(got, expected)


def test_quantile_is_each_responses_own_and_by_default_the_lowest_tenth() -> None:
    logps = fixed_pairs()
    by_default = gate(logps, gate_statistic="quantile")
    assert torch.equal(by_default, gate(logps, gate_statistic="quantile", gate_quantile=0.1))
    for row in range(len(logps.rejected)):
        own = {k: v[row : row + 1] for k, v in vars(logps).items()}
        alone = gate(PairLogps(**own), gate_statistic="quantile")
        torch.testing.assert_close(by_default[row : row + 1], alone)
    # of the four real tokens of a row: 0.1 · 3 places above the lowest
    lowest = logps.rejected_token_logps[:, :4].sort(-1).values
    p = (lowest[:, 0] + 0.3 * (lowest[:, 1] - lowest[:, 0])).exp()
    torch.testing.assert_close(by_default, torch.sigmoid(20 * (p - 0.1)))


def test_gated_loss_says_what_it_is() -> None:
    plain, loss = get_loss("ipo"), gated(get_loss("ipo"))
    assert loss.name == "gated_ipo"
    assert loss.paper == f"Mouiche 2026, arXiv 2605.02626, on {plain.paper}"
    assert loss.formula == f"{plain.formula}, the gradient through s− times σ(α(p − τ))"
    assert loss.needs_reference
    assert loss.hyperparameters == {
        "tau": 0.1,
        "length_normalized": False,
        "gate_alpha": 20.0,
        "gate_tau": 0.1,
        "gate_statistic": "geometric_mean",
        "gate_quantile": 0.1,
    }
    assert loss.at_init(tau=0.25) == 4.0
    assert gated(get_loss("sft")).init is None
    assert gated(replace(plain, residual=None)).residual is None


@pytest.mark.parametrize("name", LOSSES)
def test_gate_scales_the_rejected_gradient_and_nothing_else(name: str) -> None:
    logps = fixed_pairs()
    plain, gated = get_loss(name), get_loss(f"gated_{name}")
    assert torch.equal(gated(logps), plain(logps))
    before = autograd_residual(ResidualCase(name, plain.function, None, logps))
    after = autograd_residual(ResidualCase(name, gated.function, None, logps))
    assert torch.equal(after[0], before[0])
    torch.testing.assert_close(after[1], gate(logps) * before[1], rtol=1e-12, atol=0)


def test_gate_opens_with_the_probability_of_the_rejected_response() -> None:
    logps = fixed_pairs()
    likelier = replace(logps, rejected=logps.rejected / 2)
    assert (gate(likelier) > gate(logps)).all()


def test_gate_carries_no_gradient() -> None:
    logps = replace(fixed_pairs(), rejected=fixed_pairs().rejected.requires_grad_())
    assert not gate(logps).requires_grad


def test_quantile_gate_without_token_log_probs_says_what_is_missing() -> None:
    logps = replace(fixed_pairs(), rejected_token_logps=None)
    with pytest.raises(InputError, match="rejected_token_logps"):
        gate(logps, gate_statistic="quantile")


def test_unknown_gate_statistic_is_refused() -> None:
    with pytest.raises(InputError, match="'median'"):
        gate(fixed_pairs(), gate_statistic="median")


def test_gated_loss_passes_both_sets_of_constants_on() -> None:
    logps = fixed_pairs()
    hyper = {"tau": 0.3, "gate_alpha": 3.0}
    chosen, rejected = get_loss("gated_ipo").residuals(logps, **hyper)
    plain = get_loss("ipo").residuals(logps, tau=0.3)
    assert torch.equal(chosen, plain[0])
    assert torch.equal(rejected, gate(logps, gate_alpha=3.0) * plain[1])
