"""Pictures of the softmax claims: `squeeze claims --figures DIR`.

Figure 2-style panels (Ren & Sutherland, arXiv 2407.10490) of one distribution before and after a
step, and the squeezing threshold of SM-4. Everything drawn is computed by `squeeze.theory.softmax`;
pictures of measured runs are in `squeeze.report`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from squeeze.files import write_figure
from squeeze.theory import softmax as theory
from squeeze.theory.softmax import Step, negative_step, positive_step

BEFORE, UP, DOWN, PUSHED = "#b8bec8", "#2a7f62", "#c2452d", "#1f4e9c"
N_STEPS = 8
ETA = 0.5


@dataclass(frozen=True)
class Panel:
    """One column of the figure: a distribution, the label that is pushed, and the step."""

    title: str
    logits: Float[Tensor, "1 vocab"]
    label: int
    step: Step


def draw_theory_figures(directory: Path) -> list[Path]:
    """Write the pictures as PNG files into `directory`, made if needed; return their paths."""
    pictures = {"softmax-steps.png": draw_steps(), "squeezing-threshold.png": draw_threshold()}
    for name, figure in pictures.items():
        write_figure(figure, directory / name, dpi=110)
    return [directory / name for name in pictures]


def draw_steps() -> Figure:
    """Draw a positive gradient, and negative ones on a peak, a plateau and in a valley.

    Rows: probability, log-probability, and the change of log-probability after `N_STEPS` steps.
    """
    figure = Figure(figsize=(16, 9.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 4, sharex="col", sharey="row")
    for column, panel in zip(axes.T, _panels(), strict=True):
        _draw_panel(column, panel)
    _legend(axes[0, 0])
    axes[0, 0].set_ylabel("probability (linear)")
    axes[1, 0].set_ylabel("probability (log scale)")
    axes[2, 0].set_ylabel("change of log π (nats)\nsymlog scale")
    figure.suptitle(
        f"What {N_STEPS} gradient steps (η = {ETA}) on one label do to all the others: a negative "
        "gradient lifts the likeliest of them and squeezes the rest, unless π is flat",
        fontsize=14,
    )
    return figure


def _panels() -> Iterator[Panel]:
    places = torch.arange(24, dtype=torch.float64)
    hill = 4.5 * torch.exp(-(((places - 7) / 3.2) ** 2)) + 0.4 * torch.sin(2.1 * places)
    hill = hill[None]
    yield Panel("positive gradient in a valley (SM-8)", hill, 19, positive_step)
    yield Panel("negative gradient on the peak", hill, int(hill.argmax()), negative_step)
    yield Panel("negative gradient on a plateau", torch.zeros_like(hill), 12, negative_step)
    yield Panel("negative gradient in a valley: squeeze", hill, 19, negative_step)


def _draw_panel(column: np.ndarray, panel: Panel) -> None:
    label = torch.tensor([panel.label])
    (*_, last) = theory.iterate_steps(panel.logits, label, ETA, N_STEPS, (panel.step,))
    before, after = (z.log_softmax(-1)[0].numpy() for z in (panel.logits, last))
    places = np.arange(len(before))
    change = after - before
    colours = np.where(change > 0, UP, DOWN)
    colours[panel.label] = PUSHED
    sign = "+" if panel.step is positive_step else "−"
    falling = int((np.delete(change, panel.label) < 0).sum())
    for axis in column[:2]:
        axis.bar(places, np.exp(before), width=0.9, color=BEFORE, label="before")
        axis.bar(places, np.exp(after), width=0.5, color=colours)
        axis.margins(x=0.01)
    column[0].set_title(f"{panel.title}\n{falling} of {len(before) - 1} other labels fall")
    column[0].set_ylim(0, 1)
    column[1].set_yscale("log")
    column[1].set_ylim(1e-6, 1)
    column[2].bar(places, change, width=0.7, color=colours)
    column[2].axhline(0, color="black", linewidth=0.8)
    column[2].set_yscale("symlog", linthresh=0.1)
    column[2].set_xlabel("label")
    column[0].annotate(
        f"y{sign}",
        (panel.label, np.exp(max(before[panel.label], after[panel.label]))),
        xytext=(0, 14),
        textcoords="offset points",
        ha="center",
        color=PUSHED,
        weight="bold",
        arrowprops={"arrowstyle": "-", "color": PUSHED},
    )


def _legend(axis: Axes) -> None:
    for colour, text in ((PUSHED, "pushed label, after"), (UP, "rises"), (DOWN, "falls")):
        axis.bar([0], [0], color=colour, label=text)
    axis.legend(fontsize=8, frameon=False, loc="upper right")


def draw_threshold() -> Figure:
    """Draw SM-4: each label's rate against its probability, and the threshold as η grows."""
    figure = Figure(figsize=(14, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    rates_axis, growth_axis = figure.subplots(1, 2)
    logits = -1.1 * torch.arange(1, 31, dtype=torch.float64).log()[None]
    _draw_rates(rates_axis, logits, torch.tensor([20]))
    _draw_growth(growth_axis, logits)
    figure.suptitle("The squeezing threshold ‖π‖² − π(y−): labels less likely than it fall (SM-4)")
    return figure


def _draw_rates(axis: Axes, logits: Float[Tensor, "1 vocab"], label: Tensor) -> None:
    probs = logits.softmax(-1)[0].numpy()
    others = np.arange(len(probs)) != int(label)
    threshold = theory.squeezing_threshold(logits, label).item()
    largest = probs[others].max()
    axis.axvspan(probs.min() * 0.8, threshold, color=DOWN, alpha=0.07)
    axis.axvspan(threshold, largest * 1.3, color=UP, alpha=0.07)
    grid = np.geomspace(probs.min() * 0.8, largest * 1.3, 200)
    axis.plot(grid, grid - threshold, color="black", linewidth=1, label="π − (‖π‖² − π(y−))")
    for eta, marker in ((0.1, "o"), (2.0, "^"), (8.0, "s")):
        moved = negative_step(logits, label, eta)
        rates = (theory.log_prob_change(logits, moved)[0] / eta).numpy()
        axis.scatter(
            probs[others],
            rates[others],
            marker=marker,
            s=26,
            c=np.where(rates[others] > 0, UP, DOWN),
            alpha=0.75,
            label=f"measured after a step of η = {eta:g}",
        )
    axis.axhline(0, color="black", linewidth=0.8)
    axis.axvline(threshold, color=PUSHED, linestyle="--", label=f"threshold {threshold:.3f}")
    axis.set_xscale("log")
    axis.set_xlim(probs.min() * 0.8, largest * 1.3)
    axis.set_xlabel("probability of the label before the step")
    axis.set_ylabel("change of log π, divided by η")
    axis.set_title("First order: the sign flips at the threshold; finite steps lag behind")
    axis.legend(fontsize=9, loc="upper left")


def _draw_growth(axis: Axes, logits: Float[Tensor, "1 vocab"]) -> None:
    etas = np.geomspace(1e-2, 300, 120)
    ranks = ((0, "the most likely label"), (1, "2nd"), (4, "5th"), (29, "the least likely"))
    for (rank, name), colour in zip(ranks, ("#7b3294", PUSHED, UP, DOWN), strict=True):
        label = torch.tensor([rank])
        thresholds = [theory.finite_threshold(logits, label, float(eta)).item() for eta in etas]
        axis.plot(etas, thresholds, color=colour, label=f"y− = {name}")
        first = theory.squeezing_threshold(logits, label).item()
        axis.axhline(first, color=colour, linestyle=":", linewidth=1)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xlabel("step size η")
    axis.set_ylabel("probability below which another label falls")
    axis.set_title("The threshold rises with η, from ‖π‖² − π(y−) (dotted) to π(y*)")
    axis.legend(fontsize=9, loc="upper left")
