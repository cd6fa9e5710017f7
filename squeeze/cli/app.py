"""The typer application that every command module registers on."""

from pathlib import Path
from typing import Annotated

import typer

from squeeze import __version__

PANELS = RUN, JUDGE, LOOK, DATA = ("Run", "Judge", "Look", "Data and models")  # of `--help`

Plugin = Annotated[Path | None, typer.Option(help="Python file that registers losses of your own.")]

app = typer.Typer(
    name="squeeze",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"squeeze {__version__}")
        raise typer.Exit


@app.callback()
def squeeze(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """State how finetuning moves a language model's probabilities, and judge your own runs."""


def seed_numbers(text: str, said: str) -> list[int]:
    """Distinct seeds with commas; `InputError` with what --seeds may be, `said`."""
    from squeeze.errors import InputError

    try:
        found = [int(part) for part in text.split(",")]
        if len(set(found)) == len(found) and all(0 <= seed < 2**32 for seed in found):
            return found
    except ValueError:
        pass
    raise InputError(f"--seeds must be {said} such as 0,1, not {text!r}")


def load_plugin(path: Path | None) -> None:
    """Run a file that registers losses; raises `InputError` if it is none, or if it fails."""
    import runpy

    from squeeze.errors import InputError
    from squeeze.user_code import users_code

    if path is None:
        return
    if not path.is_file():
        raise InputError(f"--plugin {path} is not a file")
    with users_code(f"--plugin {path}"):
        runpy.run_path(str(path))
