"""The typer application that every command module registers on."""

from pathlib import Path
from typing import Annotated

import typer

Plugin = Annotated[Path | None, typer.Option(help="Python file that registers losses of your own.")]

app = typer.Typer(
    name="squeeze",
    help="Learning dynamics of LLM finetuning as falsifiable claims.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def squeeze() -> None:
    """Keep `squeeze COMMAND` a group, which typer would fold away while there is one command."""


def load_plugin(path: Path | None) -> None:
    """Run a file that registers losses; raises `InputError` if it is none."""
    import runpy

    from squeeze.errors import InputError

    if path is None:
        return
    if not path.is_file():
        raise InputError(f"--plugin {path} is not a file")
    runpy.run_path(str(path))
