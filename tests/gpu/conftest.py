"""Every test here needs a CUDA device and says so when there is none."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _needs_cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and this machine has none; run `pytest -m gpu` on one")
