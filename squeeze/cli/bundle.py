"""`squeeze bundle`: what a machine without a network needs to run the GPU suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeeze.cli.app import DATA, app

Option = typer.Option


@app.command(rich_help_panel=DATA)
def bundle(
    directory: Annotated[Path, typer.Argument(help="Where its pieces go, of at most 60 MB each.")],
    python: Annotated[str, Option(help="The machine's Python.")] = "3.12",
    platform: Annotated[
        str, Option(help="The newest wheels that it runs.")
    ] = "manylinux_2_28_x86_64",
    installed: Annotated[
        Path | None, Option(help="What `pip list` prints there; a GPU machine we know by default.")
    ] = None,
    model: Annotated[str, Option(help="An embedded model.")] = "smollm2-135m",
) -> None:
    """Pack what a machine without a network lacks to run the GPU suite, with a script that does.

    Pieces that are there and whole are kept: a stopped build goes on.
    """
    from squeeze.bundle import build

    pinned = build.pinned_versions(build.checkout() / "constraints.txt")
    there = build.read_installed(installed or build.KNOWN_MACHINE, pinned)
    for packed in build.build(build.Target(python, platform, there), directory, model):
        what = "kept" if packed.kept else "written"
        typer.echo(f"{packed.name}: {packed.pieces} pieces, {packed.megabytes} MB, {what}")
    typer.echo(f"on the machine: python run.py, in a copy of {directory}")
