"""This suite's plugin (tests/ledger_plugin.py), run by pytest on small projects of its own."""

from pathlib import Path

import pytest

from squeeze.claims.ledger import read

pytestmark = [pytest.mark.cpu, pytest.mark.usefixtures("made_up")]

ROOT = Path(__file__).parents[2]
PLUGIN = ("-p", "tests.ledger_plugin", "-p", "no:cacheprovider")
HEAD = """
import pytest
from squeeze.claims import Verdict

def verdict(outcome="supported", claim="T-1", level="toy", **more):
    return Verdict(claim, level, outcome, "slope", 2.0, (1.9, 2.1), n=7, **more)
"""
RECORD = "def test_a(ledger):\n    ledger.record(verdict())\n"


@pytest.fixture
def run(pytester):
    """Write a test file of this body, run pytest on it, and return the result."""

    def write_and_run(body, *options):
        pytester.makepyfile(test_it=HEAD + body)
        return pytester.runpytest_inprocess(*PLUGIN, *options)

    return write_and_run


@pytest.fixture
def outcomes(pytester):
    def read_outcomes(directory="reports"):
        entries = read(pytester.path / directory)
        return {"/".join(key).rstrip("/"): e.verdict.outcome for key, e in entries.items()}

    return read_outcomes


def test_a_recorded_verdict_reaches_the_ledger_and_the_terminal(run, outcomes, pytester):
    result = run(RECORD)
    assert outcomes() == {"T-1/toy": "supported"}
    assert (pytester.path / "reports" / "claims.md").read_text().count("water is wet") == 1
    result.stdout.fnmatch_lines(["*claims*", "T-1 *toy *supported *2 [[]1.9, 2.1[]] *n=7"])
    row = read(pytester.path / "reports")["T-1", "toy", ""]
    assert row.test == "test_it.py::test_a"


def test_the_next_run_changes_only_what_it_touches(run, outcomes):
    run(RECORD + "def test_b(ledger):\n    ledger.record(verdict(claim='T-2'))\n")
    run("def test_b(ledger):\n    ledger.record(verdict('contradicted', claim='T-2'))\n")
    assert outcomes() == {"T-1/toy": "supported", "T-2/toy": "contradicted"}


def test_a_test_that_fails_after_recording_leaves_no_support(run, outcomes):
    result = run("def test_a(ledger):\n    ledger.record(verdict())\n    assert 1 == 2\n")
    assert outcomes() == {"T-1/toy": "inconclusive"}
    result.stdout.fnmatch_lines(["T-1 *inconclusive*test_it.py::test_a failed*assert 1 == 2*"])


def test_a_test_that_fails_in_teardown_leaves_no_support(run, outcomes):
    run(
        "@pytest.fixture\ndef late():\n    yield\n    raise OSError('late')\n"
        "def test_a(ledger, late):\n    ledger.record(verdict())\n"
    )
    assert outcomes() == {"T-1/toy": "inconclusive"}


def test_a_failing_run_does_not_keep_the_support_of_an_earlier_one(run, outcomes):
    run(RECORD)
    run("def test_a(ledger):\n    assert False\n")
    assert outcomes() == {"T-1/toy": "inconclusive"}


def test_any_failing_test_marked_with_a_claim_withdraws_its_support(run, outcomes):
    marked = "@pytest.mark.claim('T-1', 'toy')\ndef test_b():\n    assert {}\n"
    run(RECORD + marked.format("False"))
    assert outcomes() == {"T-1/toy": "inconclusive"}
    run(RECORD + marked.format("True"))
    assert outcomes() == {"T-1/toy": "supported"}


def test_an_error_in_setup_counts_as_a_failure(run, outcomes):
    run(
        "@pytest.fixture\ndef broken():\n    raise OSError('no model')\n"
        "@pytest.mark.claim('T-1', 'toy')\ndef test_b(broken):\n    pass\n"
    )
    assert outcomes() == {"T-1/toy": "inconclusive"}


def test_an_expected_failure_supports_nothing(run, outcomes):
    run("@pytest.mark.xfail\ndef test_a(ledger):\n    ledger.record(verdict())\n    assert 0\n")
    assert outcomes() == {"T-1/toy": "inconclusive"}


def test_a_skipped_test_of_a_claim_shows_as_not_run_with_its_reason(run, outcomes, pytester):
    skipped = "@pytest.mark.skip(reason='no GPU here')\n@pytest.mark.claim('T-1', 'toy')\n"
    result = run(skipped + "def test_b():\n    pass\n")
    assert outcomes() == {"T-1/toy": "not run"}
    result.stdout.fnmatch_lines(["T-1 *not run *no GPU here"])
    assert read(pytester.path / "reports")["T-1", "toy", ""].verdict.reason == "no GPU here"


def test_a_skip_does_not_hide_an_earlier_verdict(run, outcomes):
    run(RECORD)
    run("@pytest.mark.claim('T-1', 'toy')\ndef test_b():\n    pytest.skip('not now')\n")
    assert outcomes() == {"T-1/toy": "supported"}


