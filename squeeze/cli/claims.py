"""`squeeze claims`: what is claimed, and how each check came out last time (from the ledger)."""

from __future__ import annotations

import importlib.util
import itertools
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from squeeze import __version__
from squeeze.claims.catalogue import Claim
from squeeze.claims.ledger import entry_to_json, read
from squeeze.claims.table import STYLES, count, measured, overview, rests_on, results_markdown
from squeeze.claims.types import NEVER_RUN, Entry
from squeeze.cli.app import LOOK, app
from squeeze.tables import print_table


@app.command(rich_help_panel=LOOK)
def claims(
    claim_id: Annotated[
        str | None, typer.Argument(metavar="CLAIM", help="Show one claim, such as SM-4.")
    ] = None,
    reports: Annotated[
        Path, typer.Option(help="Directory that holds claims.json, as pytest wrote it.")
    ] = Path("reports"),
    figures: Annotated[
        Path | None, typer.Option(help="Draw the theory's pictures into this directory.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the README's table of results.")
    ] = False,
    pages: Annotated[
        Path | None, typer.Option(help="Write a page for each claim into this directory.")
    ] = None,
    paper_figures: Annotated[
        Path | None, typer.Option(help="Redraw the paper's Figures 3 and 4 into this directory.")
    ] = None,
    level: Annotated[
        str, typer.Option(help="With --paper-figures: whose runs, tiny or pretrained.")
    ] = "tiny",
    records: Annotated[
        Path | None,
        typer.Option(help="With --paper-figures: what `squeeze observe --records` has kept."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--write-results", help="Write the ledger's outcomes, as the package ships."),
    ] = None,
    each_comparison: Annotated[
        bool, typer.Option("--rows", help="With --markdown: a row for every comparison.")
    ] = False,
) -> None:
    """List every claim with its verdict at each level, or show one claim with its evidence.

    Without a ledger in --reports: as the package's own suite found when this version was made.
    """
    from squeeze.claims import catalogue
    from squeeze.claims import results as shipped

    if figures is not None:
        _draw(figures)
    if paper_figures is not None:
        _redraw(paper_figures, level, records)
    if figures is not None or paper_figures is not None:
        return
    # The catalogue holds the checks, and with them torch; the shipped results do without.
    if claim_id is not None:
        known = {claim_id: catalogue.get(claim_id)}
    else:
        known = catalogue.load() if importlib.util.find_spec("torch") else {}
    entries, source = read(reports), str(reports / "claims.json")
    if not entries and results is None:
        entries = {k: e for k, e in shipped.entries().items() if k[0] in known or not known}
        source = f"squeeze {__version__}, whose suite's results are shipped"
    if claim_id is not None:
        entries = {key: entry for key, entry in entries.items() if key[0] == claim_id}
    rows = overview(known, entries)
    if results is not None:
        typer.echo(f"{results}: {shipped.write_results(results, rows)} results")
    elif pages is not None:
        _write_pages(pages, known, rows)
    elif markdown:
        typer.echo(results_markdown(rows, each_comparison=each_comparison), nl=False)
    elif as_json:
        document: dict[str, Any] = {"claims": [entry_to_json(row) for row in rows]}
        if claim_id is not None:
            document = _words(known[claim_id]) | document
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif claim_id is None:
        _print_all(rows, source)
    else:
        _print_one(known[claim_id], rows)


def _draw(directory: Path) -> None:
    from squeeze.claims.theory_figures import draw_theory_figures

    for path in draw_theory_figures(directory):
        typer.echo(str(path))


def _redraw(directory: Path, level: str, records: Path | None) -> None:
    from squeeze.study.figures import write_paper_figures
    from squeeze.study.registration import plan

    registered: Any = level
    plan(registered)  # says which levels there are
    for path in write_paper_figures(registered, directory, records=records):
        typer.echo(str(path))


def _write_pages(directory: Path, known: Mapping[str, Claim], rows: list[Entry]) -> None:
    from squeeze.report.claim_pages import write_claim_pages
    from squeeze.study.registration import registered_by_claim

    registered = registered_by_claim(known.values())
    typer.echo(f"Claims: {write_claim_pages(directory, known, rows, registered)}")


def _console() -> Console:
    # Sentences hold brackets and numbers that rich would take for markup and colour.
    return Console(markup=False, highlight=False)


def _outcome(row: Entry) -> Text:
    return Text(row.verdict.outcome, style=STYLES[row.verdict.outcome])


def _print_all(rows: list[Entry], source: str) -> None:
    console = _console()
    by_claim = itertools.groupby(rows, key=lambda row: (row.verdict.claim, row.sentence))
    for (claim_id, sentence), group in by_claim:
        heading = Table.grid(padding=(0, 2))
        heading.add_column(min_width=5, style="bold")
        heading.add_row(claim_id, sentence)
        console.print(heading)
        table = Table.grid(padding=(0, 2))
        # Fixed widths, so that the columns of different claims line up under each other.
        for width in (14, 15, 20, 6):
            table.add_column(min_width=width)
        table.add_column()
        for row in group:
            v = row.verdict
            n = f"n={v.n}" if v.n else ""
            why = "" if v.supported or v.reason == NEVER_RUN else textwrap.shorten(v.reason, 60)
            role = v.role if v.role == "secondary" else ""
            notes = "; ".join(text for text in (role, v.comparison, why) if text)
            table.add_row(f"    {v.level}", _outcome(row), measured(v), n, notes)
        print_table(table, console)
    console.print(f"{count(rows) or 'no claims'}; from {source}")


def _words(claim: Claim) -> dict[str, str]:
    return {
        "id": claim.id,
        "sentence": claim.sentence,
        "math": claim.math,
        "kind": claim.kind,
        "source": claim.source,
        "counterfactual": claim.counterfactual,
        "run": claim.run,
    }


def _print_one(claim: Claim, rows: list[Entry]) -> None:
    console = _console()
    words = Table.grid(padding=(0, 2))
    for name, text in _words(claim).items():
        if text:
            words.add_row(Text(name, style="bold"), text)
    console.print(words)
    for row in rows:
        console.print()
        console.print(_evidence(row))


def _evidence(row: Entry) -> Table:
    v = row.verdict
    facts: Mapping[str, str] = {
        "comparison": v.comparison,
        v.statistic or "effect": measured(v),
        "row": v.role,
        "bound": _number(v.bound),
        "smallest effect of interest": _number(v.smallest_effect),
        "smallest effect this design could see": _number(v.detectable),
        "rests on": rests_on(v),
        "seeds": ", ".join(map(str, v.seeds)),
        "means by seed": ", ".join(map(_number, v.seed_means)),
        "reason": v.reason,
        **{str(name): _short(value) for name, value in v.evidence.items()},
        "seconds": f"{row.seconds:.1f}" if row.date else "",
        "date": row.date,
        "device": row.device,
        "versions": ", ".join(f"{name} {x}" for name, x in row.versions.items()),
        "run again": f"pytest '{row.test}'" if "::" in row.test else row.test,
    }
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")  # a test's id is one long word
    grid.add_row(Text(v.level, style="bold"), _outcome(row))
    for name, text in facts.items():
        if text:
            grid.add_row(f"  {name}", text)
    return grid


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 400 else f"{text[:400]}… (all of it: --json)"
