"""The tiny language model's directory, pretrained once and cached on disk by content."""

import pytest


@pytest.fixture(scope="session")
def tiny_lm_directory():
    from squeeze.tinylm import tiny_lm

    return tiny_lm()
