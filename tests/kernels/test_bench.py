"""The benchmark's machinery on a tiny shape: what it reports, not how fast anything is."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from squeeze.bench import cases, kernels, show
from squeeze.bench.candidates import NAIVE, OURS
from squeeze.bench.cases import HIDDEN, LOGITS, TRAINING, Case, select_cases
from squeeze.bench.kernels import run_cases
from squeeze.bench.measure import Budget, Times, interleaved
from squeeze.cli import app
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """A report on three cases of a shape with 40 tokens of vocabulary."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cases.SHAPES, "tiny", (4, 40))
        patch.setattr(kernels, "_QUICK", Budget(rounds=3, seconds=1.0, seconds_each=1.0))
        wanted = [Case(task, "tiny", 3) for task in (LOGITS, HIDDEN, TRAINING)]
        wanted.append(Case(LOGITS, "tiny", 10**9))
        return run_cases(wanted, CPU, quick=True, starts=lambda _: None, ends=lambda *_: None)


@pytest.fixture
def report(measured: dict[str, Any]) -> dict[str, Any]:
    """A copy of the report that a test may change."""
    return copy.deepcopy(measured)


def test_every_candidate_is_measured_and_close_to_float64(report: dict[str, Any]) -> None:
    for case in report["cases"]:
        names = [record["name"] for record in case["records"]]
        assert {NAIVE, OURS, "TRL selective_log_softmax"} <= set(names)
        for record in case["records"]:
            # logits of 40 tokens and widths of 4: dozens of float32 roundings of numbers below 20
            assert record["error"] < 1e-4, (case["title"], record["name"])
            assert record["median_ms"] > 0
            assert record["times_limit"] > 0
    assert report["cases"][0]["records"][0]["rounds"] >= 3


def test_what_is_not_measured_is_named_with_a_reason(report: dict[str, Any]) -> None:
    reasons = show.not_measured(report)
    assert "GPU" in reasons["Liger"] or "not installed" in reasons["Liger"]
    assert any("GB" in reason for title, reason in reasons.items() if "T=1000000000" in title)
    assert "- Liger: " in show.markdown(report)


def test_every_case_is_tabulated(report: dict[str, Any]) -> None:
    assert len(show.tables(report)) == 3
    assert show.markdown(report).count(f"| **{OURS}** |") == 3


def test_the_command_writes_json_markdown_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cases.SHAPES, "smollm2", (4, 40))
    monkeypatch.setattr(cases, "_cpu_cases", lambda quick: [Case(LOGITS, "smollm2", 3)])
    paths = [tmp_path / name for name in ("k.json", "k.md", "k.png")]
    options = ["--quick", "--device", "cpu", "--json", str(paths[0]), "--markdown", str(paths[1])]
    result = CliRunner().invoke(app, ["bench", "kernels", *options])
    assert result.exit_code == 0, result.output
    assert json.loads(paths[0].read_text())["partial"] is False
    assert all(path.exists() for path in paths)


def test_an_unknown_shape_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"--shapes gpt5 .* smollm2"):
        select_cases(CPU, quick=True, shapes=["gpt5"])


def test_ratios_are_taken_round_by_round() -> None:
    # A machine that slows down threefold in the second round leaves the ratio at 2.
    assert Times((2.0, 6.0, 2.0)).ratio_to(Times((1.0, 3.0, 1.0))) == 2.0


def test_rounds_run_forwards_and_backwards_in_turn() -> None:
    calls: list[str] = []
    works = {name: lambda name=name: calls.append(name) for name in "ab"}
    interleaved(works, CPU, Budget(rounds=2, seconds=1.0, seconds_each=1.0))
    assert "".join(calls) == "ab" + "ba"


def test_a_candidate_that_used_up_its_seconds_leaves_and_the_others_go_on() -> None:
    works = {"slow": lambda: time.sleep(0.01), "fast": lambda: None}
    times = interleaved(works, CPU, Budget(rounds=5, seconds=1.0, seconds_each=0.005))
    assert len(times["slow"].seconds) == 1
    assert len(times["fast"].seconds) == 5


def test_a_ratio_uses_the_rounds_that_both_ran() -> None:
    # Pairing the last rounds instead, or all of them, would give 2 / 5 or 2 / 3.
    assert Times((2.0,)).ratio_to(Times((1.0, 5.0, 3.0))) == 2.0


def test_a_run_stopped_in_its_second_case_leaves_the_first_marked_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cases.SHAPES, "smollm2", (4, 40))
    path, measure, done = tmp_path / "k.json", kernels._run_case, []

    def stop_at_second(case: Case, *rest: Any) -> dict[str, Any]:
        if done:
            raise KeyboardInterrupt
        done.append(case)
        return measure(case, *rest)

    monkeypatch.setattr(kernels, "_run_case", stop_at_second)
    options = ["--quick", "--device", "cpu", "--json", str(path)]
    assert CliRunner().invoke(app, ["bench", "kernels", *options]).exit_code != 0
    report = json.loads(path.read_text())
    assert report["partial"] is True
    assert [case["title"] for case in report["cases"]] == [done[0].title]
    assert "Partial" in show.markdown(report)


def test_the_plot_and_tables_are_drawn_again_from_the_json(
    report: dict[str, Any], tmp_path: Path
) -> None:
    assert report["partial"] is False
    (tmp_path / "k.json").write_text(json.dumps(report))
    outputs = [tmp_path / "k.png", tmp_path / "k.md"]
    options = [
        "--plot",
        str(outputs[0]),
        "--markdown",
        str(outputs[1]),
        "--note",
        "A busy machine.",
    ]
    result = CliRunner().invoke(app, ["bench", "draw", str(tmp_path / "k.json"), *options])
    assert result.exit_code == 0, result.output
    assert outputs[0].read_bytes().startswith(b"\x89PNG")
    assert "A busy machine." in outputs[1].read_text()


def test_wide_quartiles_are_marked_in_the_table(report: dict[str, Any]) -> None:
    record = report["cases"][0]["records"][0]
    record.update(median_ms=100.0, quartiles_ms=[85.0, 110.0])
    assert "100 (85–110) ~" in show.markdown(report)
    record.update(quartiles_ms=[95.0, 105.0])
    assert "100 (95–105) |" in show.markdown(report).replace("**", "")
