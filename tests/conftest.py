"""Shape checks while tests run, and fixtures that tests of several stations share."""

import gc

import pytest
from jaxtyping import install_import_hook

# Every shape annotation in squeeze is checked while tests run (benchmarks measure without). The
# option --jaxtyping-packages refuses a package that is already imported, and pytest imports
# squeeze.pytest_plugin (which annotates no tensor) before any option is read; hence the hook here.
install_import_hook("squeeze", "beartype.beartype")


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory):
    """A tiny real model as `save_pretrained` writes it."""
    from tests.tiny_model import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def quick_collections():
    """Take what is imported by now out of garbage collection.

    accelerate collects at the end of every training, which costs more than a tiny model's steps
    when it goes through every object of torch, transformers and trl.
    """
    import trl.trainer.dpo_trainer
    import trl.trainer.sft_trainer  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
