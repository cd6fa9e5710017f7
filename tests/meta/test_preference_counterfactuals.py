"""The checks of LD-4 and DP-1 … DP-3 come out "contradicted" once the cause is removed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from squeeze.claims import catalogue
from squeeze.claims.preference import Agreement, PromptConstant, Residuals, Values
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


def outcomes(claim: str, evidence: object) -> set[str]:
    """How the claim's own check comes out on this evidence."""
    return {verdict.outcome for verdict in catalogue.get(claim).check(evidence)}


@pytest.mark.counterfactual("LD-4")
@pytest.mark.parametrize("name", ALL)
def test_formula_with_constants_off_by_one_percent_is_contradicted(name: str) -> None:
    assert outcomes("LD-4", Residuals(residual_cases_at(name, OFF))) == {"contradicted"}


@pytest.mark.counterfactual("LD-4")
@pytest.mark.parametrize("name", ALL)
def test_logit_residual_with_constants_off_by_one_percent_is_contradicted(name: str) -> None:
    cases = Residuals(on_logits=logit_cases_at(name, OFF))
    assert outcomes("LD-4", cases) == {"contradicted"}


@pytest.mark.counterfactual("DP-1")
@pytest.mark.parametrize("name", WITH_INIT)
def test_start_against_a_perturbed_reference_is_contradicted(name: str) -> None:
    values = Values(init_values(name, perturbation=0.1))
    assert outcomes("DP-1", values) == {"contradicted"}


@pytest.mark.counterfactual("DP-1")
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_trls_start_with_a_policy_off_its_reference_is_contradicted(family: str) -> None:
    values = list(trl_init_values(family, policy_moved=0.02))
    for value in values:
        found = outcomes("DP-1", Values([value], "tiny", 16 * EPSILON32))
        assert found == {"contradicted"}, value


@pytest.mark.counterfactual("DP-1")
def test_toy_llamas_start_against_another_reference_is_contradicted() -> None:
    value = toy_llama_value(reference_seed=1)
    assert outcomes("DP-1", Values([value], "tiny", 16 * EPSILON32)) == {"contradicted"}


@pytest.mark.counterfactual("DP-2")
def test_gradient_identity_with_beta_off_by_one_percent_is_contradicted() -> None:
    assert outcomes("DP-2", gradient_identity(off=OFF)) == {"contradicted"}


@pytest.mark.counterfactual("DP-2")
def test_constant_on_the_chosen_reward_alone_is_contradicted() -> None:
    cases = [fixed_pairs(seed) for seed in range(3)]
    loss = get_loss("sigmoid").function
    constant = PromptConstant(loss, constant_on_chosen, cases, beta=0.3)
    assert outcomes("DP-2", constant) == {"contradicted"}


@pytest.mark.counterfactual("DP-3")
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.loss)
def test_agreement_with_trl_with_a_constant_off_by_one_percent_is_contradicted(
    peer: Peer,
) -> None:
    pairs = Agreement([peer.measure(fixed_pairs(), OFF)], bound=peer.bound)
    assert outcomes("DP-3", pairs) == {"contradicted"}


@pytest.mark.counterfactual("DP-3")
@pytest.mark.parametrize("name", MODEL_PEERS)
def test_agreement_on_a_model_with_a_constant_off_by_one_percent_is_contradicted(
    name: str,
) -> None:
    pairs = Agreement([model_measurements(name, OFF)], "tiny", MODEL_BOUND)
    assert outcomes("DP-3", pairs) == {"contradicted"}


@pytest.mark.parametrize(
    ("claim", "nothing"), [("LD-4", Residuals([])), ("DP-1", Values([])), ("DP-3", Agreement([]))]
)
def test_check_of_nothing_is_contradicted(claim: str, nothing: object) -> None:
    assert outcomes(claim, nothing) == {"contradicted"}


def test_residual_that_is_not_a_number_is_contradicted() -> None:
    cases = residual_cases_at("sigmoid")
    logps = replace(cases[0].logps, ref_chosen=torch.full_like(cases[0].logps.chosen, torch.nan))
    cases = [replace(cases[0], logps=logps)]
    assert outcomes("LD-4", Residuals(cases)) == {"contradicted"}
