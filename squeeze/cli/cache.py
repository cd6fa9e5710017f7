"""`squeeze cache list|clean`: what the cache holds, and removing it by kind, age or size."""

from __future__ import annotations

from typing import Annotated

import typer

from squeeze.cli.app import DATA, app
from squeeze.errors import InputError

Option = typer.Option
cache_app = typer.Typer(help="What is kept between runs.", no_args_is_help=True)
app.add_typer(cache_app, name="cache", rich_help_panel=DATA)


@cache_app.command("list")
def list_cache() -> None:
    """Show what the cache holds, by kind and age."""
    from rich.console import Console
    from rich.table import Table

    from squeeze.cache import KINDS, cache_directory, entries
    from squeeze.tables import print_table

    found = entries()
    table = Table("kind", "entry", "MB", "unused for days")
    for entry in found:
        table.add_row(entry.kind, entry.path.name, f"{entry.size / 1e6:.1f}", f"{entry.days:.1f}")
    console = Console(markup=False, highlight=False)
    print_table(table, console)
    sums = {kind: sum(e.size for e in found if e.kind == kind) / 1e6 for kind in KINDS}
    said = ", ".join(f"{kind} {size:.0f} MB" for kind, size in sums.items())
    console.print(f"{cache_directory()}: {said}", soft_wrap=True)


@cache_app.command()
def clean(
    kind: Annotated[str | None, Option(help="Only models, tinylm, kernels or experiments.")] = None,
    unused: Annotated[
        float | None, Option(min=0, help="Only what was not used for so many days.")
    ] = None,
    larger: Annotated[float | None, Option(min=0, help="Only what takes more MB.")] = None,
    everything: Annotated[bool, Option("--all", help="All of it.")] = False,
) -> None:
    """Remove what the cache holds: what all of the options ask for, and nothing that is in use."""
    from squeeze.cache import KINDS, entries

    if kind is not None and kind not in KINDS:
        raise InputError(f"--kind {kind} is not known; choose {', '.join(KINDS)}")
    if kind is None and unused is None and larger is None and not everything:
        raise InputError("say what to remove: --kind, --unused DAYS, --larger MB, or --all")
    freed = 0
    for entry in entries():
        wanted = (kind in (None, entry.kind), entry.days >= (unused or 0))
        if not all(wanted) or entry.size <= (larger or -1) * 1e6:
            continue
        removed = entry.remove()
        freed += entry.size if removed else 0
        said = "removed" if removed else "in use, kept"
        typer.echo(f"{said}: {entry.kind}/{entry.path.name} ({entry.size / 1e6:.1f} MB)")
    typer.echo(f"freed {freed / 1e6:.1f} MB")
