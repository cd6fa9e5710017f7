"""Fixtures that tests of several stations share."""

import pytest


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory):
    """A tiny real model as `save_pretrained` writes it."""
    from tests.tiny_model import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
