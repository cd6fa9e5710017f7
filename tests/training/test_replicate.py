"""The main job end to end, on a tiny real model: what it leaves behind, and what it refuses."""

import json
import shutil

import pytest
import torch

from squeeze.errors import InputError
from squeeze.replicate import replicate
from squeeze.training.config import make_config
from squeeze.trajectory import Trajectory

pytestmark = pytest.mark.cpu


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_config):
    out = tmp_path_factory.mktemp("run") / "tiny"
    return out, replicate(tiny_config, out)


def test_every_file_of_the_contract_is_written(finished):
    out, _ = finished
    names = {path.name for path in out.iterdir()}
    assert {
        "trajectory.parquet",
        "run.json",
        "verdicts.json",
        "samples.json",
        "config.yaml",
        "report.md",
        "index.html",
        "figures",
    } <= names
    assert not [name for name in names if name.startswith(".")]


def test_every_arm_is_probed_before_training_after_sft_and_after_every_dpo_epoch(finished):
    trajectory = Trajectory.read(finished[0] / "trajectory.parquet")
    phases = {arm: [p.phase for p in trajectory.points(arm)] for arm in trajectory.arms()}
    assert phases == {
        "dpo": ["base", "dpo", "dpo", "dpo"],
        "sft-dpo": ["base", "sft", "dpo", "dpo", "dpo"],
        "extend-dpo": ["base", "sft", "dpo", "dpo", "dpo"],
    }


def test_every_probe_scores_every_kind_of_every_example(finished):
    frame = Trajectory.read(finished[0] / "trajectory.parquet").frame
    kinds = {
        "chosen",
        "rejected",
        "chosen_rephrased",
        "chosen_format",
        "rejected_rephrased",
        "rejected_format",
        "other_answer",
        "unseen_answer",
        "permuted",
        "random",
    }
    for _, probe in frame.groupby(["arm", "probe"]):
        assert set(probe["kind"]) == kinds
        assert (probe.groupby("example")["kind"].nunique() == len(kinds)).all()
    assert (frame["logp"] <= frame["argmax_logp"]).all()
    assert frame["peakiness"].between(0, 1).all()


def test_dpo_moves_the_margin_and_starts_from_the_same_model_in_every_arm(finished):
    trajectory = Trajectory.read(finished[0] / "trajectory.parquet")
    starts = [trajectory.by_example(a, "chosen", "train")[0] for a in trajectory.arms()]
    assert all(start.equals(starts[0]) for start in starts)
    for arm in trajectory.arms():
        gap = (
            trajectory.by_example(arm, "chosen", "train")
            - trajectory.by_example(arm, "rejected", "train")
        ).mean()
        assert gap.iloc[-1] > gap.iloc[0]


def test_run_json_says_what_was_run(finished, tiny_config):
    out, _ = finished
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["config"] == tiny_config.as_dict()
    assert run["model"]["sha256"]
    assert run["data"]["sha256"]
    assert run["versions"]["torch"] == torch.__version__
    assert run["seconds"]["probe"] > 0
    assert run["peak_memory_mb"]["resident"] > 100


def test_samples_join_to_the_chosen_answer_and_cover_every_phase(finished):
    samples = json.loads((finished[0] / "samples.json").read_text())
    for entry in samples["tokens"]:
        text = "".join(token["text"] for token in entry["tokens"])
        assert text.startswith(entry["chosen"])
    phases = {(g["arm"], g["phase"]) for g in samples["generations"]}
    assert phases == {
        ("dpo", "base"),
        ("dpo", "dpo"),
        ("sft-dpo", "base"),
        ("sft-dpo", "sft"),
        ("sft-dpo", "dpo"),
        ("extend-dpo", "base"),
        ("extend-dpo", "sft"),
        ("extend-dpo", "dpo"),
    }


def test_resuming_a_finished_run_trains_nothing_and_judges_again(finished, tiny_config):
    out, verdicts = finished
    before = (out / "trajectory.parquet").stat().st_mtime_ns
    assert replicate(tiny_config, out, resume=True) == verdicts
    assert (out / "trajectory.parquet").stat().st_mtime_ns == before


def test_a_kill_between_the_last_probe_and_the_runs_own_file_loses_nothing(
    finished, tiny_config, tmp_path
):
    out = tmp_path / "killed"
    shutil.copytree(finished[0], out)
    whole = Trajectory.read(out / "trajectory.parquet")
    last = (whole.frame["arm"] == whole.arms()[-1]) & (
        whole.frame["probe"] == whole.frame["probe"].max()
    )
    assert last.any()
    Trajectory(whole.frame[~last]).write(out / "trajectory.parquet")
    about = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(about | {"status": "running"}))
    replicate(tiny_config, out, resume=True)
    assert Trajectory.read(out / "trajectory.parquet").frame.equals(whole.frame)


def test_another_run_in_out_is_refused_unless_resumed_or_forced(finished, tiny_config):
    with pytest.raises(InputError, match=r"already holds a run.*--resume.*--force"):
        replicate(tiny_config, finished[0])


def test_resuming_with_another_configuration_names_the_difference(finished, tiny_options):
    with pytest.raises(InputError, match=r"--beta was 0\.1, now 0\.5"):
        replicate(make_config(tiny_options | {"beta": 0.5}), finished[0], resume=True)


def test_a_directory_of_somebody_else_is_never_touched(tmp_path, tiny_config):
    precious = tmp_path / "thesis.tex"
    precious.write_text("do not lose")
    for options in ({}, {"force": True}, {"resume": True}):
        with pytest.raises(InputError, match="not a run of squeeze"):
            replicate(tiny_config, tmp_path, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_model_with_nan_weights_stops_the_run_and_names_the_example(
    tmp_path, nan_directory, tiny_options
):
    with pytest.raises(InputError, match=r"log-prob of example 'en-\d+', chosen, is nan"):
        replicate(make_config(tiny_options | {"model": str(nan_directory)}), tmp_path / "out")


def test_forcing_a_run_that_cannot_start_loses_nothing(finished, tiny_options):
    out, _ = finished
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(InputError, match="--pairs"):
        replicate(make_config(tiny_options | {"pairs": 10_000}), out, force=True)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_forcing_starts_over(finished, tiny_options, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    options = tiny_options | {"arms": "dpo", "epochs": 1}
    replicate(make_config(options), out, force=True)
    trajectory = Trajectory.read(out / "trajectory.parquet")
    assert trajectory.arms() == ["dpo"]
    assert len(trajectory.points("dpo")) == 2


def test_a_training_of_more_than_a_day_must_be_wanted(tmp_path, tiny_options):
    options = tiny_options | {"epochs": 10**12, "arms": "dpo"}
    for resume in (False, True):  # refused once, it is refused again
        with pytest.raises(InputError, match=r"projected to train for [\d,.]+ days.*--yes"):
            replicate(make_config(options), tmp_path / "out", resume=resume)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["status"] == "running"


def test_bad_data_is_refused_before_anything_is_written(tmp_path, tiny_options):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="--pairs"):
        replicate(make_config(tiny_options | {"pairs": 10_000}), out)
    assert not out.exists() or not any(out.iterdir())
