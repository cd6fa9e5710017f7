"""Options of `pytest --pyargs squeeze.verify`: the subject, expected failures, the JSON report.

`squeeze.pytest_plugin` registers this module for such a run only. It imports nothing heavy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from squeeze.verify.types import Result

KEY = "squeeze_verify"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("squeeze-verify", "squeeze: conformance of a trainer")
    group.addoption("--subject", help="module:make_trainer, or a TRL trainer as trl:dpo:ipo")
    group.addoption("--subject-model", help="model directory (default: a tiny random model)")
    group.addoption("--subject-data", help="rows to train on (default: four pairs)")
    group.addoption("--subject-xfails", type=Path, help="file: check id  # why it may fail")
    group.addoption("--subject-json", type=Path, help="write the report here as JSON")


def results_of(config: pytest.Config) -> dict[str, Result]:
    """Every check's result, by its id; all are asked once, as each rests on others.

    Raises `pytest.UsageError` for a subject that cannot be used.
    """
    if not hasattr(config, KEY):
        setattr(config, KEY, _ask(config))
    found: dict[str, Result] = getattr(config, KEY)
    return found


def _ask(config: pytest.Config) -> dict[str, Result]:
    from squeeze.errors import InputError
    from squeeze.files import write_json
    from squeeze.verify.loading import load_subject, trl_trainer
    from squeeze.verify.report import to_json
    from squeeze.verify.runner import read_xfails, verify

    def option(name: str) -> Any:
        return config.getoption(f"--subject{name}")

    spec = option("")
    if spec is None:
        raise pytest.UsageError("squeeze.verify needs --subject module:make_trainer")
    try:
        if spec.startswith("trl:"):
            _, name, *loss_type = spec.split(":")
            subject = trl_trainer(name, *loss_type or [None], model=option("-model"))
        else:
            subject = load_subject(spec, model=option("-model"), data=option("-data"))
        expected = read_xfails(option("-xfails")) if option("-xfails") else None
        results = verify(subject, xfails=expected)
        if option("-json"):
            write_json(option("-json"), to_json(subject.name, results))
    except InputError as error:
        raise pytest.UsageError(f"--subject: {error}") from error
    return {result.check.id: result for result in results}
