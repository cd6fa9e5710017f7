"""Long description of the package: README.md, whose relative links an index would break.

With a `Source` in pyproject's `[project.urls]` they become absolute; without one, text is left.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
RELATIVE = re.compile(r"(!?)\[([^]]*)]\((?!https?://|#)([^)]*)\)")


def long_description() -> str:
    """README.md without a relative link."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = project["urls"].get("Source")

    def elsewhere(link: re.Match[str]) -> str:
        image, text, path = link.groups()
        if source is None:
            return "" if image else text
        return f"{image}[{text}]({source}/{'raw' if image else 'blob'}/HEAD/{path})"

    return RELATIVE.sub(elsewhere, (ROOT / "README.md").read_text(encoding="utf-8"))


setup(long_description=long_description(), long_description_content_type="text/markdown")
