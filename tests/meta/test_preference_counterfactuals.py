"""The checks of LD-4 and DP-1 … DP-3 come out "contradicted" once the cause is removed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from squeeze.claims.preference_checks import (
    check_agreement,
    check_init_value,
    check_logit_residuals,
    check_prompt_constant,
    check_residuals,
)
from squeeze.losses import get_loss
from tests.losses.situations import (
    MODEL_BOUND,
    MODEL_PEERS,
    constant_on_chosen,
    gradient_identity,
    init_values,
    logit_cases_at,
    model_measurements,
    residual_cases_at,
    toy_llama_value,
    trl_init_values,
)
from tests.losses.strategies import ALL, WITH_INIT, fixed_pairs
from tests.losses.trl_peer import EPSILON32, PEERS, Peer

pytestmark = pytest.mark.cpu
OFF = 1.01


@pytest.mark.parametrize("name", ALL)
def test_formula_with_constants_off_by_one_percent_is_contradicted(name: str) -> None:
    assert check_residuals(residual_cases_at(name, OFF)).outcome == "contradicted"


@pytest.mark.parametrize("name", ALL)
def test_logit_residual_with_constants_off_by_one_percent_is_contradicted(name: str) -> None:
    assert check_logit_residuals(logit_cases_at(name, OFF)).outcome == "contradicted"


@pytest.mark.parametrize("name", WITH_INIT)
def test_start_against_a_perturbed_reference_is_contradicted(name: str) -> None:
    verdict = check_init_value(init_values(name, perturbation=0.1))
    assert verdict.outcome == "contradicted"


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_trls_start_with_a_policy_off_its_reference_is_contradicted(family: str) -> None:
    values = list(trl_init_values(family, policy_moved=0.02))
    for value in values:
        verdict = check_init_value([value], level="tiny", bound=16 * EPSILON32)
        assert verdict.outcome == "contradicted", value


def test_toy_llamas_start_against_another_reference_is_contradicted() -> None:
    value = toy_llama_value(reference_seed=1)
    verdict = check_init_value([value], level="tiny", bound=16 * EPSILON32)
    assert verdict.outcome == "contradicted"


def test_gradient_identity_with_beta_off_by_one_percent_is_contradicted() -> None:
    assert gradient_identity(off=OFF).outcome == "contradicted"


def test_constant_on_the_chosen_reward_alone_is_contradicted() -> None:
    cases = [fixed_pairs(seed) for seed in range(3)]
    loss = get_loss("sigmoid").function
    verdict = check_prompt_constant(loss, constant_on_chosen, cases, beta=0.3)
    assert verdict.outcome == "contradicted"


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.loss)
def test_agreement_with_trl_with_a_constant_off_by_one_percent_is_contradicted(
    peer: Peer,
) -> None:
    verdict = check_agreement([peer.measure(fixed_pairs(), OFF)], bound=peer.bound)
    assert verdict.outcome == "contradicted"


@pytest.mark.parametrize("name", MODEL_PEERS)
def test_agreement_on_a_model_with_a_constant_off_by_one_percent_is_contradicted(
    name: str,
) -> None:
    verdict = check_agreement([model_measurements(name, OFF)], level="tiny", bound=MODEL_BOUND)
    assert verdict.outcome == "contradicted"


@pytest.mark.parametrize("check", [check_residuals, check_init_value, check_agreement])
def test_check_of_nothing_is_contradicted(check: object) -> None:
    assert callable(check)
    assert check([]).outcome == "contradicted"


def test_residual_that_is_not_a_number_is_contradicted() -> None:
    cases = residual_cases_at("sigmoid")
    logps = replace(cases[0].logps, ref_chosen=torch.full_like(cases[0].logps.chosen, torch.nan))
    assert check_residuals([replace(cases[0], logps=logps)]).outcome == "contradicted"
