"""The benchmark's machinery on a tiny shape: what it reports, not how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from squeeze.bench import cases, show
from squeeze.bench.candidates import NAIVE, OURS
from squeeze.bench.cases import HIDDEN, LOGITS, TRAINING, Case, select_cases
from squeeze.bench.kernels import run_cases
from squeeze.bench.measure import Times, interleaved
from squeeze.cli import app
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu

CPU = torch.device("cpu")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A report on three cases of a shape with 40 tokens of vocabulary."""
    monkeypatch.setitem(cases.SHAPES, "tiny", (4, 40))
    wanted = [Case(task, "tiny", 3) for task in (LOGITS, HIDDEN, TRAINING)]
    wanted.append(Case(LOGITS, "tiny", 10**9))
    return run_cases(wanted, CPU, quick=True, say=lambda title: None)


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


def test_the_report_is_drawn_and_tabulated(report: dict[str, Any], tmp_path: Path) -> None:
    show.plot(report, tmp_path / "kernels.png")
    assert (tmp_path / "kernels.png").read_bytes().startswith(b"\x89PNG")
    assert len(show.tables(report)) == 3
    assert show.markdown(report).count(f"| **{OURS}** |") == 3


def test_the_command_writes_json_markdown_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cases.SHAPES, "smollm2", (4, 40))
    paths = [tmp_path / name for name in ("k.json", "k.md", "k.png")]
    options = ["--quick", "--device", "cpu", "--json", str(paths[0]), "--markdown", str(paths[1])]
    result = CliRunner().invoke(app, ["bench", "kernels", *options])
    assert result.exit_code == 0, result.output
    assert json.loads(paths[0].read_text())["machine"]["threads"] >= 1
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
    interleaved(works, CPU, n_rounds=2, seconds=1.0)
    assert "".join(calls) == "ab" + "ab" + "ba"
