"""The base install: what works without torch, and what a command says that lacks its extra."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import squeeze
from squeeze.extras import EXTRAS, way_out

pytestmark = pytest.mark.cpu

ROOT = Path(__file__).parents[1]
LOG = (
    '{"step": 1, "rewards/chosen": 0.0, "rewards/rejected": 0.0, "loss": 0.693}\n'
    '{"step": 2, "rewards/chosen": 0.1, "rewards/rejected": -0.3, "loss": 0.6}\n'
)
BASE = """
from importlib.machinery import PathFinder
from squeeze.extras import EXTRAS

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name in EXTRAS else find(name, *rest)

from squeeze.cli import main

main()
"""


def base(*arguments, cwd):
    command = [sys.executable, "-c", BASE, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_a_log_is_judged_without_torch(tmp_path):
    (tmp_path / "log.jsonl").write_text(LOG)
    done = base("diagnose", "log.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("log: ")


def test_a_logs_page_needs_the_extra_report_alone(tmp_path):
    (tmp_path / "log.jsonl").write_text(LOG)
    without_train = BASE.replace("name in EXTRAS", 'EXTRAS.get(name) == "train"')
    command = [sys.executable, "-c", without_train, "report", "log.jsonl", "--out", "page"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "evidence-0" in (tmp_path / "page" / "index.html").read_text()
    lacking = base("report", "log.jsonl", "--out", "other", cwd=tmp_path)
    assert lacking.returncode == 2
    assert "pip install 'dpo-squeeze[report]'" in lacking.stderr


def test_help_version_and_the_shipped_results_need_no_torch(tmp_path):
    assert "diagnose" in base("--help", cwd=tmp_path).stdout
    assert base("--version", cwd=tmp_path).stdout == f"squeeze {squeeze.__version__}\n"
    shipped = base("claims", cwd=tmp_path)
    assert shipped.returncode == 0, shipped.stderr
    assert re.search(r"^SM-1 ", shipped.stdout, re.MULTILINE)
    assert "supported" in shipped.stdout


@pytest.mark.parametrize("command", ["replicate --quick", "claims SM-4", "scan enthusiastic_en"])
def test_a_command_says_in_one_sentence_which_extra_it_lacks(command, tmp_path):
    done = base(*command.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(
        r"squeeze: \w+ is not installed; run: pip install 'dpo-squeeze\[train\]'\n", done.stderr
    )


def test_a_missing_package_that_is_in_no_extra_stays_an_error():
    assert way_out(ModuleNotFoundError("No module named 'nothing'", name="nothing")) is None


def test_every_extra_that_is_named_exists_and_brings_the_package():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for package, extra in EXTRAS.items():
        assert any(package in requirement for requirement in extras[extra]), package
