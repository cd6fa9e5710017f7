"""Runs `triton_cases.py` and `fused_cases.py` in processes that interpret Triton on the CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("name", ["triton_cases.py", "fused_cases.py"])
def test_the_triton_kernels_are_correct_in_the_interpreter(name: str) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed (pip install triton; it has wheels for Linux only)")
    cases = Path(__file__).with_name(name)
    # The interpreter computes with numpy, which warns where Triton is silent on NaN and overflow.
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider"),
        *("-p", "no:xdist", "-W", "ignore::RuntimeWarning", str(cases)),
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    child = subprocess.run(
        command, cwd=cases.parents[2], env=environment, capture_output=True, text=True, timeout=300
    )
    assert child.returncode == 0, child.stdout + child.stderr
    assert " passed" in child.stdout
    assert "skipped" not in child.stdout.splitlines()[-1]
