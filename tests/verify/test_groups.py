"""Group-relative trainers: every check has a fault that it alone catches; TRL's own pass."""

from __future__ import annotations

import pytest
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from squeeze.errors import InputError
from squeeze.verify.cheap import cheap_checks
from squeeze.verify.loading import subject_from
from squeeze.verify.runner import checks_of, failures, verify
from squeeze.verify.tiny import tiny_rows
from squeeze.verify.trl_trainers import tiny_reward, trl_subject
from tests.verify.faulty_groups import GROUP_FAULTS, CompletionsExchanged

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]


def failed(subject):
    return {r.check.id: r.what for r in failures(verify(subject))}


@pytest.mark.parametrize(("check", "trainer"), GROUP_FAULTS.items(), ids=GROUP_FAULTS)
def test_fault_of_a_group_trainer_is_caught_by_its_check_alone(check, trainer, plain_directory):
    found = failed(trl_subject("grpo", trainer_class=trainer, model_directory=plain_directory))
    assert list(found) == [check], found


def test_rollouts_out_of_step_with_their_rewards_are_found(plain_directory):
    found = failed(
        trl_subject("grpo", trainer_class=CompletionsExchanged, model_directory=plain_directory)
    )
    assert list(found) == ["rollout-tokens"], found


def test_every_check_of_group_trainers_has_a_fault(plain_directory):
    subject = trl_subject("grpo", model_directory=plain_directory)
    assert [check.id for check in checks_of(subject)] == list(GROUP_FAULTS)


ODD = {
    "GRPO": ("grpo", {}),
    "GRPO, one's own temperature": ("grpo", {"temperature": 0.7, "loss_type": "grpo"}),
    "GRPO, sequence ratio": ("grpo", {"importance_sampling_level": "sequence"}),
    "GRPO, not scaled": ("grpo", {"scale_rewards": "none", "loss_type": "dr_grpo"}),
    "GRPO, scaled by the batch": ("grpo", {"scale_rewards": "batch", "loss_type": "bnpo"}),
    "GRPO, penalty": ("grpo", {"beta": 0.04, "epsilon_high": 0.28}),
    "GRPO, a batch in two steps": ("grpo", {"num_iterations": 2}),
    "CISPO": ("grpo", {"loss_type": "cispo"}),
    "RLOO": ("rloo", {}),
    "RLOO, normalized": ("rloo", {"normalize_advantages": True, "reward_clip_range": (1.0, 4.0)}),
}


@pytest.mark.parametrize(("name", "settings"), ODD.values(), ids=ODD)
def test_trls_own_pass_however_they_are_configured(name, settings, plain_directory):
    results = verify(trl_subject(name, model_directory=plain_directory, **settings))
    assert not failures(results), {r.check.id: r.what for r in failures(results)}
    assert sum(r.outcome == "passes" for r in results) >= 11


def make_trainer(model, data, **options):
    return GRPOTrainer(
        model=model,
        reward_funcs=tiny_reward,
        args=GRPOConfig(**{"num_generations": 8} | options),
        train_dataset=data,
    )


def test_factory_of_a_group_trainer_and_a_finished_one_are_asked_the_same(tmp_path):
    subject = subject_from(make_trainer, name="mine")
    asked = [r.check.id for r in verify(subject, only=["policy-gradient"])]
    assert asked[-1] == "policy-gradient"
    model = subject.fresh_model()
    options = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    trainer = make_trainer(
        model, Dataset.from_list(tiny_rows()), max_completion_length=8, **options
    )
    results = {r.check.id: r for r in verify(subject_from(trainer, name="mine"))}
    assert not failures(results.values())
    assert results["policy-gradient"].outcome == "passes"
    assert results["policy-step"].outcome == "does not apply"
    with pytest.raises(InputError, match="squeeze verify"):
        cheap_checks(trainer)
