"""The verdicts on LD-4 and DP-1 … DP-3 that go into the ledger, one a claim and level."""

from __future__ import annotations

import pytest

from squeeze.claims import catalogue
from squeeze.claims.preference import Agreement, PromptConstant, Residuals, Values
from squeeze.losses import get_loss
from tests.ledger_plugin import Recorder
from tests.losses.situations import (
    MODEL_BOUND,
    MODEL_PEERS,
    gradient_identity,
    init_values,
    logit_cases_at,
    model_measurements,
    residual_cases_at,
    same_constant,
    toy_llama_value,
    trl_init_values,
)
from tests.losses.strategies import ALL, WITH_INIT, fixed_pairs
from tests.losses.trl_peer import EPSILON32, PEERS

pytestmark = pytest.mark.cpu


@pytest.mark.claim("LD-4", "toy")
def test_residual_of_every_loss_is_its_formula(ledger: Recorder) -> None:
    verdicts = catalogue.get("LD-4").check(
        Residuals(
            (case for name in ALL for case in residual_cases_at(name)),
            (case for name in ALL for case in logit_cases_at(name)),
        )
    )
    ledger.record(*verdicts)
    assert [v.outcome for v in verdicts] == ["supported", "supported"], verdicts


@pytest.mark.claim("DP-1", "toy")
def test_init_value_of_every_loss_is_its_closed_form(ledger: Recorder) -> None:
    values = (value for name in WITH_INIT for value in init_values(name))
    (verdict,) = catalogue.get("DP-1").check(Values(values))
    ledger.record(verdict)
    assert verdict.supported, verdict


@pytest.mark.claim("DP-1", "tiny")
def test_init_value_of_trls_trainer_and_of_the_toy_llama_is_the_closed_form(
    ledger: Recorder,
) -> None:
    values = [*trl_init_values("qwen3"), *trl_init_values("llama"), toy_llama_value()]
    # float32, with log-ratios of exactly 0: a dozen roundings of the constants
    (verdict,) = catalogue.get("DP-1").check(Values(values, "tiny", 16 * EPSILON32))
    ledger.record(verdict)
    assert verdict.supported, verdict


@pytest.mark.claim("DP-2", "toy")
def test_gradient_of_dpo_is_the_weighted_difference_and_constants_drop_out(
    ledger: Recorder,
) -> None:
    cases = [fixed_pairs(seed) for seed in range(20)]
    constant = PromptConstant(get_loss("sigmoid").function, same_constant, cases, beta=0.3)
    claim = catalogue.get("DP-2")
    verdicts = [*claim.check(gradient_identity()), *claim.check(constant)]
    ledger.record(*verdicts)
    assert [v.outcome for v in verdicts] == ["supported", "supported"], verdicts


@pytest.mark.claim("DP-3", "toy")
def test_losses_equal_trls_at_given_log_probs(ledger: Recorder) -> None:
    # the bound in units of each peer's own precision: TRL's ORPO, and the ε of its EXO, are float32
    peers = [peer for peer in PEERS if peer.loss not in ("orpo", "exo_pair")]
    pairs = (p.measure(fixed_pairs(seed)) for p in peers for seed in range(5))
    (verdict,) = catalogue.get("DP-3").check(Agreement(pairs))
    ledger.record(verdict)
    assert verdict.supported, verdict


@pytest.mark.claim("DP-3", "tiny")
def test_losses_equal_trls_in_every_parameter_gradient_of_a_tiny_qwen3(ledger: Recorder) -> None:
    pairs = (model_measurements(name) for name in MODEL_PEERS)
    (verdict,) = catalogue.get("DP-3").check(Agreement(pairs, "tiny", MODEL_BOUND))
    ledger.record(verdict)
    assert verdict.supported, verdict
