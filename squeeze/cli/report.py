"""`squeeze report`: the page of a run, whatever `squeeze diagnose` can read it from."""

from pathlib import Path
from typing import Annotated

import typer

from squeeze.cli.app import LOOK, app


@app.command(rich_help_panel=LOOK)
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="A run's directory, or whatever `diagnose` reads."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the page; by default the run's own, for logs reports/diagnosis.",
            show_default=False,
        ),
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="The β of DPO, where the logs do not tell.")
    ] = None,
) -> None:
    """Write the page of a run: rebuild that of a directory, or judge a log and show it."""
    from squeeze.diagnosis.page import report as write

    typer.echo(f"Report: {write(runs, out, beta=beta)}")
