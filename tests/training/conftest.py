"""A configuration that trains the tiny model in seconds."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from squeeze.training.config import make_config


@pytest.fixture(scope="session")
def tiny_options(tiny_directory):
    return {
        "model": str(tiny_directory),
        "pairs": 4,
        "held_out": 2,
        "probe_train": 3,
        "epochs": 3,
        "sft_epochs": 1,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "sft_learning_rate": 1e-2,
        "dtype": "float32",
        "generations": 1,
        "max_new_tokens": 8,
    }


@pytest.fixture(scope="session")
def tiny_config(tiny_options):
    return make_config(tiny_options)


@pytest.fixture
def nan_directory(tiny_directory, tmp_path):
    """The tiny model with every weight NaN."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_directory, broken)
    for shard in broken.glob("*.safetensors"):
        tensors = {name: t.fill_(float("nan")) for name, t in load_file(shard).items()}
        save_file(tensors, shard, metadata={"format": "pt"})
    return broken
