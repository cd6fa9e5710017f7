"""`squeeze report`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import squeeze.cli.report  # noqa: F401 - registers the command
from squeeze.cli.app import app
from squeeze.errors import InputError
from tests.report.synthetic import make_run

pytestmark = pytest.mark.cpu


def test_the_command_rebuilds_a_page_and_says_where_it_is(tmp_path: Path) -> None:
    make_run(tmp_path, arms=("dpo",), kinds=("chosen", "rejected"), n_train=3, epochs=1)
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "index.html" in result.output
    assert (tmp_path / "index.html").exists()


def test_the_command_refuses_a_directory_without_a_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert isinstance(result.exception, InputError)
