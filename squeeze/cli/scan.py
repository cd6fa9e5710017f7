"""`squeeze scan`: which pairs put their chosen answer at risk, before any training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from squeeze.cli.app import JUDGE, app
from squeeze.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

Option = typer.Option

# column of the scan -> heading and number format in the terminal
SHOWN = {
    "normalised_ches": ("CHES, normalised", ".1f"),
    "ches": ("CHES", ".0f"),
    "edit_distance": ("edit distance", ".2f"),
    "chosen_mean_logp": ("chosen, nats a token", ".2f"),
    "rejected_mean_logp": ("rejected, nats a token", ".2f"),
    "positions_none_fall": ("positions where none fall", ".0%"),
    "labels_falling": ("labels falling", ".1%"),
    "mass_falling": ("mass falling", ".1%"),
}

# template -> what was done with the rows, in words
RENDERED = {
    "model": "by the model's chat template",
    "text": "as texts, without a chat template, as TRL trains on them (else --template model)",
    "hh": "as dialogue texts, without a chat template, as TRL trains on them",
}


@app.command("scan", rich_help_panel=JUDGE)
def scan_command(
    data: Annotated[str, typer.Argument(help="Embedded name or a preference file.")],
    model: Annotated[
        str, Option(help="Embedded name, local directory or hub id: the model to be trained.")
    ] = "smollm2-135m",
    out: Annotated[Path | None, Option(help="The table: .csv, .parquet or .jsonl.")] = None,
    limit: Annotated[int | None, Option(help="Scan the first pairs only.")] = None,
    top: Annotated[int, Option(min=1, help="Rows to print.")] = 10,
    drop_top: Annotated[
        float | None, Option(help="Share of pairs, worst first, to leave out of --filtered.")
    ] = None,
    filtered: Annotated[
        Path | None, Option(help="Write the data without them: .jsonl, .json or .parquet.")
    ] = None,
    template: Annotated[
        str, Option(help="auto (as the training reads such rows), model, text, hh, unmarked, …")
    ] = "auto",
    data_format: Annotated[
        str | None, Option("--from", help="The data file's format; recognised if not named.")
    ] = None,
    dtype: Annotated[str, Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: Annotated[bool, Option("--json", help="Print everything as JSON.")] = False,
    force: Annotated[bool, Option("--force", help="Overwrite OUT and FILTERED.")] = False,
) -> None:
    """Score preference pairs by how far training will push their chosen answer down."""
    from squeeze.data.loading import trained_template
    from squeeze.scan.files import TABLES, check_target, scan_data, write_filtered

    share = _share(drop_top, filtered, limit)
    if out is not None:
        check_target(out, "--out", data, force, TABLES)
    if filtered is not None:
        check_target(filtered, "--filtered", data, force, (".jsonl", ".json", ".parquet"))
    if out is not None and filtered is not None and out.resolve() == filtered.resolve():
        raise InputError(f"--out and --filtered are both {out}; give two files")
    start = time.perf_counter()
    options = {"format": data_format, "template": template, "limit": limit, "dtype": dtype}
    frame = _with_progress(scan_data, data, model, out=out, **options)
    summary: dict[str, Any] = {"schema": 1, "data": data, "model": model, "pairs": len(frame)}
    used = trained_template(data, data_format) if template == "auto" else template
    summary |= {"rendered": RENDERED.get(used, f"by the {used} template")}
    summary |= {"remarked": int((frame["remarks"] != "").sum())}
    summary |= {"seconds": round(time.perf_counter() - start, 1)}
    if out is not None:
        summary["out"] = str(out)
    if filtered is not None:
        n, written = write_filtered(frame, data, share, filtered, data_format)
        summary["filtered"] = {"file": str(filtered), "format": written, "left_out": n}
    if as_json:
        document = summary | {"rows": frame.to_dict("records")}
        print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(frame, summary, top)


def _share(drop_top: float | None, filtered: Path | None, limit: int | None) -> float:
    if drop_top is not None and not 0 < drop_top < 1:
        raise InputError(f"--drop-top is a share between 0 and 1 (such as 0.05), got {drop_top}")
    if drop_top is not None and filtered is None:
        raise InputError("--drop-top needs a file to write the rest to: add --filtered FILE")
    if filtered is not None and drop_top is None:
        raise InputError("--filtered needs the share to leave out: add --drop-top 0.05")
    if filtered is not None and limit is not None:
        raise InputError("--filtered is written from a scan of all pairs; drop --limit")
    return drop_top or 0.0


def _with_progress(run: Any, data: str, model: str, **options: Any) -> pd.DataFrame:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(f"scanning {Path(data).name}", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        frame: pd.DataFrame = run(data, model, progress=progress, **options)
        return frame


def _print(frame: pd.DataFrame, summary: dict[str, Any], top: int) -> None:
    from rich.console import Console

    from squeeze.tables import print_table

    console = Console()
    n = min(top, len(frame))
    print_table(
        _table(f"the {n} of {len(frame)} pairs most at risk", "row: id", frame.head(n)), console
    )
    quantiles = frame[list(SHOWN)].quantile([0.05, 0.5, 0.95])
    quantiles["example"] = ["5%", "median", "95%"]
    print_table(_table("all pairs", "quantile", quantiles), console)
    lines = [f"{summary['pairs']} pairs, {summary['seconds']} s, {summary['model']}"]
    lines.append(f"rows rendered {summary['rendered']}")
    if summary["remarked"]:
        lines.append(f"{summary['remarked']} pairs look like garbage (the table's remarks):")
        bad = frame[frame["remarks"] != ""].sort_values("row").head(top)
        lines += [f"  row {row['row']}: {row['remarks']}" for row in bad.to_dict("records")]
    if "out" in summary:
        lines.append(f"table: {summary['out']}")
    if "filtered" in summary:
        done = summary["filtered"]
        lines.append(f"without the worst {done['left_out']}: {done['file']} ({done['format']})")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _table(title: str, first: str, frame: pd.DataFrame) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for heading, _ in SHOWN.values():
        table.add_column(heading, justify="right")
    for row in frame.to_dict("records"):
        cells = (format(row[name], style) for name, (_, style) in SHOWN.items())
        number = f"{row['row']}: " if "row" in row else ""
        table.add_row(Text(f"{number}{row['example']}"), *cells)
    return table
