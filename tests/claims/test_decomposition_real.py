"""The decomposition on a real LM with LoRA: a preference pair's step, seen on a held-out answer."""

from __future__ import annotations

import resource
import time

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from squeeze import models
from squeeze.claims.decomposition import Predictions, System, check_first_order
from squeeze.data.encoding import EncodedItem, encode_item
from squeeze.data.loading import load_examples, split
from squeeze.data.probe_set import build_probe_set
from squeeze.theory.decomposition import UpdateTerm, logp_residual, predicted_change
from squeeze.theory.entk import (
    estimate_entk_norm,
    response_positions,
    sequence_logits,
    trainable_parameters,
)
from tests.theory.assertions import Ledger

pytestmark = pytest.mark.pretrained

MODEL = "smollm2-135m"
# Settled on the development seeds 0–4; each seed draws one pair to step on and one to observe.
EVALUATION_SEEDS = (100, 101, 102, 103, 104)
# At 1e-2 the largest change of a token's log-prob is 0.15 to 0.4 nats, a usual step's; there the
# error was 0.7 to 2%, at 1e-1 7 to 19%, and below 1e-3 float32 rounding is most of it.
LEARNING_RATE = 1e-2
HALF_BETA = 0.05  # DPO's weight β(1 − a) on either log-prob at the reference, β = 0.1
N_OBSERVED = 40


@pytest.fixture(scope="module")
def systems(request: pytest.FixtureRequest) -> list[System]:
    """One system a seed, all on the same adapted model."""
    if request.config.getoption("--squeeze-model") != MODEL:
        pytest.skip(f"the learning rate was settled on {MODEL}, which --squeeze-model replaces")
    if not models.is_cached(MODEL):
        pytest.skip(f"{MODEL} is not cached; run: squeeze models fetch {MODEL}")
    model, tokenizer = models.load(MODEL)
    torch.manual_seed(0)
    adapted = get_peft_model(
        model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    ).eval()
    seeds = EVALUATION_SEEDS[:2] if request.config.getoption("--quick") else EVALUATION_SEEDS
    return [build(adapted, tokenizer, seed) for seed in seeds]


def build(model: nn.Module, tokenizer: object, seed: int) -> System:
    """DPO's step on one training pair at the reference, seen on a held-out pair's chosen answer."""
    train, held_out = split(load_examples("enthusiastic_en"), 1, 1, seed)
    stepped, seen = (
        encode_item(tokenizer, item) for item in build_probe_set(train, held_out).items
    )
    terms = [
        _term(model, stepped, "chosen", -HALF_BETA),
        _term(model, stepped, "rejected", HALF_BETA),
    ]
    ids = torch.tensor(seen.prompt_ids + seen.response_ids["chosen"])
    positions = response_positions(len(seen.prompt_ids), len(ids))[:N_OBSERVED]
    observed = sequence_logits(model, ids, positions)
    return System("SmolLM2", observed, terms, trainable_parameters(model), seed)


def _term(model: nn.Module, item: EncodedItem, kind: str, weight: float) -> UpdateTerm:
    ids = torch.tensor(item.prompt_ids + item.response_ids[kind])
    positions = response_positions(len(item.prompt_ids), len(ids))
    targets = torch.tensor(item.response_ids[kind])
    return UpdateTerm(sequence_logits(model, ids, positions), logp_residual(targets, weight), kind)


@pytest.mark.claim("LD-1", "pretrained")
def test_LD_1_one_step_on_a_real_model_is_predicted(systems: list[System], ledger: Ledger) -> None:
    (verdict,) = check_first_order(Predictions(systems, learning_rate=LEARNING_RATE))
    ledger.record(verdict)
    assert verdict.supported


def test_LD_1_a_step_predicted_with_the_wrong_sign_is_contradicted(systems: list[System]) -> None:
    flipped = Predictions(systems[:2], lambda *given: -predicted_change(*given), LEARNING_RATE)
    (verdict,) = check_first_order(flipped)
    assert verdict.outcome == "contradicted"


def test_a_prediction_for_a_pair_takes_less_than_a_minute_and_six_gigabytes(
    systems: list[System],
) -> None:
    system = systems[0]
    start = time.process_time()  # not the clock: the machine may be busy with other work
    change = predicted_change(system.observed, system.terms, system.parameters, LEARNING_RATE)
    assert time.process_time() - start < 2 * 60  # a minute on two cores
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 6 * 2**20  # KiB on Linux
    assert change.isfinite().all()


def test_the_kernels_norm_is_estimated_within_its_standard_error(
    systems: list[System], request: pytest.FixtureRequest
) -> None:
    """Two independent estimates agree within four standard errors of their difference."""
    system = systems[0]
    given = (system.observed, system.terms[0].logits, system.parameters)
    n = 4 if request.config.getoption("--quick") else 8
    first, second = (estimate_entk_norm(*given, n_probes=n, seed=seed) for seed in (0, 1))
    spread = (first.standard_error**2 + second.standard_error**2) ** 0.5
    assert abs(first.norm - second.norm) < 4 * spread
