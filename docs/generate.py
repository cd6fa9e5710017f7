"""Pages of the site that are generated: the API from docstrings, the claims, the changelog.

A hook of mkdocs (`hooks:` in mkdocs.yml): the pages exist in the built site only.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import squeeze

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages before mkdocs reads any."""
    pages = {"api.md": api(), "claims.md": claims(), "changelog.md": changelog()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def api() -> str:
    """Return a section for every public name: its signature, and its docstring with the example."""
    parts = ["# API\n\nWhat `import squeeze` promises; everything else is private by convention.\n"]
    for name in squeeze.__all__:
        if name != "__version__":
            parts.append(_section(name, getattr(squeeze, name)))
    return "\n".join(parts)


def _section(name: str, thing: Any) -> str:
    words = inspect.getdoc(thing) or ""
    prose, example = words, ""
    if ">>> " in words:
        prose, example = words.split(">>> ", 1)
        example = f"\n```pycon\n>>> {example}\n```\n"
    # A layout of its own (arguments, tables in plain text) keeps its line breaks.
    prose = "\n\n".join(_block(part) for part in prose.strip().split("\n\n"))
    signature = "" if _is_exception(thing) else str(inspect.signature(thing))
    return f"## {name}\n\n```python\nsqueeze.{name}{signature}\n```\n\n{prose}\n{example}"


def _block(text: str) -> str:
    return f"```text\n{textwrap.dedent(text)}\n```" if "\n    " in text else text


def _is_exception(thing: Any) -> bool:
    """Whether it is an exception class, whose signature says nothing."""
    return isinstance(thing, type) and issubclass(thing, BaseException)


def claims() -> str:
    """Return the table of `squeeze claims --markdown`, from the shipped results."""
    command = [sys.executable, "-m", "squeeze", "claims", "--markdown", "--reports", "build/none"]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return (
        "# Claims\n\nHow every claim came out at each level in this version's own suite; "
        "`squeeze claims ID` shows its mathematics, its check and its counterfactual.\n\n" + table
    )


def changelog() -> str:
    """Return the repository's changelog."""
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
