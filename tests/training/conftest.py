"""A configuration that trains the tiny model in seconds."""

import pytest

from squeeze.training.recipes import make_config


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
    }


@pytest.fixture(scope="session")
def tiny_config(tiny_options):
    return make_config(tiny_options)
