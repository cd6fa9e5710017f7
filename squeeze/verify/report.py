"""Report of a conformance run: a table for the terminal, JSON with a schema version, Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from squeeze.provenance import versions
from squeeze.verify.types import OUTCOMES, Outcome, Result

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
COLOURS: dict[Outcome, str] = {
    "passes": "green",
    "fails": "bold red",
    "does not apply": "dim",
    "xfail": "yellow",
}


def number(value: float | None) -> str:
    """A deviation or a tolerance for people."""
    return "" if value is None else f"{value:.2g}"


def count(results: Sequence[Result]) -> str:
    """Outcomes and how many of each, as a clause."""
    counts = Counter(r.outcome for r in results)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])


def _versions() -> dict[str, str]:
    return {"dpo-squeeze": version("dpo-squeeze")} | versions()


def to_json(name: str, results: Sequence[Result]) -> dict[str, Any]:
    """Everything, strict JSON: `deviation` is null where nothing was measured or it is infinite."""
    return {
        "schema": SCHEMA,
        "subject": name,
        "versions": _versions(),
        "summary": dict(Counter(r.outcome for r in results)),
        "checks": [
            {
                "id": r.check.id,
                "outcome": r.outcome,
                "measured": r.what,
                "deviation": _finite(r.deviation),
                "tolerance": r.check.tolerance,
                "unit": r.check.unit,
                "standard": r.check.standard,
                "cure": r.check.cure,
            }
            for r in results
        ],
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else value


def to_markdown(name: str, results: Sequence[Result]) -> str:
    """A table, and below it what failed and what to do about it."""
    used = ", ".join(f"{package} {number}" for package, number in _versions().items())
    lines = [
        f"## {name}",
        "",
        f"{count(results)} ({used})",
        "",
        "| check | outcome | measured | deviation | tolerance |",
        "|---|---|---|---|---|",
    ]
    for r in results:
        what = r.what.replace("|", "\\|")
        allowed = f"{number(r.check.tolerance)} {r.check.unit}"
        lines.append(f"| {r.check.id} | {r.outcome} | {what} | {number(r.deviation)} | {allowed} |")
    for r in results:
        if r.outcome == "fails":
            lines += ["", f"**{r.check.id}**: {r.check.standard}. {_sentence(r.check.cure)}"]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def to_table(name: str, results: Sequence[Result]) -> Table:
    """The same table for the terminal."""
    from rich.table import Table

    table = Table(title=name, title_justify="left")
    table.add_column("check", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("measured, or why not")
    table.add_column("off by", justify="right")
    table.add_column("allowed", justify="right")
    for r in results:
        table.add_row(
            r.check.id,
            f"[{COLOURS[r.outcome]}]{r.outcome}",
            r.what.replace("[", "\\["),
            number(r.deviation),
            f"{number(r.check.tolerance)} {r.check.unit}",
        )
    return table


def advice(results: Sequence[Result]) -> list[str]:
    """Of each failure, the standard, what was measured, and cause and cure."""
    return [
        f"{r.check.id}: {r.check.standard}. Measured: {r.what}. {_sentence(r.check.cure)}"
        for r in results
        if r.outcome == "fails"
    ]
