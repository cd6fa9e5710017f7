"""A run's directory: its record, its lock, what is left in it and what is not ours."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from squeeze.errors import InputError
from squeeze.run_directory import REPLICATE, RunDirectory, RunRecord
from squeeze.training.phase_place import PhasePlace

pytestmark = pytest.mark.cpu

CONFIG = {"sft_epochs": 1, "seed": 0}


@pytest.fixture
def run(tmp_path):
    """A directory with a finished run's record."""
    directory = RunDirectory(tmp_path / "run")
    directory.open(CONFIG, resume=False, force=False)
    RunRecord("run", CONFIG, command=REPLICATE).write(directory.run_file)
    directory.close()
    return directory


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = RunRecord("a", CONFIG, seconds={"load": 1.5}, verdict="healthy")
    record.more["best"] = {"step": 3}
    record.write(tmp_path / "run.json")
    assert RunRecord.read(tmp_path / "run.json") == record
    assert json.loads((tmp_path / "run.json").read_text())["schema"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": "long"}, "field seconds"),
        ({"seconds": {"load": None}}, "field seconds.load"),
        ({"config": []}, "field config"),
        ({"model": 3}, "field model"),
        ({"name": None}, "field name"),
        ({"schema": 99}, "schema 1"),
    ],
)
def test_a_damaged_record_names_file_and_field(run, change, message):
    value = json.loads(run.run_file.read_text()) | change
    run.run_file.write_text(json.dumps(value))
    with pytest.raises(InputError, match=rf"run\.json.*{message}"):
        run.open(CONFIG, resume=True, force=False)
    assert not (run.path / ".lock").exists()


def test_a_second_process_hears_who_is_there_and_since_when(run):
    run.open(CONFIG, resume=True, force=False)
    for options in ({"resume": True, "force": False}, {"resume": False, "force": True}):
        with pytest.raises(InputError, match=rf"in use by process {os.getpid()} on .* since 20"):
            RunDirectory(run.path).open(CONFIG, **options)
    run.close()
    RunDirectory(run.path).open(CONFIG, resume=True, force=False)


def test_a_dead_process_holds_nothing(run):
    script = (
        "import os, sys; from pathlib import Path; from squeeze.run_directory import RunDirectory\n"
        f"run = RunDirectory(Path({str(run.path)!r}))\n"
        f"run.open({CONFIG!r}, resume=True, force=False)\n"
        "os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert (run.path / ".holder.json").exists()
    assert run.open(CONFIG, resume=True, force=False) is not None
    run.close()
    assert [path.name for path in run.path.iterdir()] == ["run.json"]


def test_temporary_files_of_a_killed_process_are_swept_and_others_kept(run):
    left = [run.path / ".run.json.x1.json", run.path / ".curves.png.x2.png"]
    for place in ("figures", "work/dpo-1"):
        (run.path / place).mkdir(parents=True)
    left += [run.path / "figures" / ".figure4.png.x3.png", run.work / "dpo-1" / ".log.json.x4.json"]
    mine = run.path / ".mine.txt"
    for path in (*left, mine):
        path.touch()
    run.open(CONFIG, resume=True, force=False)
    assert not [path for path in left if path.exists()]
    assert mine.exists()
    run.close()


@pytest.mark.parametrize("config", [{"trainer": "DPOTrainer"}, {"stories": 1}])
def test_a_run_of_another_command_is_not_emptied(tmp_path, config):
    RunRecord("other", config).write(tmp_path / "run.json")
    with pytest.raises(InputError, match="a run of another command than squeeze replicate"):
        RunDirectory(tmp_path).open(CONFIG, resume=False, force=True)
    assert (tmp_path / "run.json").exists()


def test_a_kill_while_a_run_is_cleared_leaves_something_that_is_a_run(run, monkeypatch):
    removed = []
    monkeypatch.setattr("pathlib.Path.unlink", lambda path, **_: removed.append(path.name))
    run.clear()
    assert removed[-1] == "run.json"


def test_a_directory_made_for_nothing_is_removed(tmp_path):
    directory = RunDirectory(tmp_path / "new")
    directory.open(CONFIG, resume=False, force=False)
    directory.close()
    assert not directory.path.exists()


# --- checkpoints ----------------------------------------------------------------------------------


def checkpoint(place, step):
    """What a trainer writes, without a training."""
    directory = place.checkpoint(step)
    directory.mkdir(parents=True)
    save_file({"a": torch.zeros(3)}, directory / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"a": torch.zeros(3)}, directory / name)
    (directory / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return directory


def test_checkpoints_are_ordered_by_step_whatever_the_clock_says(tmp_path):
    place = PhasePlace(tmp_path)
    for age, step in enumerate((100, 20, 3)):  # the clock stepped back: the newest is the oldest
        os.utime(checkpoint(place, step), (age * 1e6, age * 1e6))
    assert place.steps() == [3, 20, 100]
    place.keep_newest()
    assert place.steps() == [20, 100]
    assert place.resume_step([3, 20, 100]) == 100


@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_checkpoint_that_lacks_a_part_is_not_gone_on_from(tmp_path, name, damage):
    place = PhasePlace(tmp_path)
    checkpoint(place, 1)
    broken = checkpoint(place, 2) / name
    assert place.resume_step([1, 2]) == 2
    content = broken.read_bytes()
    broken.unlink()
    if damage == "truncated":
        broken.write_bytes(content[:-3])
    assert place.resume_step([1, 2]) == 1


def test_a_checkpoint_whose_probe_is_missing_is_not_gone_on_from(tmp_path):
    place = PhasePlace(tmp_path)
    checkpoint(place, 1)
    checkpoint(place, 2)
    assert place.resume_step([1]) == 1
    place.mark_between(2)
    assert place.resume_step([1]) == 2
    assert place.resume_step([]) == 2


def test_a_run_is_gone_on_with_or_started_over_and_not_both(tmp_path):
    with pytest.raises(InputError, match="--resume goes on with a run and --force"):
        RunDirectory(tmp_path).open(CONFIG, resume=True, force=True)
