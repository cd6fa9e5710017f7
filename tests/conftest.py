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


# What takes long: tests that start processes of their own (from one fork server), tests that train
# a language model (each claim's own, and its counterfactual), and whole runs and pages.
PROCESSES = (
    "tests/training/test_distributed.py",
    "tests/training/test_resume.py",
    "tests/diagnosis/test_callback_ddp.py",
)
COUNTERFACTUALS = "tests/meta/test_finetuning_counterfactuals.py"
TRAININGS = (
    "tests/lm/test_observations.py",
    "tests/pretrained/test_observations.py",
    COUNTERFACTUALS,
)
RUNS = (
    "tests/training/",
    "tests/cli/",
    "tests/report/",
    "tests/stories/",
    "tests/kernels/test_triton",
)


@pytest.hookimpl(trylast=True)  # what is left once -m and -k have chosen
def pytest_collection_modifyitems(items):
    """What takes long first, and what shares something side by side, in either half.

    Two workers of xdist (--dist worksteal) begin with a half each and take tests from the end of
    the other's: short ones, so that both end together. They seldom need the same fork server, or
    the same training (a claim's and its counterfactual's), at the same time.
    """

    def claim(item):
        found = "-".join(re.search(r"([A-Z]{2})[-_](\d)", item.nodeid).groups())
        return found, item.nodeid.startswith(COUNTERFACTUALS)

    processes = [item for item in items if item.nodeid.startswith(PROCESSES)]
    trainings = sorted((i for i in items if i.nodeid.startswith(TRAININGS)), key=claim)
    longest = [item for item in trainings if claim(item)[0] == "VA-1"]
    others = [item for item in trainings if item not in longest]
    long = {*processes, *trainings}
    rest = [item for item in items if item not in long]
    rest.sort(key=lambda item: not item.nodeid.startswith(RUNS))
    half = max(len(items) // 2 - len(processes) - len(longest), 0)
    items[:] = [*processes, *longest, *rest[:half], *others, *rest[half:]]
