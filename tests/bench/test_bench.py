"""The benchmark's machinery on a tiny shape: what it reports, not how fast anything is."""

from __future__ import annotations

import copy
import importlib.util
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from squeeze.bench import candidates, cases, compare, kernels, measure, show
from squeeze.bench.candidates import NAIVE, OURS
from squeeze.bench.cases import HIDDEN, LOGITS, TRAINING, Case, rotated_inputs, select_cases
from squeeze.bench.kernels import run_cases
from squeeze.bench.measure import Budget, Times, Work, interleaved
from squeeze.bench.peers import PEERS
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
        patch.setattr(cases, "_ROTATED_BYTES", 1)
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
    assert {peer.name for peer in PEERS} <= set(reasons) | {
        record["name"] for case in report["cases"] for record in case["records"]
    }
    assert any(words in reasons["verl linear CE"] for words in ("GPU", "not installed", "import"))
    assert any("GB" in reason for title, reason in reasons.items() if "T=1000000000" in title)
    assert "- verl linear CE: " in show.markdown(report)


def test_every_case_is_tabulated(report: dict[str, Any]) -> None:
    assert len(show.tables(report)) == 3
    assert show.markdown(report).count(f"| **{OURS}** |") == 3


def test_the_command_writes_json_markdown_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cases.SHAPES, "smollm2", (4, 40))
    monkeypatch.setattr(cases, "_cpu_cases", lambda quick: [Case(LOGITS, "smollm2", 3)])
    monkeypatch.setattr(cases, "_ROTATED_BYTES", 1)
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
    slow = lambda name: (calls.append(name), time.sleep(0.003))  # noqa: E731
    works = {name: [lambda name=name: slow(name)] for name in "ab"}
    interleaved(works, CPU, Budget(rounds=3, seconds=1.0, seconds_each=1.0))
    assert "".join(calls) == "ab" + "ba" + "ab"


def test_sets_of_inputs_take_turns_from_call_to_call() -> None:
    calls: list[tuple[str, int]] = []

    def work(name: str, number: int) -> Work:
        return lambda: (calls.append((name, number)), time.sleep(0.003))

    works = {name: [work(name, number) for number in range(3)] for name in "ab"}
    interleaved(works, CPU, Budget(rounds=2, seconds=1.0, seconds_each=1.0))
    numbers = [number for _, number in calls]
    assert numbers == [turn % 3 for turn in range(len(calls))]


def test_inputs_that_fit_a_cache_come_in_several_sets_and_large_ones_in_one() -> None:
    small = rotated_inputs(Case(LOGITS, "smollm2", 64), CPU)
    assert sum(one.n_bytes for one in small) >= 192 * 2**20
    assert not torch.equal(small[0].any_logits(), small[1].any_logits())
    assert len(rotated_inputs(Case(LOGITS, "smollm2", 1024), CPU)) == 1


def test_a_short_call_is_repeated_until_it_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    def half_a_millisecond_each(calls: Sequence[Work], device: torch.device) -> float:
        batches.append(len(calls))
        return 5e-4 * len(calls)

    monkeypatch.setattr(measure, "_seconds", half_a_millisecond_each)
    budget = Budget(rounds=3, seconds=1.0, seconds_each=1.0)
    times = interleaved({"short": [lambda: None]}, CPU, budget)
    # one to see how long it takes, then 2 ms at a time
    assert batches == [1, 4, 4, 4]
    assert times["short"].seconds == (5e-4,) * 3


def test_a_candidate_that_used_up_its_seconds_leaves_and_the_others_go_on() -> None:
    works = {"slow": [lambda: time.sleep(0.01)], "fast": [lambda: None]}
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


def _run(wanted: list[Case], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(cases.SHAPES, "tiny", (4, 40))
    monkeypatch.setattr(cases, "_ROTATED_BYTES", 1)
    monkeypatch.setattr(kernels, "_QUICK", Budget(rounds=3, seconds=1.0, seconds_each=1.0))
    nothing: Any = lambda *_: None  # noqa: E731
    return run_cases(wanted, CPU, quick=True, starts=nothing, ends=nothing)


def test_a_peer_that_raises_is_named_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(inputs: Any) -> torch.Tensor:
        raise RuntimeError("no such instruction\nand a page of assembler")

    monkeypatch.setattr(candidates, "_lse", broken)
    (case,) = _run([Case(LOGITS, "tiny", 3)], monkeypatch)["cases"]
    reason = case["not_measured"]["logsumexp + gather"]
    assert reason == "failed: RuntimeError: no such instruction"
    assert OURS in [record["name"] for record in case["records"]]


def test_without_any_peer_the_benchmark_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name in ("trl", "liger_kernel") else find(name),
    )
    (case,) = _run([Case(LOGITS, "tiny", 3)], monkeypatch)["cases"]
    assert case["not_measured"]["TRL selective_log_softmax"] == "trl is not installed"
    assert NAIVE in [record["name"] for record in case["records"]]


def test_our_own_failure_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(inputs: Any) -> torch.Tensor:
        raise RuntimeError("ours")

    monkeypatch.setattr(candidates, "_ours", broken)
    with pytest.raises(RuntimeError, match="ours"):
        _run([Case(LOGITS, "tiny", 3)], monkeypatch)


def test_a_report_against_itself_differs_by_nothing(report: dict[str, Any]) -> None:
    rows = compare.differences(report, report)
    assert len(rows) == sum(len(case["records"]) for case in report["cases"])
    assert all(row["ratio"] == 1.0 and not row["beyond_noise"] for row in rows)


def test_a_slower_kernel_stands_out_of_the_noise(report: dict[str, Any]) -> None:
    old = copy.deepcopy(report)
    for one in (old, report):
        one["cases"][0]["noise"] = 0.1
    report["cases"][0]["records"][0]["times_limit"] *= 1.3
    report["cases"][0]["records"][1]["times_limit"] *= 1.1
    first, second, *_ = compare.differences(report, old)
    assert first["ratio"] == pytest.approx(1.3)
    assert first["beyond_noise"]
    assert not second["beyond_noise"]


def test_reports_without_a_common_case_are_not_compared(report: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no case in common"):
        compare.differences(report, {**report, "cases": []})


def test_the_roofline_places_cases_by_bytes_and_operations(
    report: dict[str, Any], tmp_path: Path
) -> None:
    case = Case(LOGITS, "smollm2", 10, torch.bfloat16)
    assert case.n_bytes == 10 * 49_152 * 2
    assert case.n_operations == 12 * 10 * 49_152
    assert Case(HIDDEN, "smollm2", 10).n_operations == 2 * 10 * 49_152 * 576
    compare.roofline(report, tmp_path / "roof.png")
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")
    assert all(rate > 0 for rate in report["machine"]["rates"].values())
    del report["machine"]["rates"]
    with pytest.raises(InputError, match="no measured rates"):
        compare.roofline(report, tmp_path / "roof.png")


def test_a_report_whose_peers_say_nothing_is_refused(tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs" / "kernels-cpu.json"
    value = json.loads(docs.read_text()) | {"peers": [{"name": "x"}]}
    (tmp_path / "k.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="peers"):
        compare.read_report(tmp_path / "k.json")
