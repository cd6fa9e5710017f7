"""The typer application that every command module registers on."""

import typer

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
