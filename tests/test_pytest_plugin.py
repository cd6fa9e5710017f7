"""The plugin that every project gets which installs the package, tried on small projects."""

import pytest

pytestmark = pytest.mark.cpu

PROJECT = """
import pytest

def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="ours")
    parser.addini("squeeze_header", "ours as well", default="a header of ours")

@pytest.fixture
def ledger():
    return "accounts"
"""


def test_a_project_keeps_its_own_quick_and_ledger(pytester):
    pytester.makeconftest(PROJECT)
    pytester.makepyfile(
        "def test_a(ledger, pytestconfig):\n"
        "    assert ledger == 'accounts'\n"
        "    assert pytestconfig.getoption('--quick')\n"
        "    assert pytestconfig.getini('squeeze_header') == 'a header of ours'\n"
    )
    result = pytester.runpytest_subprocess("--quick", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("squeeze:*")


def test_a_project_gets_one_fixture_and_prefixed_options_only(pytester):
    fixtures = pytester.runpytest_subprocess("--fixtures", "-q").outlines
    section = "fixtures defined from squeeze.pytest_plugin"
    ours = fixtures[next(i for i, line in enumerate(fixtures) if section in line) + 1 :]
    names = [line.split()[0] for line in ours[: ours.index("")] if line[:1].isidentifier()]
    assert names == ["squeeze_verdict"]
    options = pytester.runpytest_subprocess("--help").outlines
    start = next(i for i, line in enumerate(options) if line.startswith("squeeze:")) + 1
    group = options[start : options.index("", start)]
    assert [line.split()[0] for line in group if line.startswith("  -")] == ["--squeeze-run=RUN"]
    assert not [line for line in options if "--quick" in line or "ledger" in line]


def test_starting_pytest_does_not_import_torch(pytester):
    pytester.makeconftest("import sys\nassert 'torch' not in sys.modules")
    result = pytester.runpytest_subprocess("--collect-only", "-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
