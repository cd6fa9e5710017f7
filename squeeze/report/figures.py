"""The PNG figures of a report, drawn by matplotlib without global state.

They hold no text of examples; interactive curves are in `interactive`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from squeeze.files import write_figure
from squeeze.report.source import Arm, RunData
from squeeze.report.style import ARGMAX, in_order, split_name, style
from squeeze.report.summary import Series, View, final_changes

LOOK: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "text.parse_math": False,
    "svg.fonttype": "none",
}

# The paper's Figure 4: the chosen answer and its rewrites, the rejected answer and its, answers to
# other prompts and non-sentences, and the squeeze itself.
_PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Chosen and its rewrites", ("chosen", "chosen_rephrased", "chosen_format")),
    ("Rejected and its rewrites", ("rejected", "rejected_rephrased", "rejected_format")),
    (
        "Other texts",
        ("other_answer", "unseen_answer", "human", "initial", "permuted", "random"),
    ),
    ("Where the mass goes", (ARGMAX, "chosen", "rejected")),
)


def plain(text: str) -> str:
    """Text that every font can draw: names from data may be in any script, or hold controls."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def _draw(axes: Axes, kind: str, line: Series, band: bool = True) -> None:
    look = style(kind)
    marker = "o" if len(line.x) == 1 else ""
    axes.plot(
        line.x, line.mean, color=look.colour, ls=look.pattern, lw=look.width * 0.8, marker=marker
    )
    if band and line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, color=look.colour, alpha=0.12, lw=0)


def _curves(run: RunData, arm: Arm, split: str, view: View, kinds: list[str]) -> dict[str, Series]:
    if arm not in run.arms:
        return {}
    found = {kind: run.scores.curve(arm.name, kind, split, view) for kind in kinds}
    return {kind: line for kind, line in found.items() if line is not None}


def _empty(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", color="#767676")


def _legend(figure: Figure, kinds: list[str], columns: int) -> None:
    handles = [
        Line2D(
            [], [], color=style(k).colour, ls=style(k).pattern, lw=style(k).width, label=plain(name)
        )
        for k in kinds
        for name in [style(k).name]
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, handlelength=3.0, fontsize=8
        )


def curves(run: RunData, split: str = "train") -> Figure:
    """The main figure: per arm, the change of every kind since the start of DPO, mean and band."""
    arms = run.arms or (Arm("no arm", ""),)
    figure = Figure(figsize=(max(3.4 * len(arms), 5.2), 4.0), layout="constrained")
    grid = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    kinds = in_order(run.scores.kinds)
    for axes, arm in zip(grid, arms, strict=True):
        axes.set_title(plain(arm.name), fontweight="bold")
        lines = _curves(run, arm, split, View(), kinds)
        for kind, line in reversed(lines.items()):
            _draw(axes, kind, line)
        axes.axhline(0, color="#888888", lw=0.8, zorder=0)
        if lines:
            axes.set_xlabel(run.scores.timeline(arm.name).unit)
        else:
            _empty(axes)
    grid[0].set_ylabel(f"change of log-prob since {run.start}\n(nats per response)")
    _legend(figure, kinds, 4)
    return figure


def figure4(run: RunData, split: str = "train") -> Figure:
    """The layout of the paper's Figure 4: a row an arm, a column a family of responses."""
    arms = run.arms or (Arm("no arm", ""),)
    figure = Figure(figsize=(11.0, 2.5 * len(arms) + 0.9), layout="constrained")
    grid = figure.subplots(len(arms), len(_PANELS), squeeze=False)
    present = in_order(run.scores.kinds)
    known = {kind for _, kinds in _PANELS for kind in kinds}
    for index, (row, arm) in enumerate(zip(grid, arms, strict=True)):
        for axes, (title, wanted) in zip(row, _PANELS, strict=True):
            extra = [k for k in present if k not in known] if title == "Other texts" else []
            lines = _curves(run, arm, split, View(change=False), [*wanted, *extra])
            for kind, line in lines.items():
                _draw(axes, kind, line, band=False)
            if index == 0:
                axes.set_title(title)
            if not lines:
                _empty(axes)
            elif index == len(arms) - 1:
                axes.set_xlabel(run.scores.timeline(arm.name).unit)
        row[0].set_ylabel(f"{plain(arm.name)}\nlog-prob (nats)")
    _legend(figure, present, 5)
    return figure


def distribution(run: RunData) -> Figure:
    """Each example's change over DPO, by kind: a dot an example, its mean and quartiles."""
    arms = run.arms or (Arm("no arm", ""),)
    kinds = in_order(run.scores.kinds)
    height = 0.36 * max(len(kinds), 3) + 1.2
    figure = Figure(figsize=(max(3.8 * len(arms), 6.0), height), layout="constrained")
    grid = figure.subplots(1, len(arms), sharex=True, sharey=True, squeeze=False)[0]
    rng = np.random.default_rng(0)
    splits = run.scores.splits
    for axes, arm in zip(grid, arms, strict=True):
        axes.set_title(plain(arm.name), fontweight="bold")
        axes.axvline(0, color="#888888", lw=0.8)
        for row, kind in enumerate(kinds):
            for index, split in enumerate(splits):
                found = final_changes(run.scores, arm.name, kind, split) if run.arms else None
                if found is None:
                    continue
                middle = row + (index - (len(splits) - 1) / 2) * 0.36
                jitter = middle + rng.uniform(-0.1, 0.1, len(found))
                face = style(kind).colour if split == "train" else "none"
                axes.scatter(
                    found, jitter, s=11, facecolors=face, edgecolors=style(kind).colour, lw=0.7
                )
                axes.plot([found.mean()] * 2, [middle - 0.17, middle + 0.17], color="#111111", lw=2)
        axes.set_xlabel("change (nats per response)")
    grid[0].set_yticks(range(len(kinds)), [plain(style(k).name) for k in kinds])
    grid[0].invert_yaxis()
    markers = [
        Line2D([], [], ls="", marker="o", ms=4, color="#444444", label=split_name(s))
        if s == "train"
        else Line2D([], [], ls="", marker="o", ms=4, mfc="none", mec="#444444", label=split_name(s))
        for s in splits
    ]
    bar = Line2D([], [], color="#111111", lw=2, label="mean")
    figure.legend(handles=[*markers, bar], loc="outside lower center", ncols=3, fontsize=8)
    return figure


def write_figures(run: RunData) -> list[Path]:
    """Draw every figure of a run into its `figures/`, each replaced whole; return their paths."""
    split = main_split(run)
    made = []
    with mpl.rc_context(LOOK):  # type: ignore[arg-type]
        for name, figure in (
            ("curves", curves(run, split)),
            ("figure4", figure4(run, split)),
            ("distribution", distribution(run)),
        ):
            path = run.directory / "figures" / f"{name}.png"
            write_figure(figure, path, dpi=130)
            made.append(path)
    return made


def main_split(run: RunData) -> str:
    """The split that is shown first: training prompts, else whatever there is."""
    splits = run.scores.splits
    return splits[0] if splits and "train" not in splits else "train"
