"""Shape checks, hypothesis profiles, and the tiny model that tests of several stations share."""

import gc

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.examples import PROFILE

settings.load_profile(PROFILE)

# Every shape annotation of these packages is checked while tests run; benchmarks measure without.
ARRAYS = (
    *("theory", "losses", "kernels", "scoring", "tree_attention", "text_statistics", "scan"),
    *("claims", "study", "training.loss_trainer"),
)
install_import_hook([f"squeeze.{name}" for name in ARRAYS], "beartype.beartype")


@pytest.fixture(scope="session", autouse=True)
def _cheap_collections():
    """Leave what is imported by now out of garbage collection, which ends every training.

    accelerate collects there: 0.4 s of a tiny training's 1.0 (of 0.6 then), two hundred times.
    """
    gc.freeze()
    yield
    gc.unfreeze()  # or libraries that look for leaks at the end of the process report all of it


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory):
    """A tiny real model as `save_pretrained` writes it."""
    from tests.tiny_model import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
