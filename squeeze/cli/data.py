"""`squeeze convert` and `squeeze data list|show`: preference data from and to every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squeeze.cli.app import DATA, app
from squeeze.errors import InputError

if TYPE_CHECKING:
    from squeeze.data.convert import Summary

data_app = typer.Typer(help="The embedded data, and data files.", no_args_is_help=True)
app.add_typer(data_app, name="data", rich_help_panel=DATA)

TARGETS = "trl, trl-conversational, alpaca, comparison, sharegpt, openai, hh, kto or squeeze"


@app.command(rich_help_panel=DATA)
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A data file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help=".jsonl, .json or .parquet")],
    to: Annotated[str, typer.Option(help=TARGETS)],
    from_: Annotated[str | None, typer.Option("--from", help="Name the input's format.")] = None,
    name: Annotated[str | None, typer.Option(help="Data set in a dataset_info.json.")] = None,
    language: Annotated[str | None, typer.Option(help="Keep rows with this 'language'.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Where the parts lie: prompt=a,chosen=b.0.content,…")
    ] = None,
    pairs_by: Annotated[
        str, typer.Option(help="Rated answers to pairs: best-worst, all or first-rest.")
    ] = "best-worst",
    divergent: Annotated[
        str, typer.Option(help="Conversations that part early: refuse or last-turns.")
    ] = "refuse",
    drop_images: Annotated[
        bool, typer.Option("--drop-images", help="Read the texts of pairs with images.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Convert preference data to another format; bad rows go to OUT.refused.jsonl."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from squeeze.data.convert import convert as run
    from squeeze.data.layouts import Rules
    from squeeze.data.sources import parse_columns

    shown = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*shown, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"converting {source.name}", total=None)
        summary = run(
            source,
            target,
            to,
            format=from_,
            name=name,
            columns=None if columns is None else parse_columns(columns),
            rules=Rules(pairs_by, divergent, drop_images),
            where={} if language is None else {"language": language},
            force=force,
            progress=lambda position, extent: bar.update(task, completed=position, total=extent),
        )
    _print_summary(summary, target)


def _print_summary(summary: Summary, target: Path) -> None:
    from squeeze.data.convert import side_path

    typer.echo(f"{summary.source_format} → {summary.target_format}: {target}")
    line = f"rows in {summary.rows_in:,}, "
    if summary.rows_per_example > 1:
        line += f"paired into {summary.examples:,}, "
    line += f"rows out {summary.rows_out:,}"
    if summary.filtered:
        line += f", filtered out {summary.filtered:,}"
    typer.echo(line)
    if summary.pairs_by:
        typer.echo(f"pairs: {summary.pairs_by}")
    if ties := summary.left_out["tied pairs"]:
        typer.echo(f"left out: {ties:,} tied pairs")
    if images := summary.left_out["images"]:
        typer.echo(f"warning: images of {images:,} rows were dropped; their answers may need them")
    if summary.refused:
        typer.echo(f"refused {sum(summary.refused.values()):,}, see {side_path(target)}:")
        for reason, count in summary.refused.most_common():
            typer.echo(f"  {count:,} {reason}")
    if summary.not_carried:
        lost = ", ".join(f"{what} ({n:,} rows)" for what, n in summary.not_carried.most_common())
        typer.echo(f"not carried over: {lost}")
    for part, length in summary.lengths.items():
        spread = f"{length.smallest:,} – {length.mean:,.0f} – {length.largest:,}"
        typer.echo(f"{part}: {spread} characters (smallest – mean – largest)")


@data_app.command("list")
def list_data() -> None:
    """List the embedded data sets and the formats that files may have."""
    from squeeze.data.formats import FORMATS
    from squeeze.data.loading import builtin_names, load_examples
    from squeeze.data.writing import WRITABLE

    for name in builtin_names():
        examples = load_examples(name)
        typer.echo(f"{name}: {len(examples)} pairs, {len(examples[0].responses)} rewrites each")
    typer.echo("\nFormats of data files:")
    for known in FORMATS.values():
        use = "read, written" if known.name in WRITABLE else "read"
        typer.echo(f"  {known.name}: {known.title} ({use})")
    typer.echo(
        "  llamafactory: a dataset_info.json; name a data set as dataset_info.json:NAME (read)"
    )


@data_app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Embedded name or data file.")] = "enthusiastic_en",
    n: Annotated[int, typer.Option("--n", min=1, max=10**6, help="How many to show.")] = 3,
    model: Annotated[str, typer.Option(help="Whose tokens to count.")] = "smollm2-135m",
    from_: Annotated[str | None, typer.Option("--from", help="Name the file's format.")] = None,
) -> None:
    """Print a few examples with the number of tokens of each text."""
    from itertools import islice

    from squeeze.data.loading import open_data

    count, unit = _counter(model)
    typer.echo(f"{name}; lengths in {unit}")
    for number, item in islice(open_data(name, from_).examples(), n):
        if isinstance(item, InputError):
            typer.echo(f"\nrow {number} {item}")
            continue
        typer.echo(f"\n{item.id}")
        for message in item.prompt:
            typer.echo(f"  {message.role} [{count(message.content)}]: {message.content}")
        responses = {"chosen": item.chosen, "rejected": item.rejected} | dict(item.responses)
        for kind, text in responses.items():
            typer.echo(f"  {kind} [{count(text)}]: {text}")


def _counter(model: str) -> tuple[Callable[[str], int], str]:
    """How to count a text's length: the model's tokens if that needs no download, else words."""
    from squeeze.models import EMBEDDED, is_cached, load_tokenizer

    if model in EMBEDDED and not is_cached(model):
        unit = f"words, or characters where none are spaced ({model} is not cached)"
        return (lambda text: len(text.split()) if " " in text.strip() else len(text)), unit
    tokenizer = load_tokenizer(model)
    return (
        lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
        f"tokens of {model}",
    )
