"""Arms on Ray: the trajectories of one process, a killed worker's phase gone on with, bad input."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from squeeze.errors import InputError
from squeeze.study import engine
from squeeze.study.engine import WORKERS, Plan, Seed, check_engine, cluster, train_on_ray
from squeeze.study.seed_run import Experiment
from squeeze.study.study import Study
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


def test_a_phase_that_arms_share_is_one_task_after_the_one_it_begins_from(config):
    (seed,) = plan_of([config], Path("work")).seeds
    found = list(seed.prefixes().values())
    assert found == [(ARMS[0], 0), (ARMS[0], 1), (ARMS[0], 2), (ARMS[1], 2)]


def test_the_plan_says_arms_phases_epochs_and_disk(config, tmp_path):
    said = str(plan_of([config, config], tmp_path / "work"))
    assert said.startswith("4 arms on 2 seeds: 6 phases (shared ones once), 26 epochs; ")
    assert "GB are free" in said


BAD = {
    "an unknown engine": (("slurm", None), "--engine must be one of local, ray, not 'slurm'"),
    "an address without Ray": (("local", "auto"), "--address is Ray's; add --engine ray"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_engine_names_the_way_out(case):
    given, sentence = BAD[case]
    with pytest.raises(InputError, match=sentence):
        check_engine(*given)


def test_ray_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'dpo-squeeze\[ray\]'"):
        check_engine("ray", None)


def test_a_worker_that_does_not_see_the_store_says_so_and_trains_nothing(config, tmp_path):
    plan = plan_of([config], tmp_path)
    said = engine._phase(plan, 0, ARMS[0], 0, ".engine-elsewhere", None)
    assert "does not see" in said
    assert "file system that all machines share" in said
    assert list(tmp_path.iterdir()) == []


def test_a_worker_without_the_model_says_which_and_where(config, tmp_path):
    plan = plan_of([replace(config, model="/nowhere/model")], tmp_path)
    (tmp_path / "mark").touch()
    said = engine._phase(plan, 0, ARMS[0], 0, "mark", None)
    assert "/nowhere/model" in said
    assert engine.platform.node() in said
    assert engine._phase(plan, 0, ARMS[0], 1, "mark", said) == said


@pytest.fixture(scope="module")
def killed(config, tmp_path_factory):
    """Both arms on two workers of a local Ray, one of them killed inside DPO."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'dpo-squeeze[ray]'")
    work = tmp_path_factory.mktemp("ray") / "work"
    victims: list[int] = []

    def kill() -> None:
        while not victims:
            for probes in work.glob("*/sft-dpo-*/trajectory.parquet"):
                (worker,) = workers(probes.parent)
                os.kill(worker, signal.SIGKILL)
                victims.append(worker)
                break
            time.sleep(0.02)

    threading.Thread(target=kill, daemon=True).start()
    said: list[tuple[int, int, str]] = []
    with cluster():
        plan = plan_of([config], work)
        missing = train_on_ray(plan, said=lambda *s: said.append(s))
    assert missing == {}
    return work, victims, said


def workers(place):
    return [json.loads(line)["pid"] for line in (place / WORKERS).read_text().splitlines()]


def test_a_killed_worker_s_phase_goes_on_and_nothing_runs_twice(killed):
    work, (victim,), said = killed
    began = {place.parent.name: workers(place.parent) for place in work.glob(f"*/*/{WORKERS}")}
    assert len(began) == 4  # the untrained model, SFT once, two losses
    assert sum(len(pids) for pids in began.values()) == 5
    (again,) = [pids for pids in began.values() if victim in pids and len(pids) == 2]
    assert again[1] != victim
    assert [done for done, _, _ in said] == [1, 2, 3, 4]


def test_trajectories_on_ray_are_those_of_one_process(killed, config, tmp_path):
    ours = Experiment(config, cache=killed[0], locks=False).trajectory(*ARMS).frame
    theirs = Experiment(config, cache=tmp_path).trajectory(*ARMS).frame
    assert ours[KEYS].to_numpy().tolist() == theirs[KEYS].to_numpy().tolist()
    # the float32 rounding of tests/training/test_distributed.py
    np.testing.assert_allclose(ours["logp"], theirs["logp"], rtol=1e-5)


def test_no_cluster_at_an_address_is_one_sentence():
    pytest.importorskip("ray", reason="needs Ray: pip install 'dpo-squeeze[ray]'")
    sentence = r"no Ray cluster answers at 127\.0\.0\.1.*ray start --head"
    with pytest.raises(InputError, match=sentence), cluster("127.0.0.1:1"):
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
