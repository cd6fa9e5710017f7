"""The tiny language model's directory and its registered experiments, cached on disk by content."""

import pytest

from squeeze.tinylm import tiny_examples, tiny_lm
from squeeze.training.experiment import Pairs
from squeeze.training.observations import Observatory


@pytest.fixture(scope="session")
def tiny_lm_directory():
    return tiny_lm()


@pytest.fixture(scope="session")
def observatory(tiny_lm_directory):
    """Build the registered experiments on the evaluation seeds, or on others."""

    def pairs(seed):
        return Pairs(*tiny_examples(24, 8, seed))

    def build(seeds=None, **options):
        return Observatory("tiny", seeds, model=str(tiny_lm_directory), pairs=pairs, **options)

    return build
