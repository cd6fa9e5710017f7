"""The Markdown report: the page's numbers and texts for a terminal or a code host.

Every value is escaped as it is written, so that text from data stays text.
"""

from __future__ import annotations

import re
from typing import Any

from squeeze.report.content import Content
from squeeze.report.figures import main_split
from squeeze.report.html import environment

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$&!])")


def escape(value: Any) -> Any:
    """Text on one line with Markdown's and HTML's special characters escaped; numbers stay."""
    if not isinstance(value, str):
        return value
    return _SPECIAL.sub(r"\\\1", " ".join(value.split()))


def render_markdown(content: Content) -> str:
    """The report as Markdown; it links the PNG figures relative to itself."""
    env = environment(autoescape=False)
    env.finalize = escape
    text = env.get_template("report.md.j2").render(
        c=content, run=content.run, main_split=main_split(content.run)
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
