"""`squeeze diagnose`: is this preference run squeezing, and what to do about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from squeeze.cli.app import JUDGE, app
from squeeze.errors import InputError

if TYPE_CHECKING:
    from squeeze.diagnosis import Diagnosis
    from squeeze.diagnosis.checkpoints import Checkpoints


_CHECKPOINTS = "From checkpoints"


@app.command(rich_help_panel=JUDGE)
def diagnose(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN...",
            help="Logs or run directories: trainer_state.json, trainer_log.jsonl, W&B or other "
            "CSV, JSON Lines, console output, a run directory of squeeze.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        str,
        typer.Option(help="The model before training.", rich_help_panel=_CHECKPOINTS),
    ] = "",
    tuned: Annotated[
        list[str] | None,
        typer.Option(
            help="What was trained from it: a model or a PEFT adapter. Several, in the order of "
            "training, show a turn.",
            rich_help_panel=_CHECKPOINTS,
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            help="Preference pairs to score: a file or embedded name.",
            rich_help_panel=_CHECKPOINTS,
        ),
    ] = "",
    pairs: Annotated[
        int,
        typer.Option(
            min=1, help="Score at most so many, evenly spaced.", rich_help_panel=_CHECKPOINTS
        ),
    ] = 32,
    template: Annotated[
        str,
        typer.Option(
            help="Chat template: model, unmarked, chatml or plain.", rich_help_panel=_CHECKPOINTS
        ),
    ] = "model",
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
        Path | None,
        typer.Option(
            "--report",
            "--out",
            help="Write the report into this directory; for checkpoints reports/diagnosis if not "
            "given.",
        ),
    ] = None,
    reports: Annotated[
        Path, typer.Option(help="Directory of claims.json: which remedies were verified here.")
    ] = Path("reports"),
) -> None:
    """Say whether a preference run squeezes, from a log, a run directory or two checkpoints."""
    alarming = _verdicts(fail_on)
    if _from_checkpoints_wanted(runs or [], base, tuned or [], data):
        from squeeze.diagnosis.checkpoints import Checkpoints

        given = Checkpoints(base, tuple(tuned or ()), data, pairs, template)
        diagnoses = _from_checkpoints(given, report or reports / "diagnosis", as_json, reports)
    else:
        diagnoses = _from_logs(runs or [], beta)
        _show(diagnoses, as_json, reports)
        if report is not None:
            from squeeze.diagnosis.page import write_report

            _say_written(write_report(diagnoses, report, reports))
    if any(d.verdict in alarming for d in diagnoses):
        raise typer.Exit(1)


def _from_checkpoints_wanted(runs: list[Path], base: str, tuned: list[str], data: str) -> bool:
    """Whether checkpoints are to be compared; raises `InputError` for half a request or two."""
    missing = [
        flag
        for flag, given in (("--base", base), ("--tuned", tuned), ("--data", data))
        if not given
    ]
    if len(missing) == 3:
        if not runs:
            raise InputError(
                "nothing to diagnose; give a log or run directory, or --base, --tuned and --data"
            )
        return False
    if missing:
        raise InputError(
            f"comparing checkpoints also needs {' and '.join(missing)}: --base MODEL --tuned "
            "MODEL_OR_ADAPTER --data FILE"
        )
    if runs:
        raise InputError(
            f"{runs[0]} is a log, and --base asks for checkpoints; diagnose them one at a time"
        )
    return True


def _from_checkpoints(
    given: Checkpoints, directory: Path, as_json: bool, reports: Path
) -> list[Diagnosis]:
    from squeeze.diagnosis import diagnose as judge
    from squeeze.diagnosis.checkpoints import compare
    from squeeze.diagnosis.page import finish_run
    from squeeze.files import read_json
    from squeeze.training.trainers import quiet

    quiet()
    diagnoses = [judge(compare(given, directory))]
    page = finish_run(diagnoses, directory, reports)
    tokens = read_json(directory / "samples.json")["tokens"]
    _show(diagnoses, as_json, reports, tokens)
    _say_written(page)
    return diagnoses


def _say_written(page: Path) -> None:
    print(f"wrote {page}", file=sys.stderr)


def _from_logs(paths: list[Path], beta: float | None) -> list[Diagnosis]:
    from squeeze import diagnosis

    return [diagnosis.diagnose(run, beta=beta) for path in paths for run in diagnosis.load(path)]


def _show(
    diagnoses: list[Diagnosis],
    as_json: bool,
    reports: Path,
    tokens: list[dict[str, Any]] | None = None,
) -> None:
    from squeeze.diagnosis import output

    if as_json:
        document = output.to_json(diagnoses, reports)
        if tokens is not None:
            document["tokens"] = tokens
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
        return
    from rich.console import Console

    console = Console()
    for i, diagnosis in enumerate(diagnoses):
        if i:
            console.rule()
        output.print_diagnosis(diagnosis, console, reports)
    if tokens:
        output.print_tokens(tokens, console)


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
