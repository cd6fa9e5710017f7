"""An experiment's arms, trained by whoever comes first."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
from filelock import FileLock

from squeeze.errors import InputError
from squeeze.study.seed_run import Experiment

pytestmark = pytest.mark.cpu


def test_an_arm_that_another_run_is_at_is_left_to_it(tiny_config, tmp_path):
    experiment = Experiment(tiny_config, cache=tmp_path)
    place = experiment.arms.place(tiny_config.arm("sft-1").phases)
    place.directory.mkdir(parents=True)
    with FileLock(place.directory / "lock"):
        assert not experiment.train("sft-1", wait=False)
        assert not place.adapter.exists()
    assert experiment.train("sft-1", wait=False)
    assert place.adapter.exists()


def test_a_recorded_arm_is_not_trained_again_on_another_machine(tiny_config, tmp_path):
    here = Experiment(tiny_config, cache=tmp_path / "here", records=tmp_path / "records")
    measured, log = here.trajectory("sft-1"), here.log("sft-1")
    there = Experiment(tiny_config, cache=tmp_path / "there", records=tmp_path / "records")

    there.arms.stepped = lambda phase: pytest.fail("it trained again")
    pd.testing.assert_frame_equal(there.trajectory("sft-1").frame, measured.frame)
    assert there.log("sft-1") == log


def test_weights_that_the_records_lack_are_trained_again_where_answers_need_them(
    tiny_config, tmp_path
):
    records, phases = tmp_path / "records", tiny_config.arm("sft-1").phases
    here = Experiment(tiny_config, cache=tmp_path / "here", records=records)
    here.train("sft-1")
    there = Experiment(tiny_config, cache=tmp_path / "there", records=records, recorded=True)
    with pytest.raises(InputError, match=r"hold probes and no weights.*without --recorded"):
        there.answers(phases, max_new_tokens=2)
    there = Experiment(tiny_config, cache=tmp_path / "there", records=records)
    assert there.answers(phases, max_new_tokens=2) == here.answers(phases, max_new_tokens=2)


def test_what_is_recorded_alone_is_judged_and_nothing_trained(tiny_config, tmp_path):
    records = tmp_path / "records"
    Experiment(tiny_config, cache=tmp_path / "here", records=records).train("sft-1")
    there = Experiment(tiny_config, cache=tmp_path / "there", records=records, recorded=True)
    assert there.trajectory("sft-1").arms() == ["sft-1"]
    with pytest.raises(InputError, match=r"arm 'dpo' of seed 0 is not recorded.*--recorded"):
        there.trajectory("dpo")


def test_records_of_half_an_arm_do_not_count(tiny_config, tmp_path):
    records = tmp_path / "records"
    here = Experiment(tiny_config, cache=tmp_path / "here", records=records)
    here.train("sft-1")
    steps = []
    there = Experiment(tiny_config, cache=tmp_path / "there", records=records)
    there.arms.stepped = steps.append
    phases = there.config.arm("sft-1").phases
    next((records / there.directory.name).glob("sft-*.parquet")).unlink()
    assert not there.records.holds(there.config.arm("sft-1"))
    there.train("sft-1")
    assert steps
    assert there.records.holds(there.config.arm("sft-1"))
    assert there.records.rows(phases).frame.equals(here.records.rows(phases).frame)


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory):
    """A cache with one arm of SFT and one of DPO after it, and the trajectory of both."""
    cache = tmp_path_factory.mktemp("cache")
    config = replace(tiny_config, epochs=1)
    return config, cache, Experiment(config, cache=cache).trajectory("sft-dpo").frame


def adapters(cache):
    return {p: p.stat().st_mtime_ns for p in cache.rglob("adapter_model.safetensors")}


def test_a_model_that_was_moved_trains_nothing_again(trained, tmp_path):
    config, cache, frame = trained
    before = adapters(cache)
    moved = shutil.copytree(config.model, tmp_path / "moved")
    found = Experiment(replace(config, model=str(moved)), cache=cache).trajectory("sft-dpo").frame
    assert adapters(cache) == before
    assert found.equals(frame)


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "trajectory.parquet"])
def test_a_cached_file_whose_bytes_changed_is_made_again_and_said(trained, tmp_path, name):
    config, cache, frame = trained
    copied = shutil.copytree(cache, tmp_path / "cache")
    experiment, said = Experiment(config, cache=copied), []
    experiment.arms.say = said.append
    place = experiment.arms.place(config.arm("sft-dpo").phases[:1]).directory
    data = bytearray((place / name).read_bytes())
    data[len(data) // 2] ^= 1
    (place / name).write_bytes(data)
    found = experiment.trajectory("sft-dpo").frame
    assert [text.endswith(f"{name} is damaged; it is made again") for text in said] == [True]
    assert found.equals(frame)
