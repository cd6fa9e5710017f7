"""Bad input on the command line: one clear sentence, exit code 2, nothing written."""

import json
import os
import re
import sys

import pytest
from typer.testing import CliRunner

from squeeze.cli import app, main
from squeeze.losses import LOSSES

pytestmark = pytest.mark.cpu

GOOD = {"prompt": "Why?", "chosen": "Because it is lovely!", "rejected": "Because."}


def rows(*changes):
    return "\n".join(
        json.dumps({**GOOD, "prompt": f"Why {i}?", **c}) for i, c in enumerate(changes)
    )


def run(monkeypatch, capsys, *arguments):
    """Exit code and stderr of `squeeze replicate ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["squeeze", "replicate", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code, capsys.readouterr().err


DATA = {
    "empty": ("", "empty"),
    "not JSON": (rows({}, {}) + "\n{oops\n", "3"),
    "no rejected": (json.dumps({"prompt": "a", "chosen": "b"}), "rejected"),
    "empty response": (rows({}, {"chosen": ""}), r"(?s)2.*chosen"),
    "number for text": (rows({}, {"rejected": 7}), r"(?s)2.*rejected"),
    "chosen is rejected": (rows({}, {"chosen": "Same.", "rejected": "Same."}), r"(?s)2.*rejected"),
    "too few pairs": (rows({}, {}, {}), "--pairs"),
    "too long": (rows(*[{"chosen": "so " * 3000}] * 60), r"(?s)chosen.*tokens.*--too-long"),
}


@pytest.mark.parametrize("case", DATA)
def test_bad_data_is_named_with_row_and_field(case, tmp_path, monkeypatch, capsys, tiny_directory):
    text, message = DATA[case]
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    out = tmp_path / "out"
    arguments = ["--model", tiny_directory, "--data", path, "--out", out]
    code, err = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert err.startswith("squeeze: ")
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 4
    assert re.search(message, err), err
    assert not out.exists() or not any(out.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "enthusiastic_e"], "did you mean 'enthusiastic_en'"),
        (["--data", "nowhere/pairs.jsonl"], "does not exist"),
        (["--model", "smollm2-135"], "did you mean 'smollm2-135m'"),
        (["--pairs", "0"], "--pairs must be positive"),
        (["--pairs", "5000"], "--pairs"),
        (["--arms", "dpo,ppo"], "unknown arm 'ppo'"),
        (["--template", "alpaca"], "unknown template 'alpaca'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_options_are_named_with_the_way_out(
    arguments, message, tmp_path, monkeypatch, capsys, tiny_directory
):
    if "--model" not in arguments:
        arguments = ["--model", tiny_directory, *arguments]
    code, err = run(monkeypatch, capsys, *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_to_write_is_said(tmp_path, monkeypatch, capsys, tiny_directory):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    code, err = run(monkeypatch, capsys, "--model", tiny_directory, "--out", closed / "run")
    assert code == 2
    assert "cannot create --out" in err


def test_out_under_a_file_is_said(tmp_path, monkeypatch, capsys, tiny_directory):
    (tmp_path / "file").write_text("")
    code, err = run(
        monkeypatch, capsys, "--model", tiny_directory, "--out", tmp_path / "file" / "x"
    )
    assert code == 2
    assert "cannot create --out" in err


def test_too_little_disk_space_is_said_before_training(
    tmp_path, monkeypatch, capsys, tiny_directory
):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    quick = ["--arms", "dpo", "--pairs", "2", "--held-out", "1", "--epochs", "1"]
    quick += ["--dtype", "float32"]
    code, err = run(
        monkeypatch, capsys, "--model", tiny_directory, "--out", tmp_path / "out", *quick
    )
    assert code == 2
    assert "has 1 MB free" in err


PLUGIN = """
from squeeze.losses import register_loss

@register_loss("thrice", paper="a test")
def thrice(logps, *, beta: float = 0.1):
    \"\"\"3 × hinge.\"\"\"
    return 3 * (1 - beta * logps.margin).clamp(min=0)
"""


def test_a_loss_of_ones_own_is_trained(tmp_path, tiny_directory):
    plugin, config = tmp_path / "mine.py", tmp_path / "run.yaml"
    plugin.write_text(PLUGIN)
    config.write_text(
        "loss_type: thrice\narms: dpo\npairs: 4\nheld_out: 2\nepochs: 1\ngenerations: 0\n"
        "dtype: float32\n"
    )
    options = ["--config", config, "--plugin", plugin, "--out", tmp_path / "out"]
    try:
        arguments = ["replicate", "--model", tiny_directory, *options]
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    finally:
        LOSSES.pop("thrice", None)
    assert result.exit_code == 0, result.output
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["arms"][0]["phases"][0]["loss_type"] == "thrice"
    assert (tmp_path / "out" / "index.html").is_file()
