"""Arms on workers: the order of phases, one process' trajectories, a killed worker, bad input."""

import io
import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from squeeze.cli.engine import shown, table
from squeeze.errors import InputError
from squeeze.study import engine, workers
from squeeze.study.engine import MEASURED, WORKERS, Plan, Seed, WorkerDiedError, train
from squeeze.study.loss_grid import LossGrid
from squeeze.study.seed_run import Experiment
from squeeze.study.study import Study
from squeeze.study.workers import check_engine, ray_workers, slurm_workers
from squeeze.training.config import make_config
from squeeze.trajectory import KEYS

pytestmark = pytest.mark.cpu

ARMS = ("loss-sigmoid", "loss-ipo")


def plan_of(configs, store):
    return Plan(tuple(Seed(config, ARMS) for config in configs), store)


@pytest.fixture(scope="module")
def config(tiny_directory):
    return make_config(
        {"model": str(tiny_directory), "pairs": 4, "held_out": 2, "probe_train": 2, "seed": 0}
        | {"epochs": 6, "sft_epochs": 1, "learning_rate": 0.02}
    )


def test_a_phase_that_arms_share_is_one_row_after_the_one_it_begins_from(config):
    rows = plan_of([config], Path("work")).rows()
    assert [(row.arm, row.length) for row in rows] == [
        *((ARMS[0], 0), (ARMS[0], 1), (ARMS[0], 2)),
        (ARMS[1], 2),
    ]
    assert [row.after for row in rows] == [None, rows[0], rows[1], rows[1]]


class Here:
    """Workers that answer at once: by arm and length None, a reason or "death"."""

    def __init__(self, **answers):
        self.answers, self.began = answers, []

    def begin(self, calls):
        self.began.append([f"{name}{length}".replace("-", "_") for _, _, name, length, _ in calls])
        return [f"{n}:{what}" for n, what in enumerate(self.began[-1], 100 * len(self.began))]

    def ended(self, jobs):
        return jobs

    def answer(self, job):
        said = self.answers.get(job.partition(":")[2])
        said = said.pop(0) if isinstance(said, list) else said
        if said == "death":
            raise WorkerDiedError("killed")
        return said


def test_phases_begin_together_once_what_they_begin_from_is_done(config, tmp_path):
    here, seen = Here(), []
    assert train(plan_of([config], tmp_path), here, lambda rows: seen.append(rows)) == {}
    assert here.began == [["loss_sigmoid0"], ["loss_sigmoid1"], ["loss_sigmoid2", "loss_ipo2"]]
    assert {row.state for row in seen[-1]} == {"done"}
    assert list(tmp_path.iterdir()) == []


def test_an_arm_that_fails_stops_no_other(config, tmp_path):
    here = Here(loss_ipo2="no such loss")
    assert train(plan_of([config], tmp_path), here) == {"loss-ipo": "no such loss"}


def test_what_follows_a_failed_phase_is_not_begun_and_no_arm_at_all_is_an_error(config, tmp_path):
    here = Here(loss_sigmoid1="no model")
    with pytest.raises(InputError, match="no model"):
        train(plan_of([config], tmp_path), here)
    assert here.began == [["loss_sigmoid0"], ["loss_sigmoid1"]]


def test_a_phase_whose_worker_dies_is_begun_again_three_times(config, tmp_path):
    here = Here(loss_sigmoid1=["death", "death", "death", None])
    assert train(plan_of([config], tmp_path), here) == {}
    assert here.began.count(["loss_sigmoid1"]) == 4
    with pytest.raises(InputError, match=r"died 4 times .killed.*type the same command again"):
        train(plan_of([config], tmp_path), Here(loss_sigmoid1=["death"] * 4))


def test_the_plan_says_arms_phases_epochs_hours_and_disk(config, tmp_path):
    plan = plan_of([config, config], tmp_path / "work")
    first, unknown, free = str(plan).split("; ")
    assert first == "4 arms on 2 seeds: 6 phases (shared ones once), 26 epochs"
    assert unknown == "hours and disk are known once a phase of the model is finished here"
    assert "GB are free" in free
    place = tmp_path / "work" / "0-1" / "sft-1"
    place.mkdir(parents=True)
    facts = {"model": config.model, "seconds": 7200, "epochs": 2, "bytes": 5 * 10**8}
    (place / MEASURED).write_text(json.dumps(facts))
    assert str(plan).split("; ")[1] == (
        "about 26 hours of one worker and 3 GB where all are new (1 phases here took 3.6e+03 s an "
        "epoch)"
    )
    (place / MEASURED).write_text("[1]")
    assert str(plan).split("; ")[1] == unknown


