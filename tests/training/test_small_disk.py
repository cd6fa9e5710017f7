"""A disk that is full or read only: a sentence with the way out, and no half-written file."""

import contextlib
import os
import resource
import subprocess
import sys

import pytest

from squeeze.replicate import replicate
from squeeze.training.config import make_config
from squeeze.trajectory import Trajectory
from tests.training.processes import Group

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs, or limits files' size"),
]


@contextlib.contextmanager
def mounted(place, options):
    """A file system of its own; the test is skipped where this user may mount none."""
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def disk(tmp_path):
    """A file system of two megabytes: the first files of a run fit, its checkpoints do not."""
    with mounted(tmp_path / "disk", "size=2m") as place:
        yield place


def arguments(options, tmp_path):
    import yaml

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(options | {"arms": "dpo", "epochs": 1, "generations": 0}))
    return ["replicate", "--config", path]


def half_written(place):
    return [p.name for p in place.rglob("*") if p.is_file() and p.name.startswith(".")]


def one_sentence(group, *words):
    assert group.wait() == [2], group.output(0)
    said = group.output(0).strip().splitlines()
    assert said[-1].startswith("squeeze: "), group.output(0)
    assert "Traceback" not in group.output(0)
    assert all(word in said[-1] for word in words), said[-1]


def test_a_run_that_fills_its_disk_says_so_and_goes_on_when_there_is_room(
    disk, tmp_path, tiny_options
):
    given = arguments(tiny_options, tmp_path)
    code = "import shutil; u = shutil.disk_usage('/'); shutil.disk_usage = lambda p: u"
    (tmp_path / "roomy.py").write_text(
        code
    )  # or the run would say before it trains that it is full
    group = Group(
        [*given, "--plugin", tmp_path / "roomy.py", "--out", disk / "run"], tmp_path / "n", count=1
    )
    one_sentence(group, "space")
    run = disk / "run"
    assert half_written(run) == []
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
    options = tiny_options | {"arms": "dpo", "epochs": 1, "generations": 0}
    replicate(make_config(options), run, resume=True)
    assert len(Trajectory.read(run / "trajectory.parquet").points("dpo")) == 2


def test_too_little_room_is_said_before_training(disk, tmp_path, tiny_options):
    group = Group([*arguments(tiny_options, tmp_path), "--out", disk / "run"], tmp_path / "n", 1)
    one_sentence(group, "MB free")
    assert half_written(disk) == []


@pytest.mark.parametrize("command", ["convert", "diagnose", "claims"])
def test_commands_that_write_on_a_full_disk_leave_nothing_half_written(command, disk, tmp_path):
    (disk / "filler").write_bytes(b"x" * (disk_free(disk) - 4096))
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"prompt": "Q", "chosen": "yes", "rejected": "no"}\n' * 40_000)
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f'{{"step": {i}, "rewards/chosen": {-i / 9}}}\n' for i in range(40)))
    given = {
        "convert": ["convert", rows, disk / "out.jsonl", "--to", "squeeze"],
        "diagnose": ["diagnose", log, "--report", disk / "page"],
        "claims": ["claims", "--pages", disk / "pages"],
    }[command]
    one_sentence(Group(given, tmp_path / "n", 1), "space")
    assert half_written(disk) == []
    assert not (disk / "out.jsonl").exists()


def disk_free(place):
    found = os.statvfs(place)
    return found.f_bavail * found.f_bsize


@pytest.mark.parametrize("variable", ["SQUEEZE_CACHE", "TMPDIR", "OUT"])
def test_read_only_places_are_named_with_the_way_out(variable, tmp_path, tiny_directory):
    with mounted(tmp_path / "ro", "ro") as place:
        out = place / "out" if variable == "OUT" else tmp_path / "out"
        given = ["compare-losses", "--model", tiny_directory, "--losses", "sigmoid", "--seeds", "0"]
        given += ["--pairs", "2", "--held-out", "1", "--probe-train", "1", "--epochs", "1"]
        given = ["models", "fetch"] if variable == "SQUEEZE_CACHE" else [*given, "--out", out]
        group = Group(given, tmp_path / "n", 1, {variable: str(place)})
        way_out = "--out" if variable == "OUT" else variable
        one_sentence(group, "Read-only file system", way_out)


HOMELESS = """
import os, pwd, sys
os.environ.pop("HOME")
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
from squeeze.cli import main
main()
"""


@pytest.mark.parametrize(("command", "code"), [("diagnose", 0), ("models", 2)])
def test_without_a_home_logs_are_judged_and_for_a_cache_the_way_out_is_said(
    command, code, tmp_path, monkeypatch
):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f'{{"step": {i}, "rewards/chosen": {-i / 9}}}\n' for i in range(40)))
    for name in ("SQUEEZE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    given = ["diagnose", str(log)] if command == "diagnose" else ["models", "list"]
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS, *given], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert code == 0 or "set SQUEEZE_CACHE" in done.stderr


def test_a_limit_on_the_size_of_files_is_one_sentence(tmp_path):
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"prompt": "Q", "chosen": "yes", "rejected": "no"}\n' * 4000)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192));"
        "from squeeze.cli import main; sys.argv = ['squeeze', *sys.argv[1:]]; main()"
    )
    out = tmp_path / "out" / "x.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, "convert", rows, out, "--to", "squeeze"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    said = done.stderr.lstrip()  # rich 13 ends a bar that is not shown with an empty line
    assert said.startswith("squeeze: ")
    assert "File too large" in done.stderr
    assert not any(out.parent.iterdir())
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
