"""Reports of runs that lack something: they say "not run" and stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from squeeze.errors import InputError
from squeeze.files import write_json
from squeeze.report import build_report
from squeeze.report.source import read_run
from squeeze.trajectory import Trajectory
from tests.report.page_text import Page
from tests.report.synthetic import make_run, record, trajectory

pytestmark = pytest.mark.cpu

SMALL = {"arms": ("dpo",), "kinds": ("chosen", "rejected"), "n_train": 3, "epochs": 2}


def test_a_trajectory_alone_makes_a_report_that_says_what_is_absent(tmp_path: Path) -> None:
    trajectory(**SMALL).write(tmp_path / "trajectory.parquet")
    page = Page(build_report(tmp_path))
    assert "No verdict" in page.text
    assert "this run holds no verdicts" in page.text
    assert "no token-level scores were kept" in page.text
    assert "no generations were kept" in page.text
    assert "no run.json" in page.text
    for name in ("run.json", "verdicts.json", "samples.json"):
        assert f"{name} is absent" in page.text


def test_kinds_that_the_data_lacks_are_named(tmp_path: Path) -> None:
    make_run(tmp_path, **SMALL)
    page = Page(build_report(tmp_path))
    assert "chosen, rephrased, chosen, other meaning" in page.text
    assert "they were not scored" in page.text


def test_without_held_out_prompts_the_report_says_so(tmp_path: Path) -> None:
    make_run(tmp_path, **SMALL, n_held_out=0)
    page = Page(build_report(tmp_path))
    assert "Held-out prompts" in page.text
    assert "the run did not score any" in page.text
    assert not any(a.get("data-value") == "held_out" for _, a in page.tags)


def test_one_probe_shows_levels_and_no_changes(tmp_path: Path) -> None:
    make_run(tmp_path, **SMALL | {"epochs": 0})
    page = Page(build_report(tmp_path))
    assert "only one probe: nothing to compare" in page.text
    assert "spread-0" not in page.plots
    assert page.plots["curves-0"]["data"]


def test_one_example_has_no_interval(tmp_path: Path) -> None:
    make_run(tmp_path, **SMALL | {"n_train": 1}, n_held_out=0)
    page = Page(build_report(tmp_path))
    assert "no interval" in page.text
    assert not any(trace.get("fill") for trace in page.plots["curves-0"]["data"])


def test_a_running_run_names_the_arms_still_to_come(tmp_path: Path) -> None:
    make_run(tmp_path, **SMALL)
    write_json(tmp_path / "run.json", record() | {"status": "running"})
    (tmp_path / "verdicts.json").unlink()
    page = Page(build_report(tmp_path))
    assert "This run has not ended" in page.text
    assert "still running" in page.text
    assert "Arm sft-dpo" in page.text


def test_a_run_without_any_probe_makes_a_page(tmp_path: Path) -> None:
    Trajectory.empty().write(tmp_path / "trajectory.parquet")
    page = Page(build_report(tmp_path))
    assert "no arm has been probed yet" in page.text
    assert page.plots == {}


def test_sft_alone_is_counted_from_the_start_of_training(tmp_path: Path) -> None:
    scores = trajectory(**SMALL)
    scores.frame["phase"] = scores.frame["phase"].replace("dpo", "sft")
    scores.write(tmp_path / "trajectory.parquet")
    page = Page(build_report(tmp_path))
    assert page.plots["curves-0"]["layout"]["xaxis"]["title"]["text"] == "epoch"


def test_a_directory_without_trajectory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no trajectory\.parquet"):
        build_report(tmp_path)


@pytest.mark.parametrize(
    "broken", [{"claim": "DO-1"}, {"claim": "DO-1", "level": "toy", "outcome": "x", "surplus": 1}]
)
def test_a_malformed_verdict_is_refused(tmp_path: Path, broken: dict[str, object]) -> None:
    make_run(tmp_path, **SMALL)
    write_json(tmp_path / "verdicts.json", {"schema": 2, "verdicts": [broken]})
    with pytest.raises(InputError, match="malformed verdict"):
        read_run(tmp_path)


def test_verdicts_in_the_words_of_an_earlier_version_count_as_absent(tmp_path: Path) -> None:
    make_run(tmp_path, **SMALL)
    old = {"claim": "DO-1", "level": "toy", "status": "not supported"}
    write_json(tmp_path / "verdicts.json", {"schema": 1, "verdicts": [old]})
    assert read_run(tmp_path).verdicts is None
    assert "verdicts.json" in read_run(tmp_path).absent


def test_a_file_that_is_not_an_object_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path, **SMALL)
    write_json(tmp_path / "samples.json", [])
    with pytest.raises(InputError, match=r"samples\.json: .* should be an object; .* delete it"):
        read_run(tmp_path)


def _hidden(directory: Path) -> list[Path]:
    return [p for p in directory.rglob("*") if p.name.startswith(".")]


def test_a_failure_while_rendering_leaves_the_old_page_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, **SMALL)
    (tmp_path / "index.html").write_text("old", encoding="utf-8")

    def fail(*_: object) -> str:
        raise KeyError("template")

    monkeypatch.setattr("squeeze.report.page.render_html", fail)
    with pytest.raises(KeyError):
        build_report(tmp_path)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == "old"
    assert _hidden(tmp_path) == []


def test_a_full_disk_is_one_sentence_and_leaves_the_old_figure_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, **SMALL)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "curves.png").write_bytes(b"old")

    def half(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    with pytest.raises(InputError, match=r"cannot write .*curves\.png \(No space left"):
        build_report(tmp_path)
    assert (tmp_path / "figures" / "curves.png").read_bytes() == b"old"
    assert _hidden(tmp_path) == []
    assert not (tmp_path / "index.html").exists()
