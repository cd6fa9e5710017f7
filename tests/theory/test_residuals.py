"""LD-4: the residual formulas against autograd, over pairs and constants drawn to be nasty."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st

from squeeze.claims.preference import (
    ResidualCase,
    Residuals,
    autograd_residual,
    check_residuals,
)
from squeeze.losses import PairLogps, get_loss, kto_unpaired, kto_unpaired_residual
from squeeze.theory.residuals import logit_residual
from tests.examples import examples
from tests.losses.strategies import (
    ALL,
    fixed_cases,
    fixed_pairs,
    logit_case,
    reproduce,
    residual_cases,
)

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=examples(40))
@given(data=st.data())
def test_residual_formula_is_autograds_gradient(name: str, data: st.DataObject) -> None:
    case = data.draw(residual_cases(name))
    note(reproduce(case))
    (verdict,) = check_residuals(Residuals([case]))
    assert verdict.supported, verdict


@pytest.mark.parametrize("name", ALL)
def test_gradient_on_the_logits_is_the_residual_times_one_hot_minus_probabilities(
    name: str,
) -> None:
    cases = [logit_case(case) for case in fixed_cases(name)]
    (verdict,) = check_residuals(Residuals(on_logits=cases))
    assert verdict.supported, verdict


def test_logit_residual_leaves_masked_positions_alone() -> None:
    logits = torch.randn(4, 7, dtype=torch.float64)
    target = torch.tensor([1, 2, 3, 4])
    mask = torch.tensor([False, True, True, False])
    g = logit_residual(logits, target, 2.0, mask)
    assert g[[0, 3]].count_nonzero() == 0
    torch.testing.assert_close(g[1:3], logit_residual(logits[1:3], target[1:3], 2.0))


def test_logit_residual_of_sft_is_probabilities_minus_one_hot() -> None:
    g = logit_residual(torch.zeros(1, 4, dtype=torch.float64), torch.tensor([2]), -1.0)
    assert g.tolist() == [[0.25, 0.25, -0.75, 0.25]]


# CLAIMS' table at β = ½ and a margin of log 3, where 1 − a is ¼.
@pytest.mark.parametrize(
    ("name", "hyper", "chosen", "rejected"),
    [
        ("sft", {}, -1, 0),
        ("sigmoid", {"beta": 0.5}, -0.125, 0.125),
        ("spin", {"beta": 0.5}, -0.125, 0.125),
        ("cdpo", {"beta": 0.5, "label_smoothing": 0.25}, 0, 0),
        ("robust", {"beta": 0.5, "label_smoothing": 0.25}, -0.375, 0.375),
        ("ipo", {"tau": 0.5}, 2 * 1.1972245773362196, -2 * 1.1972245773362196),
        ("hinge", {"beta": 0.25}, -0.25, 0.25),
        ("hinge", {"beta": 0.5}, 0, 0),
        ("dpo_shift", {"beta": 0.5, "shift": 1.0}, -0.125, 0.125),
    ],
)
def test_residual_has_its_tabled_value(
    name: str, hyper: dict[str, float], chosen: float, rejected: float
) -> None:
    margin = 2 * torch.tensor([3.0], dtype=torch.float64).log()
    zero = torch.zeros(1, dtype=torch.float64)
    logps = PairLogps(margin - 9, zero - 9, zero - 9, zero - 9)
    got = get_loss(name).residuals(logps, **hyper)
    torch.testing.assert_close(torch.cat(got), torch.tensor([chosen, rejected]).double())


def test_hinge_is_flat_at_its_kink() -> None:
    """βm = ½ · 2 = 1 exactly: `torch.relu`'s rule, which the formula shares."""
    kink = torch.tensor([2.0], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    loss = get_loss("hinge")
    case = ResidualCase(
        "hinge", loss.function, None, PairLogps(kink, zero, zero, zero), {"beta": 0.5}
    )
    assert autograd_residual(case).count_nonzero() == 0
    assert torch.cat(loss.residuals(case.logps, beta=0.5)).count_nonzero() == 0


@settings(max_examples=examples(60))
@given(
    kl=st.floats(0, 20),
    beta=st.floats(1e-3, 5),
    weights=st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)),
    values=st.lists(st.tuples(st.floats(-60, 60), st.booleans()), min_size=1, max_size=4),
)
def test_unpaired_kto_residual_is_autograds_gradient(
    kl: float, beta: float, weights: tuple[float, float], values: list[tuple[float, bool]]
) -> None:
    logratio = torch.tensor([v for v, _ in values], dtype=torch.float64, requires_grad=True)
    desirable = torch.tensor([d for _, d in values])
    hyper = {
        "kl": kl,
        "beta": beta,
        "desirable_weight": weights[0],
        "undesirable_weight": weights[1],
    }
    losses = kto_unpaired(logratio, desirable, **hyper)
    (automatic,) = torch.autograd.grad(losses.sum(), logratio)
    formula = kto_unpaired_residual(logratio.detach(), desirable, **hyper)
    torch.testing.assert_close(automatic, formula, rtol=1e-9, atol=0)


def test_unnamed_constants_of_unpaired_kto_are_those_of_kto() -> None:
    logratio, desirable = torch.tensor([2.0, -3.0]).double(), torch.tensor([True, False])
    listed = {k: v for k, v in get_loss("kto").hyperparameters.items() if k != "kl"}
    for function in (kto_unpaired, kto_unpaired_residual):
        unnamed, named = (function(logratio, desirable, kl=0.5, **h) for h in ({}, listed))
        assert torch.equal(unnamed, named)


def test_reference_point_of_unpaired_kto_gets_no_gradient() -> None:
    kl = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    logratio, desirable = torch.tensor([2.0, -3.0]).double(), torch.tensor([True, False])
    assert not kto_unpaired(logratio, desirable, kl=kl).requires_grad


def test_pair_kto_is_the_mean_of_two_unpaired_rows() -> None:
    logps = fixed_pairs()
    hyper = {"kl": 0.7, "beta": 0.3, "desirable_weight": 1.1, "undesirable_weight": 0.6}
    yes = torch.ones(len(logps.chosen), dtype=torch.bool)
    rows = (
        kto_unpaired(logps.chosen_logratio, yes, **hyper),
        kto_unpaired(logps.rejected_logratio, ~yes, **hyper),
    )
    torch.testing.assert_close(get_loss("kto")(logps, **hyper), (rows[0] + rows[1]) / 2)
