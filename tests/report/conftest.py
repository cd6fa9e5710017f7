"""The full synthetic report, built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from squeeze.report import build_report
from tests.report.synthetic import make_run


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three arms with its report."""
    directory = make_run(tmp_path_factory.mktemp("report") / "synthetic", epochs=5)
    build_report(directory)
    return directory
