"""An experiment's arms, trained by whoever comes first."""

import pytest
from filelock import FileLock

from squeeze.study.seed_run import Experiment

pytestmark = pytest.mark.cpu


def test_an_arm_that_another_run_is_at_is_left_to_it(tiny_config, tmp_path):
    experiment = Experiment(tiny_config, cache=tmp_path)
    place = experiment.arms.place(tiny_config.arm("sft-1").phases)
    place.directory.mkdir(parents=True)
    with FileLock(place.directory / "lock"):
        assert not experiment.train("sft-1", wait=False)
        assert not place.adapter.exists()
    assert experiment.train("sft-1", wait=False)
    assert place.adapter.exists()
