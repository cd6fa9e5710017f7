"""Every check has a trainer that it alone catches; a healthy trainer passes them all."""

from __future__ import annotations

import pytest

from squeeze.verify.runner import checks_of, failures, verify
from squeeze.verify.subject import TrainerSubject
from squeeze.verify.trl_trainers import trl_subject
from tests.verify.faulty import FAULTS, Fault, Healthy
from tests.verify.more_faults import MORE_FAULTS

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]


def subject_with(fault: Fault, plain_directory, bos_directory) -> TrainerSubject:
    return trl_subject(
        "dpo",
        trainer_class=fault.trainer,
        model_directory=bos_directory if fault.bos else plain_directory,
        data=fault.rows() if fault.rows else None,
        **fault.settings,
    )


def named(fault):
    return f"{fault.check}-{fault.trainer.__name__}"


@pytest.mark.parametrize("fault", [*FAULTS, *MORE_FAULTS], ids=named)
def test_fault_is_caught_by_its_check_alone(fault, plain_directory, bos_directory):
    results = verify(subject_with(fault, plain_directory, bos_directory))
    assert [r.check.id for r in failures(results)] == [fault.check], {
        r.check.id: r.what for r in failures(results)
    }


@pytest.mark.parametrize("bos", [False, True], ids=["no-bos", "bos"])
def test_healthy_trainer_passes_every_check(bos, plain_directory, bos_directory):
    results = verify(subject_with(Fault("none", Healthy, bos=bos), plain_directory, bos_directory))
    assert not failures(results), [r.what for r in failures(results)]
    silent = [r.check.id for r in results if r.outcome != "passes"]
    assert silent == ["packing"] if bos else ["one-bos", "packing"]  # TRL pads all the same


def test_every_check_of_trainers_of_pairs_has_a_fault(plain_directory):
    subject = trl_subject("dpo", model_directory=plain_directory)
    assert {check.id for check in checks_of(subject)} == {fault.check for fault in FAULTS}


# what TRL's trainers can be told, all of it sound
ODD = {
    "label smoothing": ("dpo", {"label_smoothing": 0.1}),
    "losses with weights": (
        "dpo",
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    ),
    "length-desensitized": ("dpo", {"ld_alpha": 0.5}),
    "WPO's weights": ("dpo", {"use_weighting": True}),
    "forward KL": ("dpo", {"f_divergence_type": "forward_kl"}),
    "Jensen-Shannon": ("dpo", {"f_divergence_type": "js_divergence"}),
    "alpha divergence": ("dpo", {"f_divergence_type": "alpha_divergence"}),
    "anchored": ("dpo", {"loss_type": ["apo_zero"]}),
    "length-normalized": ("dpo", {"loss_type": ["sigmoid_norm"]}),
    "sorted": ("dpo", {"loss_type": ["aot"], "label_smoothing": 0.2}),
    "reference precomputed": ("dpo", {"precompute_ref_log_probs": True}),
    "accumulation": ("dpo", {"gradient_accumulation_steps": 2}),
    "small beta": ("dpo", {"beta": 0.001}),
    "KTO with weights": ("kto", {"desirable_weight": 2.0}),
    "CPO's SFT term over tokens": ("cpo", {"loss_type": "ipo"}),
    "SimPO with label smoothing": ("simpo", {"label_smoothing": 0.1}),
    "rewards centred": ("reward", {"center_rewards_coefficient": 0.01}),
    "SFT on prompts as well": ("sft", {"completion_only_loss": False}),
    "SFT packed": ("sft", {"packing": True}),
}


@pytest.mark.parametrize(("name", "settings"), ODD.values(), ids=ODD)
def test_sound_trainer_of_odd_configuration_passes(name, settings, plain_directory):
    subject = trl_subject(
        name,
        model_directory=plain_directory,
        trainer_class=Healthy if name == "dpo" else None,
        **settings,
    )
    known = {"dropout-disabled"}  # TRL's own: tests/verify/faulty.py, Healthy
    if name in ("cpo", "simpo"):
        known.add("answer-tokens")  # a second end-of-text token; docs/verify-outcomes.md
    found = {r.check.id: r.what for r in failures(verify(subject))}
    assert set(found) <= known, found


def test_prompts_cut_at_their_start_are_cut_and_nothing_else(plain_directory):
    settings = {"max_length": 40, "truncation_mode": "keep_end"}
    subject = trl_subject("dpo", model_directory=plain_directory, trainer_class=Healthy, **settings)
    assert [r.check.id for r in failures(verify(subject))] == ["uncut"]


def test_packed_rows_that_see_each_other_are_found(plain_directory):
    settings = {"packing": True, "packing_strategy": "wrapped", "max_length": 96}
    subject = trl_subject("sft", model_directory=plain_directory, **settings)
    assert [r.check.id for r in failures(verify(subject))] == ["packing"]
