"""Tiny models on disk, shared by all subjects; warnings of the libraries below are not ours."""

import pytest

from squeeze.verify.tiny import save_tiny


@pytest.fixture(scope="session", autouse=True)
def quiet_libraries():
    from squeeze.training.trainers import quiet

    quiet()


@pytest.fixture(scope="session")
def plain_directory(tmp_path_factory):
    """A tiny model whose tokenizer has no beginning-of-text token."""
    return save_tiny(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="session")
def bos_directory(tmp_path_factory):
    """A tiny model whose tokenizer has one, which its template writes."""
    from transformers import AutoTokenizer

    directory = save_tiny(tmp_path_factory.mktemp("bos") / "model")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.bos_token = "~"
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    tokenizer.save_pretrained(directory)
    return directory
