"""`squeeze claims`: the table, one claim, JSON, and what it says to bad input."""

import json
import sys

import pytest
from typer.testing import CliRunner

from squeeze import cli
from squeeze.claims import Verdict, catalogue
from squeeze.claims.catalogue import Claim
from squeeze.claims.ledger import merge, new_entry
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """A ledger in which T-1 is supported and T-2 was never run."""
    claims = [
        Claim("T-1", "water is wet", "§1", "theorem", ("toy",), "a desert", print, math="w > [0]"),
        Claim("T-2", "fire is hot", "§2", "trend", ("toy", "gpu"), "ice", print, run="pytest -k T"),
    ]
    catalogue.load()  # or a module imported later would add its claims to the made-up ones
    monkeypatch.setattr(catalogue, "_CLAIMS", {claim.id: claim for claim in claims})
    monkeypatch.setattr(catalogue, "load", lambda: dict(catalogue._CLAIMS))
    monkeypatch.setenv("COLUMNS", "120")
    verdict = Verdict(
        "T-1", "toy", "supported", "wetness", 2.0, (1.9, 2.1), bound=0.0, n=7, seeds=(100, 101),
        comparison="against dew", evidence={"driest": 0.25},
    )  # fmt: skip
    merge(tmp_path, [new_entry(verdict, claims[0], seconds=1.5, test="test_it.py::test_a[x]")])
    return tmp_path


def claims(*arguments):
    return CliRunner().invoke(cli.app, ["claims", *map(str, arguments)])


def words(line):
    return " ".join(line.split())


def test_the_table_shows_every_claim_at_every_level(reports):
    result = claims("--reports", reports)
    assert result.exit_code == 0
    lines = [words(line) for line in result.output.splitlines()]
    assert lines[:5] == [
        "T-1 water is wet",
        "toy supported 2 [1.9, 2.1] n=7 against dew",
        "T-2 fire is hot",
        "toy not run",
        "gpu not run",
    ]
    assert lines[5].startswith("1 supported, 2 not run; from ")


def test_the_table_fits_a_narrow_terminal_without_losing_a_column(reports, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = claims("--reports", reports).output.splitlines()
    assert words(lines[1]) == "toy supported 2 [1.9, 2.1] n=7 against dew"
    assert len(lines[1].rstrip()) <= 80


def test_without_a_ledger_nothing_has_run(reports, tmp_path):
    result = claims("--reports", tmp_path / "empty")
    assert "3 not run" in result.output
    assert not (tmp_path / "empty").exists()


def test_one_claim_shows_its_words_its_evidence_and_how_to_run_it(reports):
    result = claims("T-1", "--reports", reports)
    lines = [words(line) for line in result.output.splitlines()]
    for expected in [
        "sentence water is wet",
        "math w > [0]",
        "source §1",
        "kind theorem",
        "counterfactual a desert",
        "toy supported",
        "wetness 2 [1.9, 2.1]",
        "bound 0",
        "seeds 100, 101",
        "rests on n=7, 2 seeds",
        "driest 0.25",
        "run again pytest 'test_it.py::test_a[x]'",
    ]:
        assert expected in lines
    assert "fire" not in result.output


def test_a_claim_that_never_ran_says_how_to_run_it(reports):
    lines = [words(line) for line in claims("T-2", "--reports", reports).output.splitlines()]
    assert {"run pytest -k T", "toy not run", "gpu not run"} <= set(lines)


def test_json_holds_the_same_rows(reports):
    rows = json.loads(claims("--reports", reports, "--json").output)["claims"]
    assert [(r["claim"], r["level"], r["outcome"]) for r in rows] == [
        ("T-1", "toy", "supported"),
        ("T-2", "toy", "not run"),
        ("T-2", "gpu", "not run"),
    ]
    one = json.loads(claims("T-1", "--reports", reports, "--json").output)
    assert (one["math"], one["claims"]) == ("w > [0]", rows[:1])


def test_an_unknown_claim_names_the_nearest_and_exits_2(reports, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["squeeze", "claims", "T1"])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == 2
    assert "unknown claim 'T1'; did you mean T-1?" in capsys.readouterr().err


def test_a_foreign_ledger_is_an_input_error(reports):
    (reports / "claims.json").write_text("{}")
    result = claims("--reports", reports)
    assert isinstance(result.exception, InputError)
    assert "--reports" in str(result.exception)
