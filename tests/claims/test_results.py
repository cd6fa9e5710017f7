"""Shipped results: what the package says of its claims is what a ledger said, and nothing older."""

import json

import pytest

from squeeze.claims import Verdict, results
from squeeze.claims.catalogue import Claim
from squeeze.claims.ledger import new_entry
from squeeze.claims.types import LEVELS, OUTCOMES

pytestmark = pytest.mark.cpu

CLAIM = Claim("T-1", "water is wet", "§1", "observation", LEVELS, "a desert", print)


def entry(outcome, level="toy", **more):
    return new_entry(Verdict("T-1", level, outcome, "slope", **more), CLAIM, seconds=0.0)


def test_a_result_is_its_primary_row(tmp_path):
    rows = [
        entry("contradicted", role="secondary", comparison="b", effect=-1.0),
        entry(
            "supported", effect=2.0, interval=(1.0, 3.0), n=8, seeds=(1, 2, 3, 4, 5), updates=128
        ),
    ]
    (result,) = results.results_of(rows)
    assert (result.outcome, result.effect, result.interval) == ("supported", 2.0, (1.0, 3.0))
    assert (result.n, result.seeds, result.rows) == (8, 5, 1)
    assert result.rests_on == "n=8, 5 seeds, 128 updates"


def test_a_theorem_counts_its_inputs_and_one_counterexample_decides():
    rows = [entry("supported", comparison=str(i)) for i in range(3)]
    (result,) = results.results_of([*rows, entry("contradicted", comparison="bad")])
    assert (result.outcome, result.rows) == ("contradicted", 4)


def test_what_was_never_run_has_no_result():
    assert results.results_of([entry("not run")]) == []


def test_a_reason_why_nothing_was_run_ships_and_takes_no_result_away(tmp_path):
    path, why = tmp_path / "results.json", entry("not run", reason="only means are published")
    assert results.write_results(path, [why]) == 1
    (result,) = json.loads(path.read_text())["results"]
    assert (result["outcome"], result["reason"]) == ("not run", "only means are published")
    results.write_results(path, [entry("supported")])
    results.write_results(path, [why])
    assert json.loads(path.read_text())["results"][0]["outcome"] == "supported"


def test_writing_keeps_what_the_ledger_does_not_speak_of(tmp_path):
    path = tmp_path / "results.json"
    results.write_results(path, [entry("supported"), entry("inconclusive", "gpu", effect=0.0)])
    assert results.write_results(path, [entry("contradicted")]) == 2
    rows = {r["level"]: r["outcome"] for r in json.loads(path.read_text())["results"]}
    assert rows == {"toy": "contradicted", "gpu": "inconclusive"}


def test_the_best_result_is_the_decided_one_nearest_to_practice(monkeypatch):
    at = {"toy": "supported", "tiny": "contradicted", "pretrained": "inconclusive"}
    made = {level: results.Result("T-1", level, outcome) for level, outcome in at.items()}
    monkeypatch.setattr(results, "shipped", lambda: {"T-1": made})
    assert results.best("T-1") == made["tiny"]
    assert results.best("T-2") is None


def test_the_shipped_file_is_readable_and_in_todays_words():
    for claim, levels in results.shipped().items():
        for level, result in levels.items():
            assert (result.claim, result.level) == (claim, level)
            assert result.outcome in OUTCOMES
