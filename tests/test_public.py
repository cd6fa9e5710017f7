"""The public names: few, documented, and every example in their docstrings runs."""

import doctest
import inspect
from unittest.mock import patch

import pytest

import squeeze
from squeeze.losses import LOSSES

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning"),  # TRL's own default
]

NAMES = [name for name in squeeze.__all__ if name != "__version__"]


def test_the_public_names_are_about_a_dozen_and_all_there():
    assert len(NAMES) <= 13
    assert set(squeeze.__all__) <= set(dir(squeeze))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'squeezed'"):
        _ = squeeze.squeezed


@pytest.mark.parametrize("name", NAMES)
def test_every_example_in_its_docstring_runs(name, tiny_directory, tmp_path, monkeypatch):
    """Examples may use `directory`, a model's directory; files go into a temporary one."""
    monkeypatch.chdir(tmp_path)
    thing = getattr(squeeze, name)
    names = {"directory": str(tiny_directory)}
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(thing, name, module=inspect.getmodule(thing), globs=names)
    assert test.examples, f"squeeze.{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failures: list[str] = []
    with patch.dict(LOSSES):  # an example registers one
        runner.run(test, out=failures.append)
    assert not failures, "".join(failures)
