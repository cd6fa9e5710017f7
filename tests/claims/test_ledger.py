"""The ledger file: what a merge keeps, replaces and refuses."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from squeeze.claims import Verdict
from squeeze.claims.catalogue import Claim
from squeeze.claims.ledger import Failure, entry_from_json, entry_to_json, merge, new_entry, read
from squeeze.claims.table import count, markdown, outcome_of, overview
from squeeze.claims.types import Entry
from squeeze.errors import InputError
from tests.ledger_summary import summary_lines

pytestmark = pytest.mark.cpu


def entry(outcome="supported", claim="T-1", level="toy", comparison="", test="t.py::a", **more):
    verdict = Verdict(
        claim, level, outcome, "slope", 2.0, (1.9, 2.1), comparison=comparison, **more
    )
    return Entry(
        verdict, "water is wet", "§1", "theorem", 0.5, "2026-01-01T00:00:00+00:00", test=test
    )


def outcomes(entries):
    return {key: row.verdict.outcome for key, row in entries.items()}


@pytest.fixture
def reports(tmp_path, made_up):
    return tmp_path / "reports"


def test_what_is_merged_is_read_back(reports):
    rows = [entry(n=7, bound=1.5, seeds=(1, 2), evidence={"worst": 0.25, "list": [1, 2]})]
    merge(reports, rows)
    assert list(read(reports).values()) == rows


def test_json_carries_a_schema_and_every_field_of_the_row(reports):
    facts = {"role": "secondary", "seed_means": (1.0, 3.0), "detectable": 0.5, "updates": 128}
    merge(reports, [entry(n=7, seeds=(1, 2), comparison="b", **facts)])
    document = json.loads((reports / "claims.json").read_text())
    assert document["schema"] == 2
    named = "claim sentence source kind level outcome statistic effect interval n seeds"
    named += " comparison role seed_means detectable updates seconds date test"
    assert set(named.split()) <= set(document["claims"][0])


def test_a_run_replaces_only_what_it_touched(reports):
    merge(reports, [entry(), entry(comparison="b"), entry(claim="T-2")])
    merge(reports, [entry("contradicted", comparison="b")])
    assert outcomes(read(reports)) == {
        ("T-1", "toy", ""): "supported",
        ("T-1", "toy", "b"): "contradicted",
        ("T-2", "toy", ""): "supported",
    }


@pytest.mark.parametrize("order", [1, -1])
def test_within_a_run_the_worse_verdict_wins_whatever_the_order(reports, order):
    rows = [entry(test="t.py::a"), entry("contradicted", test="t.py::b"), entry(test="t.py::c")]
    assert outcomes(merge(reports, rows[::order])) == {("T-1", "toy", ""): "contradicted"}


def test_not_run_never_replaces_a_verdict_and_gives_way_to_one(reports):
    merge(reports, [entry("not run")])
    assert outcomes(merge(reports, [entry(comparison="b")])) == {("T-1", "toy", "b"): "supported"}
    merged = merge(reports, [entry("not run"), entry("not run", comparison="b")])
    assert outcomes(merged) == {("T-1", "toy", "b"): "supported"}


def test_a_test_that_fails_after_recording_withdraws_its_own_verdict(reports):
    rows = [entry(test="t.py::a"), entry(comparison="b", test="t.py::b")]
    merged = merge(reports, rows, [Failure("t.py::a", "call: boom", (("T-1", "toy"),))])
    assert outcomes(merged) == {
        ("T-1", "toy", ""): "inconclusive",
        ("T-1", "toy", "b"): "supported",
    }
    assert "boom" in merged["T-1", "toy", ""].verdict.reason
    assert merged["T-1", "toy", ""].verdict.effect == 2.0


def test_a_failing_test_withdraws_what_it_recorded_in_an_earlier_run(reports):
    merge(reports, [entry(evidence={"old": 1})])
    verdict = merge(reports, [], [Failure("t.py::a", "boom")])["T-1", "toy", ""].verdict
    assert verdict.outcome == "inconclusive"
    # What was measured then is no evidence for today's verdict.
    assert (verdict.effect, verdict.interval, verdict.evidence) == (None, None, {})


def test_a_failing_test_that_recorded_nothing_withdraws_the_claim_at_its_level(reports):
    merge(reports, [entry(claim="T-2"), entry(claim="T-2", level="pretrained")])
    merged = merge(reports, [], [Failure("other.py::x", "boom", (("T-2", "toy"),))])
    assert outcomes(merged) == {
        ("T-2", "toy", ""): "inconclusive",
        ("T-2", "pretrained", ""): "supported",
    }


def test_a_failing_test_of_a_claim_without_entry_makes_one(reports):
    merged = merge(reports, [], [Failure("t.py::x", "boom", (("T-1", "toy"),))])
    row = merged["T-1", "toy", ""]
    assert row.verdict.outcome == "inconclusive"
    assert row.sentence == "water is wet"


def test_a_failure_note_goes_when_its_test_passes_again(reports):
    failure = Failure("t.py::x", "boom", (("T-1", "toy"),))
    merge(reports, [], [failure])
    assert merge(reports, [], passed=["t.py::other"])
    assert merge(reports, [], passed=["t.py::x"]) == {}


def test_passing_alone_does_not_withdraw_a_measured_verdict(reports):
    merge(reports, [entry("contradicted")])
    assert outcomes(merge(reports, [], passed=["t.py::a"])) == {("T-1", "toy", ""): "contradicted"}


def test_a_measured_refutation_keeps_its_numbers_when_its_test_fails(reports):
    row = entry("contradicted")
    assert merge(reports, [row], [Failure("t.py::a", "assert False")])[row.key] == row


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "not a claim ledger"),
        ('{"claims": []}', "schema is None"),
        ('{"schema": 3, "claims": []}', "schema is 3"),
        ('{"schema": 2, "claims": [{"claim": "T-1"}]}', "broken entry"),
        ('{"schema": 2}', "broken entry"),
    ],
)
def test_a_file_that_is_not_our_ledger_is_refused_and_left_alone(reports, text, message):
    reports.mkdir()
    (reports / "claims.json").write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        merge(reports, [entry()])
    assert "--squeeze-out" in str(refused.value)
    assert (reports / "claims.json").read_text() == text


def test_a_directory_that_cannot_be_made_is_an_input_error(tmp_path, made_up):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        merge(tmp_path / "file" / "reports", [entry()])


def test_runs_that_merge_at_once_lose_nothing(reports):
    # Threads hold the lock by file descriptors of their own, as processes do.
    with ThreadPoolExecutor(4) as pool:
        rows = [[entry(comparison=str(number))] for number in range(20)]
        list(pool.map(lambda row: merge(reports, row), rows))
    assert len(read(reports)) == 20


def test_infinities_and_array_scalars_survive_strict_json():
    row = entry(evidence={"steps": np.arange(2), "x": np.float32(0.5), "nan": math.nan})
    row = replace(row, verdict=replace(row.verdict, interval=(0.5, math.inf)))
    text = json.dumps(entry_to_json(row), allow_nan=False)
    back = entry_from_json(json.loads(text)).verdict
    assert back.interval == (0.5, math.inf)
    assert back.evidence == {"steps": [0, 1], "x": 0.5, "nan": "nan"}


def test_a_new_entry_carries_the_claims_words_and_this_machine(made_up):
    row = new_entry(Verdict("T-1", "toy", "supported"), made_up["T-1"], seconds=1.25, test="t")
    assert (row.sentence, row.source, row.kind) == ("water is wet", "§1", "theorem")
    assert set(row.versions) == {"python", "torch", "transformers", "trl", "peft"}
    assert "CPU" in row.device
    assert row.seconds == 1.25


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (Verdict("T-1", "gpu", "supported"), "is stated at toy, not at 'gpu'"),
        (Verdict("T-1", "toy", "supported", effect=math.nan), "NaN"),
        (Verdict("T-1", "toy", "supported", interval=(0.0, math.nan)), "NaN"),
    ],
)
def test_a_verdict_that_cannot_be_right_is_refused(made_up, verdict, message):
    with pytest.raises(InputError, match=message):
        new_entry(verdict, made_up["T-1"], seconds=0.0)


# --- the table ------------------------------------------------------------------------------------


def test_every_level_of_every_claim_has_a_row_and_what_never_ran_says_so(made_up):
    rows = overview(made_up, {e.key: e for e in [entry(claim="T-2")]})
    shown = [(row.verdict.claim, row.verdict.level, row.verdict.outcome) for row in rows]
    assert shown == [
        ("T-1", "toy", "not run"),
        ("T-2", "toy", "supported"),
        ("T-2", "pretrained", "not run"),
    ]
    assert count(rows) == "1 supported, 2 not run"


def test_entries_that_the_registry_does_not_know_are_shown_last(made_up):
    foreign = entry(claim="A-0")
    unstated = entry(level="gpu")
    rows = overview(made_up, {e.key: e for e in [foreign, unstated]})
    assert rows[-1] == foreign
    assert unstated in rows


def test_markdown_neutralises_what_data_may_hold(made_up):
    bad = entry("contradicted", reason="<script>alert('|')</script>\nsecond line")
    text = markdown(overview(made_up, {bad.key: bad}))
    assert "<script>" not in text
    assert "&lt;script>alert('\\|')" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1


def test_markdown_names_each_set_of_circumstances_once():
    rows = [replace(entry(comparison=c), device="abacus", versions={"torch": "9"}) for c in "ab"]
    assert markdown(rows).count("abacus, torch 9") == 1


def test_the_terminal_shows_one_line_a_claim_with_its_primary_row():
    rows = [
        entry(comparison="a"),
        entry("inconclusive", comparison="b", role="secondary"),
        entry(claim="T-2", n=5),
    ]
    (first, first_outcome), (second, second_outcome) = summary_lines(rows)
    assert (
        " ".join(first.split()) == "T-1 toy supported 2 [1.9, 2.1] 0 of 1 secondary rows supported"
    )
    assert " ".join(second.split()) == "T-2 toy supported 2 [1.9, 2.1] n=5"
    assert (first_outcome, second_outcome) == ("supported", "supported")


def verdicts(*outcomes, role="primary"):
    return [Verdict("T-1", "toy", outcome, role=role) for outcome in outcomes]


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (("supported", "supported"), "supported"),
        (("supported", "inconclusive"), "inconclusive"),
        (("inconclusive", "contradicted"), "contradicted"),
        (("supported", "premise not met"), "premise not met"),
        (("supported", "not run"), "supported"),
        (("not run",), "not run"),
        ((), "not run"),
    ],
)
def test_of_several_primary_rows_the_worst_that_ran_decides(outcomes, expected):
    assert outcome_of(verdicts(*outcomes)) == expected


def test_secondary_rows_decide_nothing():
    secondary = verdicts("contradicted", "inconclusive", role="secondary")
    assert outcome_of(verdicts("supported") + secondary) == "supported"
    assert outcome_of(secondary) == "not run"


def test_a_ledger_of_the_earlier_schema_is_put_aside(reports):
    reports.mkdir()
    old = '{"schema": 1, "claims": [{"claim": "T-1", "verdict": "not supported"}]}'
    (reports / "claims.json").write_text(old)
    assert read(reports) == {}
    merge(reports, [entry()])
    assert outcomes(read(reports)) == {("T-1", "toy", ""): "supported"}
    assert (reports / "claims-1.json").read_text() == old


def test_a_claim_id_may_be_used_once(made_up):
    from squeeze.claims import catalogue

    with pytest.raises(InputError, match="registered twice"):
        catalogue.register(Claim("T-1", "another", "", "trend", ("toy",), "", repr))


def test_an_unknown_claim_names_the_nearest(made_up):
    from squeeze.claims import catalogue

    with pytest.raises(InputError, match=r"unknown claim 't1'; did you mean T-1\?"):
        catalogue.get("t1")
