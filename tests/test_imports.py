"""Imports of our own modules stand at the top of a file, but where a late one is needed."""

import ast
from pathlib import Path

import pytest

import squeeze

pytestmark = pytest.mark.cpu

SOURCES = Path(squeeze.__file__).parent
# file -> what its late imports keep out of a start that does not need it
LATE = {
    "__init__.py": "everything: the public names are lazy",
    "pytest_plugin.py": "everything: each pytest run where squeeze is installed loads it",
    "verify/pytest_options.py": "the same",
    "diagnosis/output.py": "matplotlib, which the report's package imports",
    "kernels/dispatch.py": "triton",
    "study/beyond.py": "TRL, which takes seconds",
}


def late_imports(path):
    """The lines of a file on which a function imports a module of ours."""
    functions = (n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(n, ast.FunctionDef))  # fmt: skip
    return {
        node.lineno
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("squeeze")
    }


def test_functions_import_our_own_modules_only_where_that_keeps_something_out():
    late = {
        name: lines
        for path in sorted(SOURCES.rglob("*.py"))
        if (name := path.relative_to(SOURCES).as_posix()).partition("/")[0] != "cli"
        if (lines := late_imports(path))
    }
    assert set(late) == set(LATE), late
