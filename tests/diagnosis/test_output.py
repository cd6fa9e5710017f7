"""Forms of output: Markdown, CSV, several runs in one table, a log that grows, internal errors."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from squeeze.cli import INTERNAL_ERROR, app, main
from squeeze.diagnosis import Diagnosis, diagnose, load
from squeeze.diagnosis.growing import watch
from squeeze.diagnosis.page import POINTS, report, write_report
from squeeze.diagnosis.summary import as_csv, markdown, side_by_side
from squeeze.report.content import MOST_RUNS
from squeeze.report.interactive import compared
from tests.diagnosis.logs import jsonl, noisy, trl_records

pytestmark = pytest.mark.cpu


@pytest.fixture
def falling(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "falling.jsonl", trl_records())


@pytest.fixture
def rising(tmp_path: Path) -> Path:
    values = noisy(-150, -130)
    return jsonl(tmp_path / "rising.jsonl", [{"logps/chosen": v} for v in values])


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_markdown_has_a_row_a_run_and_its_reason(falling: Path, rising: Path) -> None:
    out = invoke("diagnose", falling, rising, "--markdown")
    assert out.startswith("| run | verdict |")
    assert "| falling | displacement | train |" in out
    assert "| rising | healthy | train |" in out
    assert "**falling: displacement** — chosen falls by" in out


def test_markdown_keeps_text_text(falling: Path) -> None:
    (run,) = load(falling)
    hostile = diagnose(type(run)(**vars(run) | {"name": "<script>|[x](y)"}))
    assert "&lt;script&gt;\\|\\[x\\](y)" in markdown([hostile])


def test_csv_has_every_logged_value_and_no_formula(falling: Path) -> None:
    (run,) = load(falling)
    named = diagnose(type(run)(**vars(run) | {"name": "=1+1"}))
    rows = list(csv.DictReader(io.StringIO(as_csv([named]))))
    assert {r["run"] for r in rows} == {"'=1+1"}
    chosen = [r for r in rows if r["column"] == "rewards/chosen"]
    assert [float(r["value"]) for r in chosen] == [r["rewards/chosen"] for r in trl_records()]


def test_several_runs_stand_side_by_side(falling: Path, rising: Path) -> None:
    for command in (["compare"], ["diagnose"]):
        words = invoke(*command, falling, rising).split()
        assert words.index("displacement") < words.index("healthy")


def test_page_of_a_name_that_is_no_unicode_is_written_and_read_again(
    falling: Path, tmp_path: Path
) -> None:
    (run,) = load(falling)
    name = "half a pair: \ud83d"
    write_report([diagnose(replace(run, name=name))], tmp_path / "page")
    page = report([tmp_path / "page"])
    for written in (page, page.with_name("report.md"), page.with_name("diagnosis.json")):
        assert "half a pair: ?" in written.read_text(encoding="utf-8")


@pytest.fixture
def many(falling: Path, rising: Path) -> list[Diagnosis]:
    """More runs than a page shows whole, every third of which falls."""
    down, up = (diagnose(load(path)[0]) for path in (falling, rising))
    chosen = [up if i % 3 else down for i in range(MOST_RUNS + 25)]
    return [replace(d, run=replace(d.run, name=f"run-{i}")) for i, d in enumerate(chosen)]


def test_many_runs_keep_their_places_in_the_table(many: list[Diagnosis]) -> None:
    table = side_by_side(many)
    names, verdicts = ([str(cell) for cell in c.cells] for c in table.columns[:2])
    assert names == [d.run.name for d in many]
    assert verdicts == [d.verdict for d in many]


def test_page_of_many_runs_lists_all_and_shows_the_worst(
    many: list[Diagnosis], tmp_path: Path
) -> None:
    source = write_report(many, tmp_path).read_text(encoding="utf-8")
    places = [source.index(f'<th scope="row">{d.run.name}</th>') for d in many]
    assert places == sorted(places)
    assert source.count('class="diagnosis" id="diagnosis-') == MOST_RUNS
    runs = json.loads((tmp_path / "diagnosis.json").read_text())["runs"]
    drawn = [run for run in runs if run["curves"]]
    assert {d.run.name for d in many if d.verdict != "healthy"} < {run["run"] for run in drawn}
    assert sum(len(c["steps"]) for run in drawn for c in run["curves"]) <= POINTS


def test_page_of_a_long_log_draws_some_of_its_values_with_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squeeze.diagnosis.page.POINTS", 100)
    (run,) = load(jsonl(tmp_path / "long.jsonl", trl_records(n=300)))
    write_report([diagnose(run)], tmp_path / "page")
    (shown,) = json.loads((tmp_path / "page" / "diagnosis.json").read_text())["runs"]
    assert 90 < sum(len(curve["steps"]) for curve in shown["curves"]) <= 100
    for curve in shown["curves"]:
        assert curve["steps"][:: len(curve["steps"]) - 1] == [10.0, 3000.0]
        assert set(curve["steps"]) <= set(run.series[0].steps)


def test_two_forms_at_once_are_refused(falling: Path) -> None:
    result = CliRunner().invoke(app, ["diagnose", str(falling), "--json", "--csv"])
    assert "exclude each other" in str(result.exception)


def test_growing_log_is_judged_again_when_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    records = trl_records()
    lengths = iter([0, 0, 3, 3, 60])

    def grow(_: float) -> None:
        n = next(lengths, None)
        if n is None:
            raise KeyboardInterrupt
        jsonl(path, records[:n])

    path.write_text("")
    seen: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(x if isinstance(x, str) else x[0].verdict for x in _each(path, grow, seen))
    assert seen[0].startswith("not yet: ")
    assert seen[-2:] == ["undetermined", "displacement"]


def _each(path: Path, grow: Any, seen: list[Any]) -> Any:
    for found in watch([path], 1.0, sleep=grow):
        seen.append(found if isinstance(found, str) else found[0].verdict)
    yield from ()


def test_error_of_our_own_never_exits_as_a_matched_verdict(
    falling: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of our own making")

    monkeypatch.setattr("squeeze.diagnosis.diagnose", broken)
    monkeypatch.setattr("sys.argv", ["squeeze", "diagnose", str(falling), "--fail-on", "collapse"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == INTERNAL_ERROR == 70
    assert "of our own making" in capsys.readouterr().err


def test_compared_logs_are_drawn_on_one_axis(falling: Path, tmp_path: Path) -> None:
    """Steps against epochs: x is then the share of each run."""
    by_epoch = [{k: v for k, v in r.items() if k != "step"} for r in trl_records(seed=1)]
    other = jsonl(tmp_path / "other.jsonl", by_epoch)
    invoke("compare", falling, other, "--report", tmp_path / "page")
    runs = json.loads((tmp_path / "page" / "diagnosis.json").read_text())["runs"]
    figure = compared(runs)["reward"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "share of the run"
    assert {max(t["x"]) for t in figure["data"]} == {1.0}
    assert [t["name"] for t in figure["data"] if t["line"]["dash"] == "solid"] == [
        "falling: chosen",
        "other: chosen",
    ]
    assert 'id="together-reward"' in (tmp_path / "page" / "index.html").read_text()
    assert compared(runs[:1]) == {}
