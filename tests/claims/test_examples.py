"""The examples of a claim and a loss of one's own run; nothing registered changes with them."""

import runpy
from pathlib import Path

import pytest
import torch

from squeeze.claims import catalogue
from squeeze.claims.preference import ResidualCase, Residuals, check_residuals
from squeeze.losses import LOSSES, PairLogps, get_loss
from squeeze.study.registration import plan, registration_sha256

pytestmark = pytest.mark.cpu

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def with_loss(monkeypatch):
    """The losses with that of the example among them, for one test."""
    before = dict(LOSSES)
    runpy.run_path(str(EXAMPLES / "loss_of_my_own.py"))
    yield get_loss("squared_hinge")
    LOSSES.clear()
    LOSSES.update(before)


def test_a_claim_of_ones_own_is_supported_and_its_counterfactual_is_not(monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "_CLAIMS", catalogue.load())
    runpy.run_path(str(EXAMPLES / "claim_of_my_own.py"), run_name="__main__")
    own, without = capsys.readouterr().out.splitlines()
    assert "negative gradient: supported" in own
    assert "contradicted" in without
    assert "MY-1" in catalogue.load()


def test_a_loss_of_ones_own_has_the_gradient_of_its_residual(with_loss):
    generator = torch.Generator().manual_seed(0)
    given = [-50 * torch.rand(8, dtype=torch.float64, generator=generator) for _ in range(4)]
    case = ResidualCase("squared_hinge", with_loss.function, with_loss.residual, PairLogps(*given))
    (row,) = check_residuals(Residuals([case]))
    assert row.supported


@pytest.mark.parametrize("level", ["tiny", "pretrained"])
def test_a_loss_that_is_added_later_changes_no_registered_study(level, with_loss):
    assert "squared_hinge" in LOSSES
    assert isinstance(plan(level).settings["losses"], list)
    assert "squared_hinge" not in plan(level).settings["losses"]


def test_no_registered_list_is_a_word_that_code_would_fill_in():
    for level in ("tiny", "pretrained"):
        for name, value in plan(level).settings.items():
            assert not isinstance(value, str), (level, name)
        assert len(registration_sha256(level)) == 64