BROKEN = {
    "bad input": "from squeeze.errors import InputError\n    raise InputError('no such file')",
    "a full GPU": "import torch\n    raise torch.OutOfMemoryError('CUDA out of memory')",
    "a full machine": "raise MemoryError",
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_real_model_s_run_that_the_machine_ended_was_not_run(case, run, outcomes):
    marked = "@pytest.mark.claim('T-2', 'pretrained')\ndef test_b({}):\n    {}\n"
    run(marked.format("", BROKEN[case]))
    assert outcomes() == {"T-2/pretrained": "not run"}
    run(marked.format("ledger", "ledger.record(verdict(claim='T-2', level='pretrained'))"))
    run(marked.format("", BROKEN[case]))
    assert outcomes() == {"T-2/pretrained": "supported"}
    run(marked.format("", "assert 1 == 2"))
    assert outcomes() == {"T-2/pretrained": "inconclusive"}


def test_bad_input_in_a_theorem_s_test_is_the_test_s_failure(run, outcomes):
    run(
        "@pytest.mark.claim('T-1', 'toy')\ndef test_b():\n"
        "    from squeeze.errors import InputError\n    raise InputError('no')\n"
    )
    assert outcomes() == {"T-1/toy": "inconclusive"}


QUICK = (
    "def test_a(ledger):\n"
    "    ledger.record(verdict(), verdict('{}', claim='T-2', level='pretrained'))\n"
)


@pytest.mark.parametrize("option", ["--quick", "--rehearse"])
def test_quick_records_no_verdict_of_a_real_model(option, run, outcomes):
    result = run(QUICK.format("supported"), option)
    assert outcomes() == {"T-1/toy": "supported"}
    result.stdout.fnmatch_lines([f"{option}:*", "T-2 *pretrained *supported*"])


def test_quick_neither_confirms_nor_withdraws_an_earlier_verdict(run, outcomes):
    body = "def test_a(ledger):\n    ledger.record(verdict(claim='T-2', level='pretrained'))\n"
    run(body)
    run(body + "    assert False\n", "--quick")
    assert outcomes() == {"T-2/pretrained": "supported"}


def test_unknown_claims_and_levels_fail_the_test_that_names_them(run, outcomes, pytester):
    result = run(
        "def test_a(ledger):\n    ledger.record(verdict(claim='T-9'))\n"
        "@pytest.mark.claim('T-1', 'gpu')\ndef test_b():\n    pass\n"
    )
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(["*InputError: unknown claim 'T-9'; did you mean T-*"])
    result.stdout.fnmatch_lines(["*InputError: *test_b is marked with claim T-1 at level 'gpu'*"])


def test_a_file_that_is_not_our_ledger_fails_the_test_before_it_works(run, pytester):
    pytester.mkdir("reports").joinpath("claims.json").write_text("{}")
    result = run("def test_a(ledger):\n    assert False, 'worked for an hour'\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*not a claim ledger of schema 2*"])
    result.stdout.no_fnmatch_line("*worked for an hour*")
    assert (pytester.path / "reports" / "claims.json").read_text() == "{}"


def test_a_ledger_that_breaks_during_the_run_is_reported_and_not_overwritten(run, pytester):
    pytester.mkdir("reports")
    result = run(
        RECORD + "    from pathlib import Path\n    Path('reports/claims.json').write_text('[]')\n"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["NOT WRITTEN: *claims.json is not a claim ledger*"])
    assert (pytester.path / "reports" / "claims.json").read_text() == "[]"


def test_out_option_moves_the_ledger(run, outcomes):
    run(RECORD, "--squeeze-out", "elsewhere")
    assert outcomes("elsewhere") == {"T-1/toy": "supported"}


def test_a_file_named_claims_json_is_left_alone_where_no_test_claims_anything(pytester):
    pytester.mkdir("reports").joinpath("claims.json").write_text("insurance claims")
    pytester.makepyfile("def test_a():\n    assert False\n")
    result = pytester.runpytest_inprocess(*PLUGIN)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.no_fnmatch_line("*= claims =*")
    assert [p.name for p in (pytester.path / "reports").iterdir()] == ["claims.json"]


def test_the_header_names_models_and_devices(pytester):
    result = pytester.runpytest_inprocess(*PLUGIN)
    result.stdout.fnmatch_lines(["squeeze: models *; devices cpu (* threads)*"])


def test_workers_of_xdist_send_their_verdicts_to_one_ledger(pytester, outcomes, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(
        "pytest_plugins = ['tests.ledger_plugin']\n"
        "from squeeze.claims import catalogue\n"
        "from squeeze.claims.catalogue import Claim\n"
        "catalogue.load = lambda: dict(catalogue._CLAIMS)\n"
        "catalogue.register(Claim('T-1', 's', '', 'theorem', ('toy',), '', print))\n"
    )
    pytester.makepyfile(
        HEAD + "@pytest.mark.parametrize('i', range(6))\n"
        "def test_a(ledger, i):\n    ledger.record(verdict(comparison=str(i)))\n    assert i != 3\n"
    )
    result = pytester.runpytest_subprocess("-n2", "-p", "no:cacheprovider")
    expected = {f"T-1/toy/{i}": "supported" for i in range(6)}
    assert outcomes() == expected | {"T-1/toy/3": "inconclusive"}
    result.stdout.fnmatch_lines(["T-1 *inconclusive *5 of 6 rows supported"])
