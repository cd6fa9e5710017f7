"""Training of all weights: the same road as LoRA's, with a reference of its own."""

import math
from dataclasses import replace

import pytest
import torch

from squeeze.scoring import score_responses
from squeeze.study.seed_run import Experiment

pytestmark = pytest.mark.cpu


@pytest.fixture(scope="module")
def experiment(tiny_config, tmp_path_factory):
    full = replace(tiny_config, finetuning="full", learning_rate=1e-3, sft_learning_rate=1e-3)
    made = Experiment(full, cache=tmp_path_factory.mktemp("full"))
    made.train("sft-dpo")
    return made


def test_dpo_after_sft_starts_at_the_sft_model_and_takes_it_as_its_reference(experiment):
    phases = experiment.config.arm("sft-dpo").phases
    sft = experiment.arms.model(phases[:1]).state_dict()
    base = experiment.arms.base.state_dict()
    assert any(not torch.equal(sft[name], base[name]) for name in base)
    first = experiment.log("sft-dpo")[1][0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-5)


def test_every_weight_is_trained_and_what_is_kept_scores_as_the_last_probe_did(experiment):
    phases = experiment.config.arm("sft-dpo").phases
    sft, dpo = (experiment.arms.model(phases[:n]) for n in (1, 2))
    moved = [
        name
        for (name, before), after in zip(
            sft.named_parameters(), dict(dpo.named_parameters()).values(), strict=True
        )
        if not torch.equal(before, after)
    ]
    assert len(moved) == len(list(sft.named_parameters()))
    frame = experiment.trajectory("sft-dpo").frame
    last = frame[frame["probe"] == frame["probe"].max()].set_index(["example", "kind"])["logp"]
    for again in score_responses(dpo, experiment.arms.items):
        row = again.summary()
        assert row.logp == pytest.approx(last[row.example, row.kind], abs=1e-3)


def test_lora_is_another_experiment(experiment, tiny_config):
    assert Experiment(tiny_config).directory.name != experiment.directory.name
