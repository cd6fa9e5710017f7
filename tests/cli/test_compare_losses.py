"""`squeeze compare-losses` end to end on a tiny real model, and what it refuses."""

import json
import re
import shutil

import pytest
from typer.testing import CliRunner

from squeeze.cli import app
from squeeze.cli.compare_losses import _clear
from squeeze.errors import InputError
from squeeze.losses import LOSSES
from squeeze.run_directory import held

pytestmark = pytest.mark.cpu

PLUGIN = '''
from squeeze.losses import PairLogps, register_loss

@register_loss("twice", paper="a test")
def twice(logps: PairLogps, *, beta: float = 0.1):
    """2 × hinge."""
    return 2 * (1 - beta * logps.margin).clamp(min=0)
'''


@pytest.fixture(scope="module")
def compared(tmp_path_factory, tiny_directory):
    directory = tmp_path_factory.mktemp("losses")
    plugin = directory / "mine.py"
    plugin.write_text(PLUGIN)
    arguments = [
        *("compare-losses", "--model", str(tiny_directory)),
        *("--losses", "sigmoid,ipo,ipo:tau=0.5,twice"),
        *("--seeds", "0", "--pairs", "4", "--held-out", "2", "--probe-train", "2"),
        *("--epochs", "4", "--sft-epochs", "1", "--learning-rate", "0.02"),
        *("--plugin", str(plugin), "--out", str(directory / "out")),
    ]
    result = CliRunner().invoke(app, arguments)
    LOSSES.pop("twice")
    return arguments, directory / "out", result


def test_it_writes_the_table_the_figure_and_the_verdicts(compared):
    _, out, result = compared
    assert result.exit_code == 0, result.output
    assert {p.name for p in out.iterdir()} >= {"losses.csv", "losses.json", "losses.md"}
    assert (out / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "index.html").read_text().count("<tr>") > 20
    rows = json.loads((out / "losses.json").read_text())["rows"]
    ends = {
        row["loss"]: row["effect"]
        for row in rows
        if (row["split"], row["cut"], row["column"]) == ("train", "end", "margin")
    }
    assert set(ends) == {"sigmoid", "ipo", "ipo:tau=0.5", "twice"}
    assert len(set(ends.values())) == 4, "different losses, trained apart, end apart"


def test_a_second_run_trains_nothing(compared):
    arguments, out, _ = compared
    trained = {p: p.stat().st_mtime_ns for p in out.glob("work/*/*/trajectory.parquet")}
    assert len(trained) == 6  # the untrained model, SFT once, and four losses
    plan = CliRunner().invoke(app, [*arguments, "--plan"])
    LOSSES.pop("twice", None)
    assert "0 of 4 trainings to do" in plan.stdout
    result = CliRunner().invoke(app, [*arguments, "--json"])
    LOSSES.pop("twice", None)
    assert result.exit_code == 0, result.output
    assert {p: p.stat().st_mtime_ns for p in trained} == trained
    assert '"rows"' in result.stdout


def test_a_second_model_and_seed_stand_beside_the_first(compared, tiny_directory, tmp_path):
    arguments, out, _ = compared
    other = shutil.copytree(tiny_directory, tmp_path / "other")
    mine = [*arguments, "--losses", "sigmoid", "--epochs", "1"]
    mine[mine.index("--model") + 1] = f"{other}"
    mine[mine.index("--seeds") + 1] = "0,1"
    plan = CliRunner().invoke(app, [*mine, "--plan"])
    LOSSES.pop("twice", None)
    assert "2 of 2 trainings to do" in plan.stdout
    result = CliRunner().invoke(app, mine)
    LOSSES.pop("twice", None)
    assert result.exit_code == 0, result.output
    rows = json.loads((out / "losses.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {str(tiny_directory), str(other)}
    mean, *by_seed = [
        row
        for row in rows
        if row["model"] == str(other)
        and (row["split"], row["cut"], row["column"]) == ("train", "end", "chosen")
    ]
    assert [mean["seed"], *(row["seed"] for row in by_seed)] == ["all", "0", "1"]
    assert mean["effect"] == pytest.approx(sum(row["effect"] for row in by_seed) / 2)


def test_force_removes_experiments_alone_and_none_of_a_live_run(tmp_path, tiny_directory):
    work = tmp_path / "out" / "work"
    ours, mine = work / "0-0123456789abcdef", work / "notes-2024"
    for place in (ours, mine):
        place.mkdir(parents=True)
    given = ["compare-losses", "--model", str(tiny_directory), "--losses", "sigmoid", "--force"]
    with held(tmp_path / "out"):
        result = CliRunner().invoke(app, [*given, "--seeds", "0", "--out", str(tmp_path / "out")])
    assert re.search(r"in use by process \d+ on .* since 20", str(result.exception))
    assert ours.exists()
    _clear(work)
    assert [place.name for place in work.iterdir()] == ["notes-2024"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--losses", "sigmoit"], "did you mean 'sigmoid'"),
        (["--losses", ","], "at least one loss"),
        (["--losses", "ipo:beta=1"], "ipo has no hyper-parameter 'beta'; it has tau"),
        (["--losses", "ipo:tau=much"], "'much' is no number"),
        (["--model", ","], "at least one model"),
        (["--seeds", "a"], "whole numbers"),
        (["--seeds", "1,1"], "distinct whole numbers"),
        (["--plugin", "nowhere.py"], "nowhere.py is not a file"),
        (["--pairs", "0"], "--pairs must be positive"),
        (["--epochs", "1000000000"], "more than a day even at a millisecond"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words):
    result = CliRunner().invoke(app, ["compare-losses", *arguments])
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)
