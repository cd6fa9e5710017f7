"""`squeeze verify`: theorems asked of a trainer, or of data before any training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from squeeze.cli.app import JUDGE, app
from squeeze.errors import InputError
from squeeze.files import require_output

if TYPE_CHECKING:
    from squeeze.verify.types import Result

Option = typer.Option


@app.command("verify", rich_help_panel=JUDGE)
def verify_command(
    subject: Annotated[
        str | None,
        typer.Argument(
            help="module:make_trainer, a function (model, data, **options) -> Trainer; or a YAML "
            "of LLaMA-Factory."
        ),
    ] = None,
    trl: Annotated[
        str | None,
        Option(help="TRL's trainer: dpo, kto, cpo, simpo, orpo, sft, reward, grpo, rloo."),
    ] = None,
    loss_type: Annotated[str | None, Option(help="With --trl: its loss_type.")] = None,
    data: Annotated[
        str | None, Option(help="Preference file or embedded name; alone: the preflight.")
    ] = None,
    model: Annotated[
        str | None, Option(help="Model directory; with --data also an embedded name or hub id.")
    ] = None,
    max_length: Annotated[int, Option(min=0, help="Preflight: truncation; 0 is none.")] = 1024,
    template: Annotated[
        str | None, Option(help="Preflight: the chat template of training (a name or a file).")
    ] = None,
    limit: Annotated[int | None, Option(min=1, help="Preflight: the first rows only.")] = None,
    xfails: Annotated[
        Path | None, Option(help="Expected failures: a check's id a line, then # and why.")
    ] = None,
    out: Annotated[
        Path | None, Option(help="Write the report: .json or .md, by its ending.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Ask theorems of a trainer or of data: exit code 0 when all pass, 1 when one fails."""
    from squeeze.training.trainers import quiet
    from squeeze.verify.runner import failures, read_xfails, verify

    _require_one(subject, trl, data)
    if out is not None and out.suffix not in (".json", ".md"):
        raise InputError(f"--out {out} must end with .json or .md")
    given = [None if word is None else Path(word) for word in (data, template, subject)]
    require_output(out, "--out", xfails, *given)
    quiet()
    expected = {} if xfails is None else read_xfails(xfails)
    asked = _subject(
        subject,
        trl=trl,
        loss_type=loss_type,
        data=data,
        model=model,
        max_length=max_length or None,
        template=template,
        limit=limit,
    )
    results = _silently(lambda: verify(asked, xfails=expected))
    _show(asked.name, results, out, as_json)
    if failures(results):
        raise typer.Exit(1)


def _require_one(subject: str | None, trl: str | None, data: str | None) -> None:
    if subject is not None and trl is not None:
        raise InputError("give either module:make_trainer or --trl NAME, not both")
    if subject is None and trl is None and data is None:
        raise InputError(
            "give module:make_trainer, --trl NAME (such as dpo), or --data FILE --model NAME"
        )


def _subject(subject: str | None, **given: Any) -> Any:
    from squeeze.verify import loading

    if subject is not None:
        return loading.load_subject(subject, model=given["model"], data=given["data"])
    if given["trl"] is not None:
        rows = None if given["data"] is None else loading.read_rows(given["data"])
        return loading.trl_trainer(
            given["trl"], given["loss_type"], model=given["model"], data=rows
        )
    if given["model"] is None:
        raise InputError("--data needs --model NAME, whose tokenizer and template it is read with")
    options = {name: given[name] for name in ("max_length", "template", "limit")}
    return loading.preflight(given["data"], given["model"], **options)


def _silently(work: Any) -> Any:
    """Without the libraries' own lines about trainings of a second."""
    import contextlib
    import io
    import warnings

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return work()


def _show(name: str, results: list[Result], out: Path | None, as_json: bool) -> None:
    import json

    from squeeze.files import write_json, write_text
    from squeeze.verify import report

    if out is not None:
        if out.suffix == ".json":
            write_json(out, report.to_json(name, results))
        else:
            write_text(out, report.to_markdown(name, results))
    if as_json:
        print(json.dumps(report.to_json(name, results), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from squeeze.tables import print_table

    console = Console()
    print_table(report.to_table(name, results), console)
    for line in report.advice(results):
        console.print(line, highlight=False, markup=False)
    console.print(report.count(results), highlight=False)
