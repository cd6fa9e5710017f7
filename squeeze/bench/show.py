"""The log-prob benchmark's report as a terminal table, as Markdown, and as a plot."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from squeeze.bench.candidates import NAIVE, OURS

_COLUMNS = (
    *("kernel", "gives", "median ms (quartiles)", "× naive", "× best peer", "× limit"),
    *("extra MB", "max error"),
)


def tables(report: dict[str, Any]) -> list[Table]:
    """Return one rich table for each case."""
    made = []
    for case in report["cases"]:
        table = Table(*_COLUMNS, title=_title(case), title_justify="left")
        for record in case["records"]:
            table.add_row(*_cells(record), style="bold" if record["name"] == OURS else None)
        made.append(table)
    return made


def markdown(report: dict[str, Any]) -> str:
    """Return the tables and the machine as Markdown."""
    machine = report["machine"]
    lines = [
        f"Measured {machine['date']} on {machine['device']} ({machine['capability']}), "
        f"{machine['threads']} threads, torch {machine['torch']}, Python {machine['python']}.",
    ]
    for case in report["cases"]:
        lines += ["", f"**{_title(case)}**", "", "| " + " | ".join(_COLUMNS) + " |"]
        lines.append("|---|---|" + "---:|" * (len(_COLUMNS) - 2))
        for record in case["records"]:
            cells = _cells(record)
            if record["name"] == OURS:
                cells = [f"**{cell}**" for cell in cells]
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Not measured:", ""]
    lines += [f"- {name}: {reason}" for name, reason in not_measured(report).items()]
    return "\n".join(lines) + "\n"


def not_measured(report: dict[str, Any]) -> dict[str, str]:
    """Return every peer and case that is missing, with the reason."""
    reasons = dict(report["not_measured"])
    for case in report["cases"]:
        for name, reason in case["not_measured"].items():
            reasons.setdefault(name, reason)
    return reasons


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw each kernel's time as a multiple of the limit, a panel for each task, into a PNG."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(case["task"] for case in report["cases"]))
    figure = Figure(figsize=(11, 4.2 * len(tasks)), layout="constrained")
    panels = figure.subplots(len(tasks), 1, squeeze=False)[:, 0]
    names = dict.fromkeys(r["name"] for case in report["cases"] for r in case["records"])
    markers = dict(zip(names, "osD^v<>PX*dph", strict=False))
    for panel, task in zip(panels, tasks, strict=True):
        cases = [case for case in report["cases"] if case["task"] == task]
        for name in names:
            points = [
                (position, record["times_limit"])
                for position, case in enumerate(cases)
                for record in case["records"]
                if record["name"] == name
            ]
            if points:
                size = 10 if name == OURS else 6
                panel.plot(*zip(*points, strict=True), markers[name], label=name, markersize=size)
        panel.axhline(1.0, color="0.6", linestyle="--", linewidth=1)
        panel.set_yscale("log")
        panel.set_ylabel(f"time / limit ({cases[0]['limit']})")
        labels = [f"{c['shape']}\nT={c['n_tokens']} {c['dtype']}" for c in cases]
        panel.set_xticks(range(len(cases)), labels, fontsize=8)
        panel.set_title(f"{task}: multiples of the machine's limit, lower is better")
        panel.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        draft = Path(scratch) / "plot.png"
        figure.savefig(draft, dpi=130)
        draft.replace(path)


def _title(case: dict[str, Any]) -> str:
    return f"{case['title']} — limit: {case['limit']}, {_milliseconds(case['limit_ms'])} ms"


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _cells(record: dict[str, Any]) -> list[str]:
    first, third = record["quartiles_ms"]
    naive = record["times_naive"]
    return [
        record["name"],
        record["gives"],
        f"{_milliseconds(record['median_ms'])} ({_milliseconds(first)}–{_milliseconds(third)})",
        "–" if naive is None or record["name"] == NAIVE else f"{naive:.3f}",
        f"{record['times_best_peer']:.2f}",
        f"{record['times_limit']:.2f}",
        f"{record['extra_megabytes']:.1f}",
        f"{record['error']:.1e}",
    ]
