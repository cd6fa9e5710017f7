"""`squeeze diagnose` as a user and as a CI gate see it, and the pytest fixture."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from squeeze.cli import app, main
from squeeze.diagnosis.output import SCHEMA
from squeeze.errors import InputError
from tests.diagnosis.logs import jsonl, noisy, trainer_state, trl_records

pytestmark = pytest.mark.cpu


@pytest.fixture
def falling(tmp_path: Path) -> Path:
    return trainer_state(tmp_path / "trainer_state.json", trl_records())


@pytest.fixture
def rising(tmp_path: Path) -> Path:
    values = noisy(-150, -130)
    return jsonl(tmp_path / "rising.jsonl", [{"logps/chosen": v} for v in values])


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["diagnose", *map(str, arguments)])
    return result.exit_code, result.stdout


def test_text_has_verdict_evidence_and_remedies_with_their_claims(
    falling: Path, tmp_path: Path
) -> None:
    code, out = invoke(falling, "--reports", tmp_path)  # a directory without a ledger
    assert code == 0
    assert "DISPLACEMENT" in out
    assert "rewards/chosen" not in out.splitlines()[0]
    assert "(EX-1: not run" in " ".join(out.split())


def test_json_has_the_verdict_at_the_top_and_every_documented_key(falling: Path) -> None:
    code, out = invoke(falling, "--json")
    document: dict[str, Any] = json.loads(out)
    assert code == 0
    assert document["schema"] == SCHEMA
    assert document["verdict"] == "displacement"
    documented = (Path(__file__).parents[2] / "docs" / "diagnosis.md").read_text()
    keys = {*document, *document["splits"][0], *document["splits"][0]["evidence"][0]}
    assert [k for k in keys if f"`{k}`" not in documented] == []


def test_json_of_several_runs_lists_them_beside_the_worst(falling: Path, rising: Path) -> None:
    document = json.loads(invoke(rising, falling, "--json")[1])
    assert document["verdict"] == "displacement"
    assert [r["verdict"] for r in document["runs"]] == ["healthy", "displacement"]


@pytest.mark.parametrize(
    ("fail_on", "code"), [("displacement", 1), ("squeezing,displacement", 1), ("squeezing", 0)]
)
def test_fail_on_decides_the_exit_code(falling: Path, fail_on: str, code: int) -> None:
    assert invoke(falling, "--fail-on", fail_on)[0] == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.json"], "does not exist"),
        (["pyproject.toml", "--fail-on", "bad"], "--fail-on does not know 'bad'"),
    ],
)
def test_unusable_input_exits_with_2_and_one_sentence(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["squeeze", "diagnose", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_report_of_a_log_is_the_main_page_with_what_a_log_has(
    falling: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page"
    invoke(falling, "--report", out)
    page = (out / "index.html").read_text()
    for shown in (
        "Displacement: chosen falls",
        "What to do, in this order",
        "Rewards (β · nats)",
        "log-0-",
    ):
        assert shown in page
    for absent in ("Example by example", "The most squeezed answers", "not run: "):
        assert absent not in page.partition("</main>")[0]
    assert "displacement" in (out / "report.md").read_text()
    again = CliRunner().invoke(app, ["report", str(out)])
    assert again.exit_code == 0, again.output
    assert (out / "index.html").read_text() == page


def test_report_does_not_mix_a_log_with_another_run(falling: Path, tmp_path: Path) -> None:
    (tmp_path / "trajectory.parquet").touch()
    result = CliRunner().invoke(app, ["diagnose", str(falling), "--report", str(tmp_path)])
    assert isinstance(result.exception, InputError)
    assert "another run" in str(result.exception)


def test_report_is_one_page_that_escapes_what_the_log_says(tmp_path: Path) -> None:
    records = [
        {"run": "<script>alert(1)</script>", "logps/chosen": v, "step": i}
        for i, v in enumerate(noisy(-150, -170))
    ]
    code, _ = invoke(jsonl(tmp_path / "a.jsonl", records), "--report", tmp_path / "page")
    page = (tmp_path / "page" / "index.html").read_text()
    assert code == 0
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert "http://" not in page.split("</script>", 1)[1]


@pytest.mark.parametrize(("log", "outcome"), [("falling", "failed"), ("rising", "passed")])
def test_fixture_lets_a_suite_assert_that_a_run_did_not_fall(
    log: str, outcome: str, pytester: pytest.Pytester, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(log)
    pytester.makepyfile(
        "def test_run(squeeze_verdict):\n    assert squeeze_verdict != 'displacement'\n"
    )
    pytester.runpytest_inprocess(f"--squeeze-run={path}").assert_outcomes(**{outcome: 1})


def test_fixture_skips_without_a_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_run(squeeze_verdict):\n    pass\n")
    pytester.runpytest_inprocess().assert_outcomes(skipped=1)
