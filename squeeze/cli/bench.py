"""`squeeze bench`: measure our kernels beside other people's, on this machine."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from squeeze.cli.app import app
from squeeze.errors import InputError

bench = typer.Typer(help="Measure our code beside other people's.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.callback()
def _group() -> None:
    """Measure our code beside other people's."""


@bench.command()
def kernels(
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the report as JSON here.")
    ] = None,
    markdown_path: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables as Markdown here.")
    ] = None,
    plot_path: Annotated[
        Path | None,
        typer.Option("--plot", help="Write the plot here (default: beside the JSON, as PNG)."),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Few small shapes, at most two minutes.")] = False,
    shapes: Annotated[
        str | None, typer.Option(help="Comma-separated: smollm2, gemma-270m, qwen3-4b.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")
    ] = "auto",
) -> None:
    """Compare log-prob kernels side by side: time, memory, error and distance to the limit."""
    # The profiler that counts memory announces each start and stop on stderr otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch
    from rich.console import Console

    from squeeze.bench import show
    from squeeze.bench.cases import select_cases
    from squeeze.bench.kernels import run_cases

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {device} is not known; choose cpu, cuda or auto.")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here; use --device cpu.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    used = torch.device(device)
    cases = select_cases(used, quick=quick, shapes=shapes.split(",") if shapes else None)
    terminal = Console()
    # Narrower than this, the tables would fold every cell.
    console, progress = Console(width=max(130, terminal.width)), Console(stderr=True)
    report = run_cases(
        cases, used, quick=quick, say=lambda title: progress.print(title, style="dim")
    )
    for table in show.tables(report):
        console.print(table)
    for name, reason in show.not_measured(report).items():
        console.print(f"not measured: {name}: {reason}")
    if json_path is not None:
        _write(json_path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        plot_path = plot_path or json_path.with_suffix(".png")
    if markdown_path is not None:
        _write(markdown_path, show.markdown(report))
    if plot_path is not None:
        show.plot(report, plot_path)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        draft = Path(scratch) / path.name
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
