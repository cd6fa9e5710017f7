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
    generate: Annotated[
        int,
        typer.Option(
            min=0,
            help="Let every model answer so many of the prompts, greedily and sampled; 0: none.",
            rich_help_panel=_CHECKPOINTS,
        ),
    ] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="VERDICT,...", help="Exit with 1 on one of these, such as squeezing,collapse."
        ),
    ] = None,
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
    as_markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print Markdown, as for a CI step's summary."),
    ] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print the logged values that were judged, as CSV.")
    ] = False,
    watch: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            max=86400,
            help="Look again so often, and say when the verdict changes; ends with Ctrl-C.",
        ),
    ] = None,
    reports: Annotated[
        Path | None,
        typer.Option(
            help="Rank remedies by this directory's claims.json instead of the shipped results.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say whether a preference run squeezes, from a log, a run directory or two checkpoints."""
    alarming = _verdicts(fail_on)
    if as_json + as_markdown + as_csv > 1:
        raise InputError("--json, --markdown and --csv exclude each other; give one")
    form = "json" if as_json else "markdown" if as_markdown else "csv" if as_csv else "text"
    if _from_checkpoints_wanted(runs or [], base, tuned or [], data):
        from squeeze.diagnosis.checkpoints import Checkpoints

        given = Checkpoints(
            base, tuple(tuned or ()), data, pairs, template, generate=generate, beta=beta
        )
        diagnoses = _from_checkpoints(given, report or Path("reports/diagnosis"), form, reports)
    elif watch is not None:
        diagnoses = _watched(runs or [], watch, beta)
    else:
        diagnoses = _from_logs(runs or [], beta)
        _show(diagnoses, form, reports)
        if report is not None:
            from squeeze.diagnosis.page import write_report

            _say_written(write_report(diagnoses, report, reports))
    if any(d.verdict in alarming for d in diagnoses):
        raise typer.Exit(1)


@app.command("compare", rich_help_panel=JUDGE)
def compare_runs(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Two or more logs or run directories.")
    ],
    beta: Annotated[
        float | None, typer.Option(help="The β of DPO, where the logs do not tell.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", "--out", help="Write a page into this directory.")
    ] = None,
) -> None:
    """Put the verdicts on several runs side by side, in one table and on one page."""
    from rich.console import Console

    from squeeze.diagnosis.page import write_report
    from squeeze.diagnosis.summary import side_by_side
    from squeeze.tables import print_table

    diagnoses = _from_logs(runs, beta)
    print_table(side_by_side(diagnoses), Console())
    if report is not None:
        _say_written(write_report(diagnoses, report))


def _watched(paths: list[Path], seconds: float, beta: float | None) -> list[Diagnosis]:
    """Print each new verdict until Ctrl-C; the last diagnoses."""
    import time

    from squeeze.diagnosis.growing import watch

    last: list[Diagnosis] = []
    said = ""
    try:
        for found in watch(paths, seconds, beta=beta):
            last = last if isinstance(found, str) else found
            lines = [found] if isinstance(found, str) else [_brief(d) for d in found]
            if (now := "\n".join(lines)) != said:
                said = now
                print(f"{time.strftime('%H:%M:%S')} {now}", flush=True)
    except KeyboardInterrupt:
        print("", flush=True)
    return last


def _brief(d: Diagnosis) -> str:
    return f"{d.run.name}: {d.verdict} — {d.reason}"


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
    given: Checkpoints, directory: Path, form: str, reports: Path | None
) -> list[Diagnosis]:
    from squeeze.diagnosis import diagnose as judge
    from squeeze.diagnosis.checkpoints import compare
    from squeeze.diagnosis.page import finish_run
    from squeeze.diagnosis.verdict import require_beta
    from squeeze.files import read_json
    from squeeze.training.trainers import quiet

    require_beta(given.beta)
    quiet()
    diagnoses = [judge(compare(given, directory), beta=given.beta)]
    page = finish_run(diagnoses, directory, reports)
    tokens = read_json(directory / "samples.json")["tokens"]
    _show(diagnoses, form, reports, tokens)
    _say_written(page)
    return diagnoses


def _say_written(page: Path) -> None:
    print(f"wrote {page}", file=sys.stderr)


def _from_logs(paths: list[Path], beta: float | None) -> list[Diagnosis]:
    from squeeze import diagnosis

    return [diagnosis.diagnose(run, beta=beta) for path in paths for run in diagnosis.load(path)]


def _show(
    diagnoses: list[Diagnosis],
    form: str,
    reports: Path | None,
    tokens: list[dict[str, Any]] | None = None,
) -> None:
    from squeeze.diagnosis import output, summary

    if form == "json":
        document = output.to_json(diagnoses, reports)
        if tokens is not None:
            document["tokens"] = tokens
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    elif form == "markdown":
        print(summary.markdown(diagnoses), end="")
    elif form == "csv":
        print(summary.as_csv(diagnoses), end="")
    else:
        _print(diagnoses, reports, tokens)


def _print(
    diagnoses: list[Diagnosis], reports: Path | None, tokens: list[dict[str, Any]] | None
) -> None:
    from rich.console import Console

    from squeeze.diagnosis import output, summary
    from squeeze.tables import print_table

    console = Console()
    if len(diagnoses) > 1:
        print_table(summary.side_by_side(diagnoses), console)
        console.rule()
    for i, diagnosis in enumerate(diagnoses):
        if i:
            console.rule()
        output.print_diagnosis(diagnosis, console, reports)
    if tokens:
        output.print_tokens(tokens, console)


def _verdicts(fail_on: str | None) -> set[str]:
    from squeeze.diagnosis import VERDICTS

    if fail_on is None:
        return set()
    names = {name.strip().replace("-", " ") for name in fail_on.split(",") if name.strip()}
    unknown = sorted(names - set(VERDICTS))
    if not names:  # an unset variable in CI: a check that can never fail
        raise InputError(f"--fail-on names no verdict; the verdicts are {', '.join(VERDICTS)}")
    if unknown:
        raise InputError(
            f"--fail-on does not know {', '.join(map(repr, unknown))}; the verdicts are "
            f"{', '.join(VERDICTS)}"
        )
    return names
