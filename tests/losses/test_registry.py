"""A user adds one function; everything else follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from squeeze.claims.preference import (
    InitValue,
    ResidualCase,
    Residuals,
    Values,
    check_init_value,
    check_residuals,
)
from squeeze.errors import InputError
from squeeze.losses import LOSSES, PairLogps, get_loss, register_loss
from tests.losses.strategies import fixed_pairs

pytestmark = pytest.mark.cpu


@pytest.fixture
def registered() -> Iterator[str]:
    @register_loss("exponential", paper="a user's", init=lambda beta: 1.0)
    def exponential(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
        return torch.exp(-beta * logps.margin)

    yield "exponential"
    del LOSSES["exponential"]


def test_registered_loss_is_found_by_name_with_its_constants(registered: str) -> None:
    loss = get_loss(registered)
    assert loss.hyperparameters == {"beta": 0.1}
    assert loss.at_init(beta=3.0) == 1.0


def test_registered_loss_is_described_as_its_author_does() -> None:
    def formula(logps: PairLogps, *, beta: float = 0.1) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(logps.chosen), beta * torch.ones_like(logps.rejected)

    def mine(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
        return beta * logps.rejected - logps.chosen

    said = {"paper": "mine", "formula": "βs− − s+", "needs_reference": False, "residual": formula}
    try:
        assert register_loss("mine", **said)(mine) is mine
        loss = get_loss("mine")
    finally:
        del LOSSES["mine"]
    assert {key: getattr(loss, key) for key in said} == said
    assert (loss.name, loss.function, loss.init) == ("mine", mine, None)


def test_a_loss_is_taken_to_need_a_reference_and_to_have_no_formula(registered: str) -> None:
    loss = get_loss(registered)
    assert (loss.needs_reference, loss.formula, loss.residual) == (True, "", None)


def test_registered_loss_gets_its_residual_checked_without_a_formula(registered: str) -> None:
    loss = get_loss(registered)
    case = ResidualCase(registered, loss.function, loss.residual, fixed_pairs())
    assert check_residuals(Residuals([case]))[0].supported


def test_registered_loss_gets_its_start_checked(registered: str) -> None:
    logps = PairLogps(*[torch.full((2,), -3.0).double()] * 4)
    value = InitValue(registered, 1.0, get_loss(registered)(logps))
    assert check_init_value(Values([value])).supported


def test_registered_loss_can_be_gated(registered: str) -> None:
    logps = fixed_pairs()
    assert torch.equal(get_loss(f"gated_{registered}")(logps), get_loss(registered)(logps))


def test_wrong_formula_of_a_user_is_found(registered: str) -> None:
    def wrong(logps: PairLogps) -> tuple[Tensor, Tensor]:
        weight = torch.exp(-0.1 * logps.margin)  # forgets the inner derivative β
        return -weight, weight

    case = ResidualCase(registered, get_loss(registered).function, wrong, fixed_pairs())
    assert not check_residuals(Residuals([case]))[0].supported


def test_wrong_start_of_a_user_is_found(registered: str) -> None:
    logps = PairLogps(*[torch.full((2,), -3.0).double()] * 4)
    value = InitValue(registered, math.log(2), get_loss(registered)(logps))
    assert not check_init_value(Values([value])).supported


def test_gradient_that_is_none_of_the_loss_is_found_without_a_formula() -> None:
    def broken(logps: PairLogps) -> Tensor:
        return -torch.nn.functional.logsigmoid(logps.chosen_logratio.detach() - logps.rejected)

    logps = PairLogps(*[torch.full((2,), -3.0).double()] * 4)
    case = ResidualCase("broken", broken, None, logps)
    assert not check_residuals(Residuals([case]))[0].supported


@pytest.mark.parametrize("name", ["sigmoid", "gated_mine"])
def test_name_in_use_or_reserved_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="in use or reserved"):
        register_loss(name, paper="")(lambda logps: logps.chosen)


def test_hyperparameter_without_default_is_refused() -> None:
    def mine(logps: PairLogps, *, beta: float) -> Tensor:
        return beta * logps.chosen

    with pytest.raises(InputError, match="'beta' of loss 'mine' has no default"):
        register_loss("mine", paper="")(mine)


def test_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'sigmoid'"):
        get_loss("sigmod")


@pytest.mark.parametrize("name", ["sigmoid", "gated_sigmoid"])
def test_unknown_hyperparameter_is_named(name: str) -> None:
    with pytest.raises(InputError, match="no hyper-parameter 'gama'"):
        get_loss(name)(fixed_pairs(), gama=1.0)
    with pytest.raises(InputError, match="no hyper-parameter 'gama'"):
        get_loss(name).at_init(gama=1.0)


def test_missing_residual_formula_is_an_error(registered: str) -> None:
    with pytest.raises(InputError, match="without a residual formula"):
        get_loss(registered).residuals(fixed_pairs())


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_paper_formula_and_docstring(name: str) -> None:
    loss = get_loss(name)
    assert loss.paper
    assert loss.formula
    assert loss.function.__doc__
