"""`squeeze bench`: measure our kernels beside other people's, on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from squeeze.cli.app import LOOK, app
from squeeze.errors import InputError
from squeeze.files import require_output, write_text

bench = typer.Typer(help="Measure our code beside other people's.", no_args_is_help=True)
app.add_typer(bench, name="bench", rich_help_panel=LOOK)


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
    roofline_path: Annotated[
        Path | None,
        typer.Option("--roofline", help="Draw the cases under the machine's rates here, as PNG."),
    ] = None,
    own: Annotated[
        str | None,
        typer.Option(
            "--kernel",
            help="A kernel of your own, FILE.py:FUNCTION: checked against float64, then timed.",
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Compare with the JSON of an earlier run.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Few small shapes, at most four minutes.")] = False,
    shapes: Annotated[
        str | None, typer.Option(help="Comma-separated: smollm2, gemma-270m, qwen3-4b.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")
    ] = "auto",
) -> None:
    """Compare log-prob kernels side by side: time, memory, error and distance to the limit.

    The JSON and Markdown are written again after each case, so that a run that is stopped leaves
    what it measured; `squeeze bench draw` makes the plot of it.
    """
    # The profiler that counts memory announces each start and stop on stderr otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from squeeze.bench import compare, show
    from squeeze.bench.cases import Case, select_cases
    from squeeze.bench.kernels import run_cases
    from squeeze.tables import print_table

    kernel_file = None if own is None else Path(own.rpartition(":")[0])
    _require_outputs(json_path, markdown_path, plot_path, roofline_path, against, kernel_file)
    used = torch.device(_device(device))
    earlier = None if against is None else compare.read_report(against)
    kernel = None if own is None else _checked(own, used)
    cases = select_cases(used, quick=quick, shapes=None if shapes is None else shapes.split(","))
    if kernel is not None:
        cases = [case for case in cases if kernel.takes(case)]
        if not cases:
            raise InputError(f"--kernel {own}: none of the chosen cases is one that it can do.")
    if json_path is not None:
        plot_path = plot_path or json_path.with_suffix(".png")
    columns = (TextColumn("{task.description}"), BarColumn(30), TimeElapsedColumn(), TimeLeft())
    # One case can take a minute, so the speed is that of the whole run, not of its last seconds.
    bar = Progress(*columns, console=Console(stderr=True), speed_estimate_period=3600)
    job = bar.add_task("", total=sum(case.weight for case in cases))

    def starts(case: Case) -> None:
        bar.update(job, description=case.title)
        if not bar.console.is_terminal:  # where a bar shows at the end alone
            typer.echo(case.title, err=True)

    def ends(case: Case, report: dict[str, Any]) -> None:
        bar.advance(job, case.weight)
        _write(report, json_path, markdown_path, None)

    with bar:
        report = run_cases(cases, used, quick=quick, starts=starts, ends=ends, own=kernel)
    _write(report, None, None, plot_path)
    if roofline_path is not None:
        compare.roofline(report, roofline_path)
    console = Console()
    for table in show.tables(report):
        print_table(table, console)
    console.print(show.LEGEND, markup=False)
    for name, reason in show.not_measured(report).items():
        console.print(f"not measured: {name}: {reason}", markup=False)
    if earlier is not None:
        print_table(compare.comparison(report, earlier), console)


@bench.command()
def draw(
    json_path: Annotated[Path, typer.Argument(help="What `squeeze bench kernels --json` wrote.")],
    plot_path: Annotated[
        Path | None, typer.Option("--plot", help="Write the plot here, as PNG.")
    ] = None,
    markdown_path: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables as Markdown here.")
    ] = None,
    roofline_path: Annotated[
        Path | None,
        typer.Option("--roofline", help="Draw the cases under the machine's rates here, as PNG."),
    ] = None,
    note: Annotated[
        str | None, typer.Option(help="A sentence on the run, to stand above the tables.")
    ] = None,
) -> None:
    """Draw the plot and the tables of a finished or stopped `squeeze bench kernels` again."""
    from squeeze.bench import compare

    report = compare.read_report(json_path)
    _require_outputs(None, markdown_path, plot_path, roofline_path, json_path)
    if plot_path is None and markdown_path is None and roofline_path is None:
        raise InputError("nothing to draw; give --plot, --roofline (FILE.png) or --markdown.")
    if roofline_path is not None:
        compare.roofline(report, roofline_path)
    _write(report if note is None else {**report, "note": note}, None, markdown_path, plot_path)


def _require_outputs(
    json_path: Path | None,
    markdown: Path | None,
    plot: Path | None,
    roofline: Path | None,
    *inputs: Path | None,
) -> None:
    """Raise `InputError`, before any work, for an output that is an input or somebody else's."""
    for path, flag in ((json_path, "--json"), (markdown, "--markdown")):
        require_output(path, flag, *inputs)
    for path, flag in ((plot, "--plot"), (roofline, "--roofline")):
        require_output(path, flag, *inputs)
        if path is not None and path.suffix != ".png":
            raise InputError(f"{flag} {path} must end with .png")


def _checked(place: str, device: Any) -> Any:
    """Load the user's kernel and print how it stands the hostile inputs; refuse it if it fails."""
    from squeeze.bench.own import check_kernel, load_kernel

    kernel = load_kernel(place)
    checks = check_kernel(kernel, device)
    for check in checks:
        typer.echo(f"{'FAILS' if check.failure else 'ok':6}{check.name}", err=True)
    failed = [check for check in checks if check.failure]
    if failed:
        raise InputError(
            f"--kernel {place} is wrong on {len(failed)} of {len(checks)} inputs, so not timed. "
            + "; ".join(f"{check.name}: {check.failure}" for check in failed)
        )
    return kernel


def _device(name: str) -> str:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {name} is not known; choose cpu, cuda or auto.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no GPU here; use --device cpu.")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def _write(
    report: dict[str, Any],
    json_path: Path | None,
    markdown_path: Path | None,
    plot_path: Path | None,
) -> None:
    from squeeze.bench import show

    if json_path is not None:
        write_text(json_path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    if markdown_path is not None:
        write_text(markdown_path, show.markdown(report))
    if plot_path is not None and report["cases"]:
        show.plot(report, plot_path)
