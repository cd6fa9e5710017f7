"""`squeeze stories` from end to end at a size that proves nothing but that it runs, and resumes."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from squeeze.cli import main
from squeeze.errors import InputError
from squeeze.files import read_json, write_json
from squeeze.run_directory import RunDirectory, RunRecord
from squeeze.study.stories import run as stories_run
from squeeze.study.stories.generator import make_stories
from squeeze.study.stories.recipe import Schedule, StoryRecipe, quick
from squeeze.study.stories.report import write_report
from squeeze.study.stories.run import ARMS, COMMAND, FILES, StoryRun, tell_stories

pytestmark = pytest.mark.cpu

TINY = replace(
    quick(),
    stories=24,
    instructed=8,
    pairs=4,
    prompts=2,
    samples=1,
    vocabulary=300,
    hidden_size=48,
    layers=1,
    max_length=1000,
    max_new_tokens=12,
    pretraining=Schedule(1, 3e-3, 16),
    sft=Schedule(1, 2e-3, 8),
    dpo=Schedule(3, 1e-2, 4),
    looks=(1, 2),
)
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("stories") / "run"
    return out, tell_stories(TINY, out, console=QUIET)


def test_a_run_leaves_its_files_and_a_verdict_for_each_arm_and_part(finished):
    out, verdicts = finished
    assert {path.name for path in out.iterdir()} == {*FILES, "run.json", "work"}
    assert len(verdicts) == 6
    assert {v.claim for v in verdicts} == {"RP-1"}
    assert read_json(out / "run.json")["status"] == "finished"


def test_the_report_shows_every_model_beside_the_true_story(finished):
    out, _ = finished
    truth = read_json(out / "texts.json")["prompts"][0]["text"]
    for name in ("report.md", "index.html"):
        page = (out / name).read_text()
        assert truth.split(". ")[0] in page
        for title in ("base", "after SFT", "DPO, 1 epoch", "DPO, 3 epochs", "ground truth"):
            assert title in page


def test_a_run_outside_of_a_checkout_has_its_report(finished, tmp_path):
    out, verdicts = finished
    run = read_json(out / "run.json")
    run.pop("git", None)
    write_json(tmp_path / "run.json", run)
    shutil.copy(out / "texts.json", tmp_path)
    assert "after SFT" in write_report(tmp_path, verdicts).read_text()


@pytest.mark.parametrize(
    "texts", [[["a", "b"], ["c", "d"]], [["a"]], [["a", None]], {"0": ["a", "b"]}]
)
def test_damaged_texts_are_named_with_the_way_out(texts, tmp_path):
    directory = RunDirectory(tmp_path, COMMAND, FILES)
    run = StoryRun(TINY, directory, RunRecord("a", {}), QUIET)
    run.held_out = make_stories(TINY.prompts, 0)
    write_json(directory.work / "texts" / "sft.json", texts)
    with pytest.raises(InputError, match=r"texts/sft\.json.*delete it and resume"):
        run.texts("sft")


def epochs(out, arm):
    """What TRL logged of an arm, a row an epoch; not its clock, nor its count of tokens."""
    keys = ("epoch", "loss", "grad_norm", "rewards/margins", "logps/chosen", "logps/rejected")
    rows = [row for row in read_json(out / "texts.json")["log"][arm] if "loss" in row]
    return [{key: row[key] for key in keys} for row in rows]


def test_dpo_pushes_the_rejected_stories_down_and_its_control_has_another_gradient(finished):
    first, *_, last = epochs(finished[0], "dpo")
    assert last["logps/rejected"] < first["logps/rejected"]
    assert last["rewards/margins"] > 0
    control = epochs(finished[0], "control")[0]
    assert control["loss"] == pytest.approx(first["loss"])
    assert control["grad_norm"] != pytest.approx(first["grad_norm"], rel=0.01)


def test_a_run_stopped_inside_dpo_resumes_to_the_same_texts(finished, tmp_path, monkeypatch):
    """Stopped while it looks at the model after the second epoch, as a kill there would."""
    out, sampled = tmp_path / "run", []

    def dies(*args, **kwargs):
        # base, sft and the rejected stories come first, then a look an epoch
        if len(sampled) == 4:
            raise KeyboardInterrupt
        sampled.append(generate(*args, **kwargs))
        return sampled[-1]

    generate = stories_run.generate_answers
    with monkeypatch.context() as patched:
        patched.setattr(stories_run, "generate_answers", dies)
        with pytest.raises(KeyboardInterrupt):
            tell_stories(TINY, out, console=QUIET)
    assert read_json(out / "run.json")["status"] == "running"
    checkpoints = sorted(p.name for p in (out / "work" / "dpo").glob("checkpoint-*"))
    assert checkpoints == ["checkpoint-1", "checkpoint-2"]  # the second not yet looked at
    base = (out / "work" / "base" / "adapter" / "model.safetensors").stat().st_mtime_ns

    tell_stories(TINY, out, resume=True, console=QUIET)
    whole, resumed = (read_json(path / "texts.json") for path in (finished[0], out))
    assert resumed["texts"] == whole["texts"]
    assert all(epochs(out, arm) == epochs(finished[0], arm) for arm in ARMS)
    assert (out / "work" / "base" / "adapter" / "model.safetensors").stat().st_mtime_ns == base


def test_a_finished_run_only_judges_again(finished, monkeypatch):
    out, verdicts = finished
    monkeypatch.setattr(stories_run.StoryRun, "_train", None)
    assert tell_stories(TINY, out, resume=True, console=QUIET) == verdicts


def test_another_run_in_out_is_refused_unless_resumed_or_forced(finished):
    with pytest.raises(InputError, match=r"already holds a run.*--resume.*--force"):
        tell_stories(TINY, finished[0])
    with pytest.raises(InputError, match=r"another configuration.*--seed was 0, now 1"):
        tell_stories(replace(TINY, seed=1), finished[0], resume=True)


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not a run of squeeze"):
        tell_stories(TINY, tmp_path, force=True)


def test_too_few_stories_are_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    data, out = tmp_path / "stories.json", tmp_path / "out"
    data.write_text(json.dumps([{"prompt": "Tell:", "story": "Once upon a time."}] * 3))
    monkeypatch.setattr(
        sys, "argv", ["squeeze", "stories", "--quick", "--data", str(data), "--out", str(out)]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "has 3 stories of at most 320 tokens" in capsys.readouterr().err
    assert not out.exists()


def test_the_full_recipe_looks_at_its_last_epoch_once():
    recipe = StoryRecipe()
    assert recipe.watched[-1] == recipe.dpo.epochs
    assert len(set(recipe.watched)) == len(recipe.watched)
