"""The folds that the CPU can run, as one parametrised fixture."""

from __future__ import annotations

import pytest

from squeeze.kernels.native import load_native
from squeeze.kernels.online import EagerFold, Fold


@pytest.fixture(params=["eager", "native"])
def fold(request: pytest.FixtureRequest) -> Fold:
    """Each CPU fold in turn."""
    if request.param == "eager":
        return EagerFold()
    native = load_native()
    if native is None:
        pytest.skip("no C compiler with OpenMP here: the native fold cannot be built")
    return native
