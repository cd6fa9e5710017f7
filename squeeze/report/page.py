"""Building all files of a report, in the order that keeps a finished page's links valid."""

from __future__ import annotations

from pathlib import Path

from squeeze.files import write_text
from squeeze.report.content import build_content
from squeeze.report.figures import write_figures
from squeeze.report.html import render_html
from squeeze.report.markdown import render_markdown
from squeeze.report.source import read_run


def build_report(run_dir: Path) -> Path:
    """Write figures, report.md and index.html of a run directory; return the path of index.html.

    Each file is replaced whole, index.html last. Raises `InputError` when the directory holds
    neither trajectory nor diagnosis, when a file of the run is malformed, or when the report cannot
    be written.
    """
    run = read_run(run_dir)
    content = build_content(run)
    figures = [] if run.from_log else write_figures(run)
    write_text(run_dir / "report.md", render_markdown(content))
    page = run_dir / "index.html"
    write_text(page, render_html(content, figures))
    return page
