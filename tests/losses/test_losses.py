"""The losses' values: closed forms at policy = reference, other implementations, limits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st

from squeeze.claims.preference import InitValue, ResidualCase, Values, check_init_value
from squeeze.errors import InputError
from squeeze.losses import PairLogps, get_loss
from tests.examples import examples
from tests.losses.strategies import (
    ALL,
    WITH_INIT,
    WITH_REFERENCE,
    fixed_pairs,
    hyperparameters,
    pairs,
    reproduce,
)

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("name", WITH_INIT)
@settings(max_examples=examples(40))
@given(data=st.data())
def test_loss_has_its_closed_form_at_policy_equal_reference(name: str, data: st.DataObject) -> None:
    loss = get_loss(name)
    logps = data.draw(pairs(at_init=True))
    hyper = data.draw(hyperparameters(loss))
    note(reproduce(ResidualCase(name, loss.function, loss.residual, logps, hyper)))
    expected = loss.at_init(**hyper)
    assert expected is not None
    verdict = check_init_value(Values([InitValue(name, expected, loss(logps, **hyper))]))
    assert verdict.supported, verdict


# Every loss where policy = reference, at β = τ = 0.1.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sigmoid", 0.6931),
        ("spin", 0.6931),
        ("cdpo", 0.6931),
        ("robust", 0.6931),
        ("dpop", 0.6931),
        ("dpo_shift", 0.6931),
        ("ipo", 25.0),
        ("hinge", 1.0),
        ("sppo_hard", 50.0),
        ("cal_dpo", 50.6931),
        ("kto", 0.5),
        ("kto_pair", 0.5),
        ("gated_sigmoid", 0.6931),
        ("exo_pair", 2.7612),  # −½ log(4 · 0.001 · 0.999)
        ("nca_pair", 1.3863),
        ("bco_pair", 1.3863),
        ("aot", 0.6931),
        ("aot_unpaired", 0.6931),
        ("apo_zero", 1.0),
        ("apo_down", 1.0),
        ("discopop", 0.8466),
        ("sigmoid_norm", 0.6931),
        ("f_dpo", 0.6931),
        ("ld_dpo", 0.6931),
    ],
)
def test_value_at_init_is_the_tabled_one(name: str, value: float) -> None:
    loss = get_loss(name)
    assert loss.at_init() == pytest.approx(value, abs=5e-5)
    logps = fixed_pairs()
    same = {"ref_chosen": logps.chosen, "ref_rejected": logps.rejected}
    logps = replace(logps, **same, margin_beyond=torch.zeros_like(logps.chosen))
    torch.testing.assert_close(loss(logps), torch.full_like(logps.chosen, value), atol=5e-5, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_unnamed_constants_have_the_listed_values_in_loss_and_formula(name: str) -> None:
    loss, logps = get_loss(name), fixed_pairs()
    listed = loss.hyperparameters
    assert torch.equal(loss(logps), loss(logps, **listed))
    for unnamed, named in zip(loss.residuals(logps), loss.residuals(logps, **listed), strict=True):
        assert torch.equal(unnamed, named)


@pytest.mark.parametrize("name", ["sft", "rpo", "simpo", "orpo", "wpo"])
def test_a_loss_whose_start_depends_on_the_data_states_no_value(name: str) -> None:
    assert get_loss(name).at_init() is None


def test_simpo_is_the_paper_s_formula_on_a_pair_worked_by_hand() -> None:
    logps = PairLogps(
        chosen=torch.tensor([-4.0]).double(),
        rejected=torch.tensor([-6.0]).double(),
        chosen_length=torch.tensor([4]),
        rejected_length=torch.tensor([2]),
    )
    # mean log-probs −1 and −3: x = 2·2 − 1 = 3
    expected = math.log1p(math.exp(-3))
    assert get_loss("simpo")(logps, beta=2.0, gamma=1.0).item() == pytest.approx(expected)


def test_orpo_is_the_paper_s_formula_on_a_pair_worked_by_hand() -> None:
    logps = PairLogps(
        chosen=torch.tensor([0.5, 0.5]).double().log().sum()[None],
        rejected=torch.tensor([0.2, 0.2]).double().log().sum()[None],
        chosen_length=torch.tensor([2]),
        rejected_length=torch.tensor([2]),
    )
    # odds 1 and ¼: ratio 4, σ(log 4) = 4/5
    expected = math.log(2) + 0.3 * math.log(5 / 4)
    assert get_loss("orpo")(logps, lam=0.3).item() == pytest.approx(expected)


def test_dpop_penalises_a_chosen_response_below_the_reference_only() -> None:
    zero = torch.zeros(2).double()
    logps = PairLogps(torch.tensor([1.0, -1.0]).double(), zero, zero, zero)
    # x = βm = 0.5 above; β(m − λ·1) = 0.5·(−1 − 3) = −2 below
    expected = [math.log1p(math.exp(-0.5)), math.log1p(math.exp(2))]
    assert get_loss("dpop")(logps, beta=0.5, lam=3.0).tolist() == pytest.approx(expected)


def test_kto_pair_takes_each_sides_reference_point_from_the_other_side() -> None:
    zero = torch.zeros(2).double()
    logps = PairLogps(
        torch.tensor([3.0, 1.0]).double(), torch.tensor([-1.0, -5.0]).double(), zero, zero
    )
    # z+ = max(0, −3) = 0, z− = max(0, 2) = 2; β = 1
    expected = [
        (1 / (1 + math.exp(3)) + 1 / (1 + math.exp(3))) / 2,
        (1 / (1 + math.exp(1)) + 1 / (1 + math.exp(7))) / 2,
    ]
    assert get_loss("kto_pair")(logps, beta=1.0).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [("sequence", [12.0, 4.0]), ("token", [2.0, 2.0]), ("batch", [3.0, 1.0])],
)
def test_sft_is_normalised_by_nothing_by_its_length_or_by_the_batchs_mean_length(
    normalization: str, expected: list[float]
) -> None:
    logps = PairLogps(
        torch.tensor([-12.0, -4.0]),
        torch.zeros(2),
        chosen_length=torch.tensor([6, 2]),
    )
    assert get_loss("sft")(logps, normalization=normalization).tolist() == expected


def test_rpo_with_token_means_is_llama_factorys_pref_ftx() -> None:
    logps = fixed_pairs()
    # LLaMA-Factory: losses += pref_ftx · (−chosen_logps / chosen_length)
    expected = get_loss("sigmoid")(logps, beta=0.2) - 0.5 * logps.chosen / logps.chosen_length
    torch.testing.assert_close(get_loss("rpo")(logps, beta=0.2, alpha=0.5), expected)


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("cdpo", {"label_smoothing": 0.0}),
        ("robust", {"label_smoothing": 0.0}),
        ("dpo_shift", {"shift": 1.0}),
        ("dpop", {"beta": 0.1, "lam": 0.0}),
        ("rpo", {"alpha": 0.0}),
        ("spin", {}),
        ("f_dpo", {"divergence": "reverse_kl"}),
        ("ld_dpo", {"ld_alpha": 1.0}),
    ],
)
def test_kin_without_its_own_term_is_dpo(name: str, hyper: dict[str, float]) -> None:
    logps = fixed_pairs()
    torch.testing.assert_close(get_loss(name)(logps, **hyper), get_loss("sigmoid")(logps))


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_loss_that_needs_a_reference_says_so(name: str) -> None:
    logps = replace(fixed_pairs(), ref_chosen=None, ref_rejected=None)
    with pytest.raises(InputError, match="ref_"):
        get_loss(name)(logps)


def test_wpo_is_dpo_times_the_pairs_weight_and_starts_at_it_times_log_2() -> None:
    logps = fixed_pairs()
    torch.testing.assert_close(
        get_loss("wpo")(logps), logps.pair_weight * get_loss("sigmoid")(logps)
    )
    start = replace(logps, ref_chosen=logps.chosen, ref_rejected=logps.rejected)
    torch.testing.assert_close(get_loss("wpo")(start), math.log(2) * logps.pair_weight)


@pytest.mark.parametrize(("name", "field"), [("ld_dpo", "margin_beyond"), ("wpo", "pair_weight")])
def test_loss_of_single_tokens_says_what_it_lacks(name: str, field: str) -> None:
    with pytest.raises(InputError, match=field):
        get_loss(name)(replace(fixed_pairs(), **{field: None}))


@pytest.mark.parametrize("name", ["sft", "simpo", "orpo", "gated_simpo"])
def test_reference_free_loss_needs_none(name: str) -> None:
    logps = fixed_pairs()
    free = replace(logps, ref_chosen=None, ref_rejected=None)
    assert not get_loss(name).needs_reference
    torch.testing.assert_close(get_loss(name)(free), get_loss(name)(logps))


def test_missing_length_is_named() -> None:
    with pytest.raises(InputError, match="chosen_length"):
        get_loss("simpo")(replace(fixed_pairs(), chosen_length=None))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["sigmoid", "orpo", "kto_pair", "gated_rpo"])
def test_losses_keep_the_dtype(name: str, dtype: torch.dtype) -> None:
    fields = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in vars(fixed_pairs()).items()
    }
    assert get_loss(name)(PairLogps(**fields)).dtype == dtype


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "simpo", "kto"])
def test_constant_that_must_be_positive_is_refused_at_zero(name: str) -> None:
    loss = get_loss(name)
    constant = "tau" if name == "ipo" else "beta"
    with pytest.raises(InputError, match=f"{constant} must be positive"):
        loss(fixed_pairs(), **{constant: 0.0})


def test_ld_alpha_above_one_is_refused() -> None:
    with pytest.raises(InputError, match="ld_alpha must lie in"):
        get_loss("ld_dpo")(fixed_pairs(), ld_alpha=1.5)


@pytest.mark.parametrize("epsilon", [-0.1, 0.5])
def test_robust_refuses_label_noise_of_one_half(epsilon: float) -> None:
    with pytest.raises(InputError, match="label_smoothing"):
        get_loss("robust")(fixed_pairs(), label_smoothing=epsilon)


def test_unknown_normalization_names_the_choices() -> None:
    with pytest.raises(InputError, match="'sequence', 'token' or 'batch'"):
        get_loss("sft")(fixed_pairs(), normalization="words")
