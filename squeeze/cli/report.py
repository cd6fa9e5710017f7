"""`squeeze report`: rebuild the report of a run directory."""

from pathlib import Path
from typing import Annotated

import typer

from squeeze.cli.app import LOOK, app


@app.command(rich_help_panel=LOOK)
def report(
    run_dir: Annotated[Path, typer.Argument(help="A directory that a run wrote.")],
) -> None:
    """Rebuild the figures, report.md and index.html of a run."""
    from squeeze.report import build_report

    typer.echo(f"Report: {build_report(run_dir)}")
