"""pytest's `--squeeze-run` and `squeeze_verdict`: assert in a suite that a run did not squeeze.

Registered by `squeeze.pytest_plugin`; imports of the diagnosis stay inside the fixture.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def add_option(group: pytest.OptionGroup) -> None:
    """Add `--squeeze-run` to the plugin's option group."""
    group.addoption(
        "--squeeze-run",
        metavar="RUN",
        default=None,
        help="log or run directory that the squeeze_verdict fixture judges",
    )


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
