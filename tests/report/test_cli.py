"""`squeeze report`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import squeeze.cli.report  # noqa: F401 - registers the command
from squeeze.cli.app import app
from squeeze.errors import InputError
from tests.diagnosis.logs import trainer_state, trl_records
from tests.report.page_text import Page
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


def test_the_command_takes_a_log_and_links_its_verdict_to_its_evidence(tmp_path: Path) -> None:
    records = trl_records(n=12)
    log = trainer_state(tmp_path / "trainer_state.json", records)
    result = CliRunner().invoke(app, ["report", str(log), "--out", str(tmp_path / "page")])
    assert result.exit_code == 0, result.output
    page = Page(tmp_path / "page" / "index.html")
    places = {a.get("id") for _, a in page.tags}
    links = {a["href"][1:] for tag, a in page.tags if tag == "a" and a.get("href", "")[:1] == "#"}
    assert "evidence-0" in links <= places
    logged = [
        float(r["value"]) for r in page.data if (r["series"], r["unit"]) == ("chosen", "reward")
    ]
    assert logged == [pytest.approx(r["rewards/chosen"]) for r in records]
