"""Plugin of this suite: the `ledger` fixture, the `claim` marker, `--quick` and its like.

Loaded by the root's conftest, so that the benchmarks have it as well. Imports of squeeze stay
inside functions: the shape checks of tests/conftest.py reach only what is imported after them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from squeeze.claims.ledger import Failure
    from squeeze.claims.types import Entry, Key, Verdict

VERDICT = "squeeze_verdict"
CLAIM = "squeeze_claim"
NOT_RUN = "squeeze_not_run"
SLOW_LEVELS = ("pretrained", "gpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the slow suites and of the ledger."""
    group = parser.getgroup("squeeze's own suite")
    group.addoption(
        "--squeeze-model",
        default="smollm2-135m",
        help="model of the pretrained and gpu suites: embedded name, hub id or local directory",
    )
    group.addoption(
        "--squeeze-data", default=None, help="preference data of those suites: name or file"
    )
    group.addoption(
        "--squeeze-out",
        default=None,
        help="directory of the claim ledger (default: reports, in the root directory)",
    )
    group.addoption(
        "--quick",
        action="store_true",
        help="few examples: checks the machinery, records no verdict of a real model",
    )
    group.addoption(
        "--rehearse",
        action="store_true",
        help="the gpu suite end to end without a GPU, on a two-layer model and a handful of rows; "
        "records no verdict of a real model",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the object that gathers what the tests record."""
    config.addinivalue_line(
        "markers",
        "claim(id, level): the test checks this claim of squeeze's registry at this level; "
        "if it fails, the ledger cannot go on saying 'supported'",
    )
    config.pluginmanager.register(LedgerPlugin(config), "squeeze-ledger")


def pytest_report_header() -> str:
    """Say which embedded models are cached and which devices there are."""
    import torch

    from squeeze import models

    cached = {True: "cached", False: "not fetched"}
    names = (f"{name} ({cached[models.is_cached(name)]})" for name in models.EMBEDDED)
    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"squeeze: models {', '.join(names)}; devices {', '.join(devices)}"


def out_directory(config: pytest.Config) -> Path:
    """Return the ledger's directory; `--squeeze-out` counts from where pytest was started."""
    given = config.getoption("--squeeze-out")
    return config.rootpath / "reports" if given is None else config.invocation_params.dir / given


class Recorder:
    """What the `ledger` fixture gives a test."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._since = time.perf_counter()

    def record(self, *verdicts: Verdict, seconds: float | None = None) -> None:
        """Put verdicts into the ledger; `seconds` defaults to the time since the last record.

        Raises `InputError` if a claim is not registered, is not stated at that level, or has NaN.
        """
        from squeeze.claims import catalogue
        from squeeze.claims.ledger import entry_to_json, new_entry

        now = time.perf_counter()
        spent = now - self._since if seconds is None else seconds
        self._since = now
        for verdict in verdicts:
            claim = catalogue.get(verdict.claim)
            entry = new_entry(verdict, claim, seconds=spent, test=self._item.nodeid)
            # user_properties is the channel that xdist carries from workers to the controller.
            self._item.user_properties.append((VERDICT, json.dumps(entry_to_json(entry))))


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Recorder:
    """Record verdicts: `ledger.record(verdict)`. Fails the test if the ledger file is not ours."""
    from squeeze.claims.ledger import read

    read(out_directory(request.config))  # better here than after an hour of training
    return Recorder(request.node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Attach the test's declared claims to its reports, before anything can skip or fail it."""
    for marker in item.iter_markers("claim"):
        from squeeze.claims import catalogue
        from squeeze.errors import InputError

        claim_id, level = marker.args
        item.user_properties.append((CLAIM, json.dumps([claim_id, level])))
        claim = catalogue.get(claim_id)
        if level not in claim.levels:
            raise InputError(
                f"{item.nodeid} is marked with claim {claim_id} at level {level!r}; "
                f"the claim is stated at {', '.join(claim.levels)}"
            )
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Note a failure that says nothing of a claim: of the machine, or of what it was given."""
    if call.excinfo is not None and _of_the_machine(call.excinfo.value):
        item.user_properties.append((NOT_RUN, call.when))
    return (yield)


def _of_the_machine(error: BaseException) -> bool:
    from squeeze.errors import InputError

    # torch.OutOfMemoryError of a GPU, and the RuntimeError of the CPU's allocator
    words = ("OutOfMemoryError", "out of memory", "allocate memory", "No space left")
    return isinstance(error, InputError | MemoryError) or any(
        word in f"{type(error).__name__}: {error}" for word in words
    )


class LedgerPlugin:
    """Gathers verdicts and outcomes from the reports; the controller alone writes the file."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._is_worker = hasattr(config, "workerinput")
        self._machinery = next((o for o in ("--quick", "--rehearse") if config.getoption(o)), "")
        self._entries: list[Entry] = []
        self._declared: dict[str, list[tuple[str, str]]] = {}
        self._failures: dict[str, str] = {}
        self._skips: dict[str, str] = {}
        self._passed: set[str] = set()
        self._interrupted: set[str] = set()
        self._rows: list[Entry] = []
        self._error = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a phase's outcome; the properties are complete once the test is torn down."""
        if self._is_worker:
            return
        # An expected failure counts as skipped for pytest, but what it recorded did not stand.
        if report.failed or (report.skipped and hasattr(report, "wasxfail")):
            self._failures.setdefault(report.nodeid, _reason(report))
        elif report.skipped:
            self._skips[report.nodeid] = _reason(report)
        if report.when == "teardown":
            if report.nodeid not in self._failures and report.nodeid not in self._skips:
                self._passed.add(report.nodeid)
            self._read_properties(report)

    def _read_properties(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == VERDICT:
                from squeeze.claims.ledger import entry_from_json

                self._entries.append(entry_from_json(json.loads(str(value))))
            elif name == NOT_RUN:
                self._interrupted.add(report.nodeid)
            elif name == CLAIM:
                claim, level = json.loads(str(value))
                self._declared.setdefault(report.nodeid, []).append((claim, level))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Merge this run into the ledger, if it concerns any claim."""
        directory = out_directory(self._config)
        touches_claims = bool(self._entries or self._declared)
        if self._is_worker or not (touches_claims or (directory / "claims.json").is_file()):
            return
        from squeeze.claims.ledger import merge, read
        from squeeze.errors import InputError

        try:
            before = read(directory)
            self._forgive(before)
            entries = [*self._written(self._entries), *self._not_run(before)]
            failures = self._failed(before)
            known = {entry.test for entry in before.values()}
            if entries or failures or known & self._passed:
                merged = merge(directory, entries, failures, self._passed)
                keys = {entry.key for entry in entries}
                self._rows = [
                    row for key, row in merged.items() if key in keys or before.get(key) != row
                ]
        except InputError as error:
            if touches_claims:
                self._error = str(error)
                session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def _forgive(self, before: Mapping[Key, Entry]) -> None:
        """A run of a real model that the machine ended, before any verdict, was not run."""
        spoken = {entry.test for entry in self._entries}
        for test in self._interrupted - spoken:
            if self._levels(test, before.values()) <= set(SLOW_LEVELS) and test in self._failures:
                self._skips[test] = self._failures.pop(test)

    def _levels(self, test: str, recorded: Iterable[Entry]) -> set[str]:
        declared = {level for _, level in self._declared.get(test, ())}
        return declared | {e.verdict.level for e in recorded if e.test == test}

    def _written(self, entries: list[Entry]) -> list[Entry]:
        return [e for e in entries if not (self._machinery and e.verdict.level in SLOW_LEVELS)]

    def _not_run(self, before: Mapping[Key, Entry]) -> list[Entry]:
        """Return the skip reasons for every claim and level that nothing else has spoken on."""
        from squeeze.claims import catalogue
        from squeeze.claims.ledger import new_entry
        from squeeze.claims.types import Verdict

        recorded = [e for e in before.values() if e.verdict.ran]
        spoken = {entry.key[:2] for entry in [*recorded, *self._entries]}
        reasons = {
            pair: reason
            for test, reason in self._skips.items()
            for pair in self._declared.get(test, [])
            if pair not in spoken
        }
        return self._written(
            [
                new_entry(
                    Verdict(claim, level, "not run", reason=reason),  # type: ignore[arg-type]
                    catalogue.get(claim),
                    seconds=0.0,
                )
                for (claim, level), reason in reasons.items()
            ]
        )

    def _failed(self, before: Mapping[Key, Entry]) -> list[Failure]:
        from squeeze.claims.ledger import Failure

        recorded = [*before.values(), *self._entries]
        levels = {test: self._levels(test, recorded) for test in self._failures}
        return [
            Failure(test, reason, tuple(self._declared.get(test, ())))
            for test, reason in self._failures.items()
            if levels[test] and not (self._machinery and levels[test] & set(SLOW_LEVELS))
        ]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the claims of this run, a line for each claim and level."""
        held_back = [e for e in self._entries if e not in self._written(self._entries)]
        if not (self._rows or held_back or self._error):
            return
        from squeeze.claims.table import count

        terminalreporter.section("claims")
        self._print(terminalreporter, self._rows)
        if held_back:
            terminalreporter.write_line(
                f"{self._machinery}: seen on few examples, not in the ledger:"
            )
            self._print(terminalreporter, held_back)
        if self._error:
            terminalreporter.write_line(f"NOT WRITTEN: {self._error}", red=True, bold=True)
        elif self._rows:
            path = out_directory(self._config) / "claims.md"
            terminalreporter.write_line(f"{count(self._rows)}; {path}")

    @staticmethod
    def _print(terminalreporter: pytest.TerminalReporter, rows: list[Entry]) -> None:
        from squeeze.claims.table import STYLES
        from tests.ledger_summary import summary_lines

        for line, outcome in summary_lines(rows):
            terminalreporter.write_line(line, **{STYLES[outcome]: True})


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # a skip: (path, line, "Skipped: why")
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else (report.longreprtext or report.outcome)
    return f"{report.when}: {text.strip().splitlines()[0][:200]}"