def test_in_a_pipe_a_line_tells_of_each_phase_that_ends(config, tmp_path):
    text = io.StringIO()
    with shown(Console(file=text, width=200)) as said:
        train(plan_of([config], tmp_path), Here(loss_ipo2="no [such] loss"), said)
    assert text.getvalue().splitlines() == [
        "1 of 4: seed 0, loss-sigmoid, untrained model: done, in 0 s",
        "2 of 4: seed 0, loss-sigmoid, sft: done, in 0 s",
        "3 of 4: seed 0, loss-sigmoid, dpo: done, in 0 s",
        "4 of 4: seed 0, loss-ipo, dpo: failed, no [such] loss",
    ]


def test_on_a_terminal_a_table_has_what_runs_and_the_time_left(config, tmp_path):
    text = io.StringIO()
    rows = plan_of([config], tmp_path).rows()
    rows[0].state = rows[1].state = "done"
    rows[1].epoch = 1.0
    rows[2].state, rows[2].host, rows[2].epoch = "running", "node-[7]", 2.0
    rows[3].state = "running"
    Console(file=text, width=150).print(table(rows, 3600.0))
    assert "node-[7]" in text.getvalue()
    assert "queued" in text.getvalue()
    assert "2 done, 2 running; about 3.3 h left" in text.getvalue()  # 3 epochs of 13 took an hour
    text = io.StringIO()
    with shown(Console(file=text, width=150, force_terminal=True)) as said:
        said(rows)
    assert "about" in text.getvalue()


