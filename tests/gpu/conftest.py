"""Every test here needs a CUDA device and says so when there is none, but in a rehearsal.

With `--rehearse` each runs end to end wherever it is, on a two-layer model and a handful of rows,
so that no line of it is new when a GPU comes. What it then finds is never recorded.
"""

import pytest
import torch

from squeeze.data.loading import load_examples
from squeeze.files import write_text


@pytest.fixture(autouse=True)
def _needs_cuda(rehearsing):
    if not (rehearsing or torch.cuda.is_available()):
        pytest.skip("needs a CUDA device, and this machine has none; run `pytest -m gpu` on one")


@pytest.fixture(scope="session")
def rehearsing(pytestconfig):
    """Whether the tests are small and their verdicts worth nothing."""
    return pytestconfig.getoption("--rehearse")


@pytest.fixture(scope="session")
def device():
    """Where the tests compute: on a CPU in a rehearsal without a GPU alone."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """The rehearsal's model, of the 4B model's architecture, as a directory."""
    from tests.tiny_model import save_tiny_model

    place = tmp_path_factory.mktemp("small") / "qwen3"
    return str(save_tiny_model(place, "qwen3", max_position_embeddings=2048))


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """The rehearsal's eighteen rows, in the columns of the published data."""
    import json

    path = tmp_path_factory.mktemp("small") / "pairs.jsonl"
    rows = [
        {"prompt": e.prompt[-1].content, "chosen": e.chosen, "rejected": e.rejected}
        for e in load_examples("enthusiastic_en")[:18]
    ]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
