"""Every check has a trainer that it alone catches; a healthy trainer passes them all."""

from __future__ import annotations

import pytest

from squeeze.verify.runner import checks_of, failures, verify
from squeeze.verify.subject import TrainerSubject
from squeeze.verify.trl_trainers import trl_subject
from tests.verify.faulty import FAULTS, Fault, Healthy

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]


def subject_with(fault: Fault, plain_directory, bos_directory) -> TrainerSubject:
    return trl_subject(
        "dpo",
        trainer_class=fault.trainer,
        model_directory=bos_directory if fault.bos else plain_directory,
        data=fault.rows() if fault.rows else None,
        **fault.settings,
    )


@pytest.mark.parametrize("fault", FAULTS, ids=str)
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
    assert silent == ([] if bos else ["one-bos"])


def test_every_check_of_trainers_of_pairs_has_a_fault(plain_directory):
    subject = trl_subject("dpo", model_directory=plain_directory)
    assert {check.id for check in checks_of(subject)} == {fault.check for fault in FAULTS}
