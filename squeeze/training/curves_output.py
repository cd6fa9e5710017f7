"""Mean log-probs over epochs as one JSON file and one PNG, in the published replication's form.

To lay beside the published files and figure of the Qwen3-4B replication; the report shows far more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from squeeze.files import write_figure, write_json
from squeeze.trajectory import Trajectory

# series -> (response kind, metric), on training prompts
SERIES = {
    "chosen": ("chosen", "logp"),
    "rejected": ("rejected", "logp"),
    "argmax": ("chosen", "argmax_logp"),
}


def curve_series(trajectory: Trajectory, arm: str) -> dict[str, list[Any]]:
    """Phases and epochs of an arm's probes, and the mean log-prob sums (nats) of three series."""
    points = trajectory.points(arm)
    series: dict[str, list[Any]] = {
        "phase": [point.phase for point in points],
        "epoch": [point.epoch for point in points],
    }
    for name, (kind, metric) in SERIES.items():
        series[name] = trajectory.by_example(arm, kind, "train", metric).mean().tolist()
    return series


def write_curves_json(path: Path, config: Mapping[str, Any], trajectory: Trajectory) -> None:
    """Write `curves.json` (config and series by arm) into a run's directory."""
    arms = {arm: curve_series(trajectory, arm) for arm in trajectory.arms()}
    write_json(path / "curves.json", {"config": dict(config), "arms": arms})


def draw_curves_png(path: Path, trajectory: Trajectory) -> None:
    """Draw the series of every arm into `curves.png` in a run's directory."""
    from matplotlib.figure import Figure

    arms = {arm: curve_series(trajectory, arm) for arm in trajectory.arms()}
    figure = Figure(figsize=(5 * max(len(arms), 1), 4))
    figure.subplots_adjust(bottom=0.22, left=0.15, wspace=0.3)
    for axes, (arm, series) in zip(
        figure.subplots(1, max(len(arms), 1), squeeze=False)[0], arms.items(), strict=False
    ):
        for name in SERIES:
            axes.plot(range(len(series[name])), series[name], marker="o", label=name)
        labels = [f"{p} {e:g}" for p, e in zip(series["phase"], series["epoch"], strict=True)]
        every = max(1, len(labels) // 8)
        axes.set_xticks(range(0, len(labels), every), labels[::every], rotation=45, ha="right")
        axes.set(title=arm, ylabel="mean log-prob of an answer, nats")
        axes.legend()
    write_figure(figure, path / "curves.png", dpi=100)
