"""VA-1's table of losses as rows, CSV, Markdown, JSON and a figure. Measures nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from squeeze.claims.statistics import Estimate
from squeeze.claims.variants import COLUMNS, LossRow
from squeeze.files import replacing, write_json, write_text


def cell(row: LossRow, column: str) -> str:
    """A change with its interval, nats, or "not measured"."""
    found = row.changes[column]
    if found is None:
        return "not measured"
    return f"{found.effect:+.1f} [{found.interval[0]:+.1f}, {found.interval[1]:+.1f}]"


def _numbers(found: Estimate | None) -> tuple[float | None, ...]:
    return (found.effect, *found.interval) if found else (None, None, None)


def records(rows: Sequence[LossRow]) -> list[dict[str, Any]]:
    """One plain mapping a loss, split, cut and column."""
    return [
        {"loss": row.loss, "split": row.split, "cut": row.cut, "column": column}
        | dict(zip(("effect", "low", "high"), _numbers(found), strict=True))
        for row in rows
        for column, found in row.changes.items()
    ]


def markdown(rows: Sequence[LossRow], missing: Mapping[str, str]) -> str:
    """The table, then the losses that could not be trained and why."""
    lines = ["| loss | prompts | cut | " + " | ".join(f"Δ{c}" for c in COLUMNS) + " |"]
    lines.append("|" + "---|" * (3 + len(COLUMNS)))
    for row in rows:
        values = " | ".join(cell(row, column) for column in COLUMNS)
        lines.append(f"| {row.loss} | {row.split} | {row.cut} | {values} |")
    lines += ["", *(f"{loss} was not measured: {reason}" for loss, reason in missing.items())]
    return "\n".join(lines).rstrip() + "\n"


def plot(rows: Sequence[LossRow], path: Path) -> None:
    """One panel a column and cut on held-out prompts, a bar a loss, with intervals; a PNG."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.split == "held_out"]
    losses, cuts = list(dict.fromkeys(r.loss for r in shown)), ("end", "equal margin")
    figure = Figure(figsize=(14, 2.5 + 0.5 * len(losses)), layout="constrained")
    axes = figure.subplots(2, len(COLUMNS), sharey=True)
    for cut, line in zip(cuts, axes, strict=True):
        for column, axis in zip(COLUMNS, line, strict=True):
            for row in shown:
                found = row.changes[column]
                if row.cut == cut and found is not None:
                    y = losses.index(row.loss)
                    axis.plot(found.interval, [y, y], color="C0")
                    axis.plot(found.effect, y, "o", color="C0")
            axis.axvline(0, color="0.6", linewidth=0.8)
            axis.set(title=f"Δ{column}, {cut}", xlabel="nats", yticks=range(len(losses)))
            axis.set_yticklabels(losses)
            axis.set_ylim(len(losses) - 0.5, -0.5)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def write(
    out: Path, rows: Sequence[LossRow], missing: Mapping[str, str], verdicts: Sequence[Any]
) -> None:
    """Write losses.csv, losses.json, losses.md and losses.png, each atomically."""
    table = records(rows)
    columns = ["loss", "split", "cut", "column", "effect", "low", "high"]
    with replacing(out / "losses.csv") as temporary:
        pd.DataFrame(table, columns=columns).to_csv(temporary, index=False)
    content = {"rows": table, "not_measured": dict(missing), "verdicts": list(verdicts)}
    write_json(out / "losses.json", content)
    write_text(out / "losses.md", markdown(rows, missing))
    plot(rows, out / "losses.png")
