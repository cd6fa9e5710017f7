"""Killed at any moment, a run resumes from its last probe and ends as if nothing had happened."""

import signal
import time

import numpy as np
import pytest
import yaml

from squeeze.replicate import replicate
from squeeze.training.config import make_config
from squeeze.trajectory import KEYS, Trajectory
from tests.training.processes import PATIENCE, Group

pytestmark = pytest.mark.cpu


def _probes(out):
    path = out / "trajectory.parquet"
    return (
        len(Trajectory.read(path).frame.drop_duplicates(["arm", "probe"])) if path.exists() else 0
    )


def _kill_after(probes, config_file, out, notes):
    """Start or resume the run, and SIGKILL it as soon as so many probes are on disk."""
    group = Group(["replicate", "--config", config_file, "--out", out, "--resume"], notes, count=1)
    [process] = group.processes
    deadline = time.monotonic() + PATIENCE
    while _probes(out) < probes:
        assert process.is_alive(), group.output(0)
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.02)
    process.kill()
    assert group.wait() == [-signal.SIGKILL]


def test_a_killed_run_resumes_to_the_same_trajectory(tmp_path, tiny_options):
    options = tiny_options | {"arms": "dpo,sft-dpo", "epochs": 2, "generations": 0}
    config, whole = make_config(options), tmp_path / "whole"
    replicate(config, whole)

    config_file, out = tmp_path / "config.yaml", tmp_path / "killed"
    config_file.write_text(yaml.safe_dump(options))
    # 2 probes are the untrained model; 3: inside DPO of the first arm; 6: of the second.
    for probes in (3, 6):
        _kill_after(probes, config_file, out, tmp_path / f"notes-{probes}")
    left = _probes(out)
    replicate(config, out, resume=True)

    expected, actual = (
        Trajectory.read(p / "trajectory.parquet").frame.sort_values(KEYS) for p in (whole, out)
    )
    assert left < len(expected.drop_duplicates(["arm", "probe"])), "nothing was left to resume"
    assert actual[KEYS].to_numpy().tolist() == expected[KEYS].to_numpy().tolist()
    np.testing.assert_allclose(actual["logp"], expected["logp"], atol=1e-4)
    np.testing.assert_allclose(actual["argmax_logp"], expected["argmax_logp"], atol=1e-4)
