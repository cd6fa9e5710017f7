"""The `squeeze` command: one module a subcommand, heavy imports inside the functions that need them."""

from __future__ import annotations

import sys

import typer

from squeeze.errors import InputError

app = typer.Typer(
    name="squeeze",
    help="Learning dynamics of LLM finetuning as falsifiable claims.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; an `InputError` becomes one sentence on stderr and exit code 2."""
    try:
        app()
    except InputError as error:
        print(f"squeeze: {error}", file=sys.stderr)
        raise SystemExit(2) from None