BAD = {
    "an unknown engine": (("dask", None), "--engine must be one of local, ray, slurm, not 'dask'"),
    "an address without Ray": (("local", "auto"), "--address is Ray's; add --engine ray"),
    "SLURM's options without SLURM": (("ray", None, "a=1"), "--slurm is for --engine slurm"),
    "no SLURM here": (("slurm", None), "there is no sbatch here"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_engine_names_the_way_out(case, monkeypatch):
    given, sentence = BAD[case]
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(workers.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=sentence):
        check_engine(*given)


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_that_is_not_installed_names_its_extra(name, package, monkeypatch):
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"{package} is not .*'dpo-squeeze\[{name}\]'"):
        check_engine(name, None)


def test_slurm_s_options_are_names_and_values(monkeypatch):
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(workers.shutil, "which", lambda name: "/usr/bin/sbatch")
    found = check_engine("slurm", None, "timeout_min=240, slurm_partition=gpu")
    assert found == {"timeout_min": 240, "slurm_partition": "gpu"}
    with pytest.raises(InputError, match="wants NAME=VALUE with commas, not 'x'"):
        check_engine("slurm", None, "x")


def test_a_worker_that_does_not_see_the_store_says_so_and_trains_nothing(config, tmp_path):
    plan = plan_of([config], tmp_path)
    said = engine.phase(plan, 0, ARMS[0], 0, ".engine-elsewhere")
    assert "does not see" in said
    assert "file system that all machines share" in said
    assert list(tmp_path.iterdir()) == []


def test_a_worker_without_the_model_says_which_and_where(config, tmp_path):
    plan = plan_of([replace(config, model="/nowhere/model")], tmp_path)
    (tmp_path / "mark").mkdir()
    said = engine.phase(plan, 0, ARMS[0], 0, "mark")
    assert "/nowhere/model" in said
    assert engine.platform.node() in said


def test_submitit_s_jobs_answer_and_a_killed_one_has_died(config, tmp_path):
    pytest.importorskip("submitit", reason="needs submitit: pip install 'dpo-squeeze[slurm]'")
    plan = plan_of([config], tmp_path)
    with slurm_workers({"timeout_min": 5}, cluster="local") as found:
        answered, killed = found.begin([(plan, 0, ARMS[0], 0, "elsewhere")] * 2)
        killed.cancel()
        ended = []
        while len(ended) < 2:
            ended = found.ended([answered, killed])
        assert "does not see" in found.answer(answered)
        with pytest.raises(WorkerDiedError):
            found.answer(killed)


def test_an_option_that_submitit_does_not_know_is_one_sentence(config, tmp_path):
    pytest.importorskip("submitit", reason="needs submitit: pip install 'dpo-squeeze[slurm]'")
    with (
        pytest.raises(InputError, match="submitit does not take it"),
        slurm_workers({"no_such_option": 1}, cluster="local") as found,
    ):
        found.begin([(plan_of([config], tmp_path), 0, ARMS[0], 0, "elsewhere")])


@pytest.fixture(scope="module")
def killed(config, tmp_path_factory):
    """Both arms on two workers of a local Ray, one of them killed inside DPO."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'dpo-squeeze[ray]'")
    work = tmp_path_factory.mktemp("ray") / "work"
    victims: list[int] = []

    def kill() -> None:
        while not victims:
            for probes in work.glob("*/sft-dpo-*/trajectory.parquet"):
                (worker,) = pids(probes.parent)
                os.kill(worker, signal.SIGKILL)
                victims.append(worker)
                break
            time.sleep(0.02)

    threading.Thread(target=kill, daemon=True).start()
    said = []
    with ray_workers() as found:
        missing = train(plan_of([config], work), found, lambda rows: said.append(rows))
    assert missing == {}
    return work, victims, said[-1]


def pids(place):
    return [json.loads(line)["pid"] for line in (place / WORKERS).read_text().splitlines()]


def test_a_killed_worker_s_phase_goes_on_and_nothing_runs_twice(killed):
    work, (victim,), rows = killed
    began = {place.parent.name: pids(place.parent) for place in work.glob(f"*/*/{WORKERS}")}
    assert len(began) == 4  # the untrained model, SFT once, two losses
    assert sum(map(len, began.values())) == 5
    (again,) = [found for found in began.values() if victim in found and len(found) == 2]
    assert again[1] != victim
    assert [(row.state, row.epoch) for row in rows] == [
        *(("done", 0.0), ("done", 1.0), ("done", 6.0), ("done", 6.0)),
    ]
    assert all(row.host == engine.platform.node() for row in rows)
    measured = [json.loads(path.read_text()) for path in work.glob(f"*/*/{MEASURED}")]
    assert {one["epochs"] for one in measured} == {1, 6}, "a phase that was gone on with is not"
    assert len(measured) == 2


def test_trajectories_on_ray_are_those_of_one_process(killed, config, tmp_path):
    ours = Experiment(config, cache=killed[0], locks=False).trajectory(*ARMS).frame
    theirs = Experiment(config, cache=tmp_path).trajectory(*ARMS).frame
    assert ours[KEYS].to_numpy().tolist() == theirs[KEYS].to_numpy().tolist()
    # the float32 rounding of tests/training/test_distributed.py
    np.testing.assert_allclose(ours["logp"], theirs["logp"], rtol=1e-5)


def test_no_cluster_at_an_address_is_one_sentence():
    pytest.importorskip("ray", reason="needs Ray: pip install 'dpo-squeeze[ray]'")
    sentence = r"no Ray cluster answers at 127\.0\.0\.1.*ray start --head"
    with pytest.raises(InputError, match=sentence), ray_workers("127.0.0.1:1"):
        pass


def test_a_study_hands_the_arms_of_a_claim_to_its_engine_and_trains_the_rest_itself(
    tiny_directory, tmp_path
):
    plans: list[Plan] = []
    recipe = {"pairs": 4, "held_out": 2, "probe_train": 2, "epochs": 1, "sft_epochs": 1}
    study = Study(
        "pretrained",
        [0],
        model=str(tiny_directory),
        recipe=recipe,
        cache=tmp_path,
        engine=lambda plan: plans.append(plan) or {},
    )
    arms = {"sft": "sft-dpo"}
    study.runs("DO-1", arms)
    (plan,) = plans
    assert plan.store == tmp_path
    assert [(seed.config.seed, seed.arms) for seed in plan.seeds] == [(0, ("sft-dpo",))]
    study.runs("DO-1", arms)
    assert len(plans) == 1, "nothing is left to train"


def test_a_grid_of_losses_hands_them_to_its_engine_and_names_what_failed(config, tmp_path):
    plans: list[Plan] = []
    short = replace(config, epochs=1)
    grid = LossGrid(["sigmoid", "ipo"], {config.model: [short]}, tmp_path / "work")
    found = grid.train(
        config.model, lambda what: None, lambda plan: plans.append(plan) or {ARMS[1]: "no room"}
    )
    assert [(plan.store, [seed.arms for seed in plan.seeds]) for plan in plans] == [
        (tmp_path / "work", [ARMS])
    ]
    assert found.missing == {"ipo": "no room"}
    assert set(found.runs.roles) == {"sigmoid"}
