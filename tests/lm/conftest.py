"""The tiny language model's directory and its registered experiments, cached on disk by content."""

import pytest

from squeeze.study.study import Observatory
from squeeze.study.tiny_lm import tiny_lm


@pytest.fixture(scope="session")
def tiny_lm_directory():
    return tiny_lm()


@pytest.fixture(scope="session")
def observatory():
    return Observatory("tiny")
