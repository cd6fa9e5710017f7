"""Plugin of pytest, active where the package is installed: the fixture `squeeze_verdict`.

Assert in a suite that a run did not squeeze. Imports of the diagnosis stay inside the fixture, so
that starting pytest stays fast.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--squeeze-run`, the log or run directory to judge."""
    parser.getgroup("squeeze", "squeeze: is a preference training squeezing?").addoption(
        "--squeeze-run",
        metavar="RUN",
        default=None,
        help="log or run directory that the squeeze_verdict fixture judges",
    )


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Add `--subject` to `pytest --pyargs squeeze.verify`, and to no other run of pytest."""
    if any(arg.split(".")[:2] == ["squeeze", "verify"] for arg in args):
        from squeeze.verify import pytest_options

        early_config.pluginmanager.register(pytest_options, "squeeze-verify")


@pytest.fixture(scope="session")
def squeeze_verdict(request: pytest.FixtureRequest) -> str:
    """The verdict on `--squeeze-run` (the worst, if it holds several runs); skips without one.

    Use: `assert squeeze_verdict not in {"squeezing", "collapse"}`.
    """
    given = request.config.getoption("--squeeze-run")
    if given is None:
        pytest.skip("needs --squeeze-run RUN, a log or run directory")
    from squeeze.diagnosis import diagnose, load, worst
    from squeeze.errors import InputError

    path = request.config.invocation_params.dir / Path(given)
    try:
        return worst(diagnose(run).verdict for run in load(path))
    except InputError as error:
        pytest.fail(f"--squeeze-run: {error}", pytrace=False)
