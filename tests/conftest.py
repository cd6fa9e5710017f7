"""Shape checks while tests run, and fixtures that tests of several stations share."""

import gc
import re
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Every shape annotation in squeeze is checked while tests run (benchmarks measure without). The
# option --jaxtyping-packages refuses a package that is already imported, and pytest imports
# squeeze.pytest_plugin before any option is read; hence the hook here. Modules that annotate no
# shape are mypy's business: to compile them for checks takes seconds in every process.
SOURCES = Path(__file__).parents[1]
SHAPES = [
    ".".join(path.relative_to(SOURCES).with_suffix("").parts)
    for path in SOURCES.glob("squeeze/**/*.py")
    if "from jaxtyping import" in path.read_text(encoding="utf-8")
]
install_import_hook(SHAPES, "beartype.beartype")


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


# Tests that start processes of their own from one fork server.
PROCESSES = (
    "tests/training/test_distributed.py",
    "tests/training/test_resume.py",
    "tests/diagnosis/test_callback_ddp.py",
)
# Tests that train the tiny language model: each claim's own, and its counterfactual.
TRAININGS = ("tests/lm/test_observations.py", "tests/meta/test_finetuning_counterfactuals.py")


def pytest_collection_modifyitems(items):
    """What takes long first, and what shares something side by side.

    Two workers then seldom need the same fork server or the same training (a claim's and its
    counterfactual's), and none begins a long test at the end.
    """

    def place(item):
        if item.nodeid.startswith(PROCESSES):
            return (0, "", False)
        if not item.nodeid.startswith(TRAININGS):
            return (2, "", False)
        claim = "-".join(re.search(r"([A-Z]{2})[-_](\d)", item.nodeid).groups())
        return (1, "" if claim == "VA-1" else claim, item.nodeid.startswith(TRAININGS[1]))

    items.sort(key=place)
