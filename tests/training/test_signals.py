"""Signals: a run that is asked to stop saves its step, says how to go on, and loses nothing."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from squeeze import interrupt
from squeeze.replicate import replicate
from squeeze.training.config import make_config
from squeeze.training.phase_place import PhasePlace
from squeeze.trajectory import KEYS, Trajectory
from tests.training.processes import PATIENCE, Group

pytestmark = pytest.mark.cpu


@pytest.fixture(scope="module")
def options(tiny_options):
    """Six steps an epoch, so that a signal falls between probes."""
    sizes = {"pairs": 6, "batch_size": 1, "epochs": 2, "generations": 0, "learning_rate": 1e-3}
    return tiny_options | sizes | {"arms": "dpo", "lora_dropout": 0.1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, options):
    """The trajectory of a run that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "run"
    replicate(make_config(options), out)
    return Trajectory.read(out / "trajectory.parquet").frame


def assert_same(out, whole):
    found = Trajectory.read(out / "trajectory.parquet").frame
    assert found[KEYS].to_numpy().tolist() == whole[KEYS].to_numpy().tolist()
    np.testing.assert_allclose(found["logp"], whole["logp"], atol=1e-4)


def wait_for(condition, group):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert group.processes[0].is_alive(), group.output(0)
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.02)


def test_a_cluster_s_sigterm_stops_after_the_step_and_the_run_goes_on(options, whole, tmp_path):
    config_file, out = tmp_path / "config.yaml", tmp_path / "out"
    config_file.write_text(yaml.safe_dump(options))
    arguments = ["replicate", "--config", config_file, "--out", out]
    group = Group(arguments, tmp_path / "notes", count=1)
    wait_for(lambda: [*out.glob("work/dpo-*/lock")], group)  # the training begins
    os.kill(group.processes[0].pid, signal.SIGTERM)
    assert group.wait() == [128 + signal.SIGTERM]
    said = group.output(0)
    assert f"stopped by SIGTERM; go on with: squeeze replicate --config {config_file}" in said
    assert "--resume" in said
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]

    (place,) = (PhasePlace(path) for path in (out / "work").glob("dpo-*"))
    [step] = place.steps()
    assert step % 6 > 0, "the signal fell on a probe"
    replicate(make_config(options), out, resume=True)
    assert_same(out, whole)


TRAINERS = {
    "compare-losses": (
        *("--losses", "sigmoid", "--seeds", "0", "--pairs", "4", "--held-out", "2"),
        *("--probe-train", "2", "--epochs", "500", "--sft-epochs", "1", "--out", "OUT"),
    ),
    "observe": ("pretrained", "--claims", "DO-1", "--seeds", "0", "--out", "OUT"),
    "stories": ("--quick", "--out", "OUT"),
}


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("compare-losses", signal.SIGTERM),
        ("observe", signal.SIGINT),
        ("stories", signal.SIGTERM),
    ],
)
def test_every_training_stops_after_its_step_and_says_how_to_go_on(
    command, number, tiny_directory, tmp_path
):
    out = tmp_path / "out"
    given = [str(out) if word == "OUT" else word for word in TRAINERS[command]]
    if command != "stories":
        given += ["--model", str(tiny_directory)]
    variables = {"SQUEEZE_CACHE": str(tmp_path / "cache")}
    group = Group([command, *given], tmp_path / "notes", count=1, variables=variables)

    def training():
        locks = [*tmp_path.rglob("sft-*/lock"), *tmp_path.rglob("dpo-*/lock")]
        return locks or (out / "work" / "base").exists()

    wait_for(training, group)
    os.kill(group.processes[0].pid, number)
    assert group.wait() == [128 + number], group.output(0)
    said = " ".join(group.output(0).split())
    assert f"stopped by {number.name}; go on with: squeeze {command}" in said
    assert ("--resume" in said) == (command == "stories")
    assert "Traceback" not in said
    saved = [*tmp_path.rglob("checkpoint-*/trainer_state.json"), *tmp_path.rglob("sft-*/adapter")]
    assert saved, "the step in hand was saved, or it was the phase's last"


def test_two_processes_stop_together_and_go_on(options, whole, tmp_path):
    config_file, out = tmp_path / "config.yaml", tmp_path / "out"
    shared = options | {"pairs": 6, "batch_size": 2, "epochs": 200}
    config_file.write_text(yaml.safe_dump(shared))
    group = Group(["replicate", "--config", config_file, "--out", out], tmp_path / "notes", count=2)
    wait_for(lambda: [*out.glob("work/dpo-*/trajectory.parquet")], group)
    for process in group.processes:  # torchrun hands the signal on to all
        os.kill(process.pid, signal.SIGTERM)
    assert group.wait() == [128 + signal.SIGTERM] * 2, group.output(0) + group.output(1)
    assert "stopped by SIGTERM; go on with: squeeze replicate" in group.output(0)
    assert "squeeze: stopped" not in group.output(1)
    (place,) = (PhasePlace(path) for path in (out / "work").glob("dpo-*"))
    probed = Trajectory.read(place.directory / "trajectory.parquet").points("")
    assert place.resume_step([point.step for point in probed]) == place.steps()[-1]


@pytest.fixture
def stopped(options, tmp_path, monkeypatch):
    """A run that was stopped at step 8 of 12, after the probe at 6."""
    asked = []

    def requested():
        asked.append(None)
        return len(asked) > 8  # once before the phase

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(interrupt, "requested", requested)
        with pytest.raises(interrupt.Interrupted) as found:
            replicate(make_config(options), out)
    assert found.value.code == 128 + signal.SIGTERM
    (place,) = (PhasePlace(path) for path in (out / "work").glob("dpo-*"))
    return out, place


def test_a_truncated_checkpoint_is_fallen_back_from_and_said(stopped, options, whole, capsys):
    out, place = stopped
    older, newest = place.steps()
    assert (older, newest) == (6, 8)
    optimizer = place.checkpoint(newest) / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-100])
    replicate(make_config(options), out, resume=True)
    assert_same(out, whole)


def test_a_probed_checkpoint_that_is_lost_is_trained_again_and_said(
    stopped, options, whole, capsys
):
    out, place = stopped
    for step in place.steps():
        (place.checkpoint(step) / "scheduler.pt").unlink()
    replicate(make_config(options), out, resume=True)
    said = " ".join(capsys.readouterr().out.split())
    assert "the checkpoint of step 6 is not whole; the phase goes on from its start" in said
    assert_same(out, whole)


WAITING = """
import sys, time
from squeeze.interrupt import interruptible, stop_if_requested
with interruptible("squeeze again"):
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
        if "gentle" in sys.argv:
            stop_if_requested()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("gentle", [True, False])
def test_the_first_signal_waits_for_a_safe_place_and_the_second_does_not(number, gentle):
    command = [sys.executable, "-c", WAITING, *(["gentle"] if gentle else [])]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    while "stopping after the step in hand" not in process.stderr.readline():
        assert process.poll() is None
    if gentle:
        assert process.wait(PATIENCE) == 128 + number
        assert f"stopped by {number.name}; go on with: squeeze again" in process.stderr.read()
    else:
        process.send_signal(number)
        assert process.wait(PATIENCE) == -number
    process.stdout.close()
    process.stderr.close()


def test_the_command_that_goes_on_does_not_start_over(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["squeeze", "replicate", "--force", "--out", "a b"])
    assert interrupt.again("--resume") == "squeeze replicate --out 'a b' --resume"
