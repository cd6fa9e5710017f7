"""`squeeze diagnose`: is this preference run squeezing, and what to do about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squeeze.cli.app import app
from squeeze.errors import InputError

if TYPE_CHECKING:
    from squeeze.diagnosis import Diagnosis


@app.command()
def diagnose(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Logs or run directories: trainer_state.json, trainer_log.jsonl, W&B or other "
            "CSV, JSON Lines, console output, a run directory of squeeze.",
            show_default=False,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    fail_on: Annotated[
        str,
        typer.Option(
            metavar="VERDICT,...", help="Exit with 1 on one of these, such as squeezing,collapse."
        ),
    ] = "",
    beta: Annotated[
        float | None,
        typer.Option(help="The β of DPO, to convert rewards to nats where the log does not tell."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with the curves into this directory.")
    ] = None,
    reports: Annotated[
        Path, typer.Option(help="Directory of claims.json: which remedies were verified here.")
    ] = Path("reports"),
) -> None:
    """Say whether a preference run squeezes, from whatever its log holds."""
    alarming = _verdicts(fail_on)
    diagnoses = _from_logs(runs, beta)
    _show(diagnoses, as_json, reports)
    if report is not None:
        from squeeze.diagnosis.page import write_page

        page = write_page(diagnoses, report, reports)
        print(f"wrote {page}", file=sys.stderr)
    if any(d.verdict in alarming for d in diagnoses):
        raise typer.Exit(1)


def _from_logs(paths: list[Path], beta: float | None) -> list[Diagnosis]:
    from squeeze import diagnosis

    return [diagnosis.diagnose(run, beta=beta) for path in paths for run in diagnosis.load(path)]


def _show(diagnoses: list[Diagnosis], as_json: bool, reports: Path) -> None:
    from squeeze.diagnosis import output

    if as_json:
        document = output.to_json(diagnoses, reports)
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console

    console = Console()
    for i, diagnosis in enumerate(diagnoses):
        if i:
            console.rule()
        output.print_diagnosis(diagnosis, console, reports)


def _verdicts(fail_on: str) -> set[str]:
    from squeeze.diagnosis import VERDICTS

    names = {name.strip().replace("-", " ") for name in fail_on.split(",") if name.strip()}
    unknown = sorted(names - set(VERDICTS))
    if unknown:
        raise InputError(
            f"--fail-on does not know {', '.join(map(repr, unknown))}; the verdicts are "
            f"{', '.join(VERDICTS)}"
        )
    return names
