"""The log-prob benchmark's report as a terminal table, as Markdown, and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from squeeze.bench.candidates import NAIVE, OURS
from squeeze.files import write_figure

_COLUMNS = (
    *("kernel", "gives", "median ms (quartiles)", "rounds", "× naive", "× best peer", "× limit"),
    *("extra MB", "max error"),
)
# Quartiles further apart than this share of the median are marked: the machine was not quiet.
_UNSTEADY = 0.2
LEGEND = (
    "All kernels ran in one process, each once a round, on sets of inputs that take turns and "
    "together exceed the caches (reports that state no noise: on one set, which a cache may have "
    "kept). The noise above each table is how far the limit, measured twice a round, is from "
    "itself in three quarters of the rounds: a smaller difference is none. The columns with × are "
    "medians over rounds of this kernel's time divided by the other's in the same round, below 1 "
    "is faster; so they differ from a quotient of two medians where rounds differ, the more the "
    "fewer the rounds. The best peer is the fastest kernel, by median, other than naive and "
    "squeeze. The limit stands above each table: one read of the logits, the bare matmul in the "
    "same dtype, or three matmuls for a training step. It is measured too. "
    "Extra MB (of 2^20 bytes) is the most that torch's allocator held at once beyond the inputs, "
    "results and gradients included, a matmul library's own buffers not. Max error is against "
    "float64 on the "
    "first 16 rows: of log p(target), for training of the gradient of the hidden states. ~ marks "
    "quartiles more than 20% of the median apart."
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
    if "rates" in machine:
        lines += ["", _rates(machine)]
    if report.get("partial", False):
        lines += ["", "**Partial: the run has not ended, or was stopped.**"]
    if "note" in report:
        lines += ["", report["note"]]
    lines += ["", LEGEND]
    for case in report["cases"]:
        lines += ["", f"**{_title(case)}**", "", "| " + " | ".join(_COLUMNS) + " |"]
        lines.append("|---|---|" + "---:|" * (len(_COLUMNS) - 2))
        for record in case["records"]:
            cells = _cells(record)
            if record["name"] == OURS:
                cells = [f"**{cell}**" for cell in cells]
            lines.append("| " + " | ".join(cells) + " |")
    if "peers" in report:
        lines += ["", "Peers:", ""]
        lines += [f"- {p['name']}: gives {p['gives']}; needs {p['needs']}" for p in report["peers"]]
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
    panels_cases = [[case for case in report["cases"] if case["task"] == task] for task in tasks]
    names = dict.fromkeys(r["name"] for case in report["cases"] for r in case["records"])
    styles = {name: f"C{i}" for i, name in enumerate(sorted(names, key=lambda n: n != OURS))}
    markers = dict(zip(styles, "os^Dv<>PX*d", strict=False))
    heights = [len(cases) + 1.5 for cases in panels_cases]
    figure = Figure(figsize=(9.5, 1.6 + 0.42 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, cases in zip(panels, panels_cases, strict=True):
        for name, color in styles.items():
            points = [
                (record["times_limit"], row)
                for row, case in enumerate(cases)
                for record in case["records"]
                if record["name"] == name
            ]
            look = {"markersize": 11, "zorder": 3} if name == OURS else {"markersize": 7}
            columns = zip(*points, strict=True) if points else ((), ())
            panel.plot(*columns, markers[name], color=color, label=name, alpha=0.85, **look)
        _dress(panel, cases)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    write_figure(figure, path, dpi=130)


def _dress(panel: Any, cases: list[dict[str, Any]]) -> None:
    """Label one panel's axes: a row for each case, the multiples of the limit on a log scale."""
    from matplotlib.ticker import FixedLocator, NullFormatter

    panel.axvline(1.0, color="0.3", linestyle="--", linewidth=1)
    panel.set_xscale("log")
    marks = [
        mark for ten in (0.1, 1, 10, 100) for mark in (ten, 1.5 * ten, 2 * ten, 3 * ten, 5 * ten)
    ]
    panel.xaxis.set_major_locator(FixedLocator(marks))
    panel.xaxis.set_major_formatter("{x:g}×")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(axis="both", color="0.9")
    panel.set_axisbelow(True)
    labels = [f"{c['shape']}  T={c['n_tokens']}  {c['dtype']}" for c in cases]
    panel.set_yticks(range(len(cases)), labels)
    panel.set_ylim(len(cases) - 0.4, -0.6)
    title = f"{cases[0]['task']}: time as a multiple of the limit, {cases[0]['limit']}"
    panel.set_title(title, loc="left", fontsize=11)


def _title(case: dict[str, Any]) -> str:
    noise = f", noise ±{case['noise']:.0%}" if "noise" in case else ""
    return f"{case['title']} — limit: {case['limit']}, {_milliseconds(case['limit_ms'])} ms{noise}"


def _rates(machine: dict[str, Any]) -> str:
    rates = dict(machine["rates"])
    read = rates.pop("read")
    matmuls = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items())
    load = machine.get("load")
    busy = "" if load is None else f" Load average at the start: {load:.1f}."
    return f"This machine reads {read / 1e9:.1f} GB/s and multiplies {matmuls}.{busy}"


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _cells(record: dict[str, Any]) -> list[str]:
    first, third = record["quartiles_ms"]
    naive = record["times_naive"]
    unsteady = " ~" if third - first > _UNSTEADY * record["median_ms"] else ""
    quartiles = f"({_milliseconds(first)}–{_milliseconds(third)}){unsteady}"
    return [
        record["name"],
        record["gives"],
        f"{_milliseconds(record['median_ms'])} {quartiles}",
        str(record["rounds"]),
        "–" if naive is None or record["name"] == NAIVE else f"{naive:.3f}",
        "–" if record["times_best_peer"] is None else f"{record['times_best_peer']:.2f}",
        f"{record['times_limit']:.2f}",
        f"{record['extra_megabytes']:.1f}",
        f"{record['error']:.1e}",
    ]
