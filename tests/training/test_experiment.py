"""An experiment's arms, trained by whoever comes first."""

import shutil
from dataclasses import replace

import pytest
from filelock import FileLock

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
