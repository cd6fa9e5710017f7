"""Suite of `pytest --pyargs squeeze.verify --subject my_module:make_trainer`: a test a check.

One run of `squeeze.verify.runner.verify` answers them all; each test reports one answer.
"""

from __future__ import annotations

import pytest

from squeeze.verify.catalogue import CHECKS
from squeeze.verify.pytest_options import results_of


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check: str, request: pytest.FixtureRequest) -> None:
    """The check passes; it is skipped where it does not apply, and an expected failure may fail."""
    result = results_of(request.config).get(check)
    if result is None:
        pytest.skip("not asked of this kind of subject")
    if result.outcome == "does not apply":
        pytest.skip(result.what)
    if result.outcome == "xfail":
        pytest.xfail(result.what)
    if result.outcome == "fails":
        rule = result.check
        pytest.fail(f"{rule.standard}\n{result.what}\n{rule.cure}", pytrace=False)
