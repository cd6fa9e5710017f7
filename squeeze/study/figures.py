"""The paper's Figures 3 and 4, redrawn from trajectories of `squeeze observe`: cached, or recorded.

Nothing is trained here, and nothing judged: what agrees with the paper is said by the claims.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from squeeze.cache import cache_directory
from squeeze.claims.runs import Runs
from squeeze.claims.types import Level
from squeeze.errors import InputError
from squeeze.files import write_figure
from squeeze.report.figures import LOOK
from squeeze.report.style import ARGMAX, split_name, style
from squeeze.study.study import Study

RESAMPLES = 500
DPO_ARM = "sft-dpo"

_CHOSEN = ("Chosen and its rewrites", ("chosen", "chosen_rephrased", "chosen_format"))
_REJECTED = ("Rejected and its rewrites", ("rejected", "rejected_rephrased", "rejected_format"))
_OTHER = ("Other answers", ("other_answer", "unseen_answer", "human", "initial"))
_NONSENSE = ("No sentences", ("permuted", "random"))
_MASS = ("Where the mass goes", (ARGMAX, "chosen", "rejected"))

_Panel = tuple[str, tuple[str, ...]]
_Curves = Float[np.ndarray, "seeds examples probes"]


def figure_3(runs: Runs, arm: str) -> Figure:
    """Draw every kind's log-prob over SFT, less what it was before (paper, Fig. 3).

    A row a split, a column a family of responses; lines are means over seeds and examples, bands
    their 95% bootstrap intervals. Raises `InputError` if the seeds do not fit together.
    """
    return _draw(runs, arm, "sft", "SFT", (_CHOSEN, _REJECTED, _OTHER, _NONSENSE))


def figure_4(runs: Runs, arm: str) -> Figure:
    """Draw the log-probs over the DPO that follows SFT, less what they were at its start (Fig. 4).

    As `figure_3`, and beside chosen and rejected the argmax log-prob along chosen.
    """
    others = ("Other texts", (*_OTHER[1], *_NONSENSE[1]))
    return _draw(runs, arm, "dpo", "DPO", (_CHOSEN, _REJECTED, others, _MASS))


def write_paper_figures(
    level: Level, directory: Path, cache: Path | None = None, records: Path | None = None
) -> list[Path]:
    """Draw both figures from the finished evaluation seeds of a level; return their paths.

    Raises `InputError` if cache and records lack an arm on every seed that the plan spends on it.
    """
    (sft_arm, sft_runs), (dpo_arm, dpo_runs) = finished_runs(level, cache, records)
    figures = {3: figure_3(sft_runs, sft_arm), 4: figure_4(dpo_runs, dpo_arm)}
    made = []
    for number, figure in figures.items():
        path = directory / f"figure-{number}-{level}.png"
        write_figure(figure, path, dpi=120)
        made.append(path)
    return made


def finished_runs(
    level: Level, cache: Path | None = None, records: Path | None = None
) -> list[tuple[str, Runs]]:
    """The arms of Figures 3 and 4 with their runs on those seeds of the plan that are finished.

    Reads what is there and trains nothing; raises `InputError` as `write_paper_figures` does.
    """
    root = records or cache or cache_directory() / "experiments"
    if not root.is_dir():  # before an experiment would look for its model
        raise InputError(f"{root} does not exist; run `squeeze observe {level}` first")
    study = Study(level, cache=cache, records=records)
    long_sft = f"sft-{study.plan.settings['long_sft_epochs']}"
    return [
        (arm, _finished(study, claim, arm))
        for claim, arm in (("SF-1", long_sft), ("DO-1", DPO_ARM))
    ]


def _finished(study: Study, claim: str, arm: str) -> Runs:
    found = [(seed, e.trajectory(arm)) for seed, e in study.over(claim) if e.is_trained(arm)]
    if not found:
        raise InputError(
            f"no evaluation seed of arm {arm} is finished; "
            f"run `squeeze observe {study.level} --claims {claim}` first"
        )
    seeds, trajectories = zip(*found, strict=True)
    return Runs(tuple(trajectories), study.level, tuple(seeds))


# --- drawing ------------------------------------------------------------------------------------


def _draw(runs: Runs, arm: str, phase: str, name: str, panels: tuple[_Panel, ...]) -> Figure:
    places = [i for i, point in enumerate(runs.trajectories[0].points(arm)) if point.phase == phase]
    if not places:
        raise InputError(f"arm {arm!r} has no probe in {name}, so there is nothing to draw")
    start = max(places[0] - 1, 0)  # the last probe before the phase
    points = runs.trajectories[0].points(arm)[start : places[-1] + 1]
    x = [0.0, *(p.epoch for p in points[1:])] if start < places[0] else [p.epoch for p in points]
    splits = runs.trajectories[0].where(arm=arm).splits()
    drawn: list[str] = []
    with mpl.rc_context(LOOK):  # type: ignore[arg-type]
        figure = Figure(figsize=(11.5, 2.5 * len(splits) + 1.5), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(splits), len(panels), squeeze=False, sharex=True)
        for row, split in zip(grid, splits, strict=True):
            for axes, (title, kinds) in zip(row, panels, strict=True):
                axes.set_title(title if split == splits[0] else "")
                axes.axhline(0, color="#888888", lw=0.8, zorder=0)
                for kind in kinds:
                    values = _curves(runs, arm, kind, split)
                    if values is not None:
                        window = values[..., start : places[-1] + 1]
                        _curve(axes, x, window - window[..., :1], kind)
                        drawn.append(kind)
            row[0].set_ylabel(f"{split_name(split)}\nchange of log-prob (nats)")
        for axes in grid[-1]:
            axes.set_xlabel(f"epoch of {name}")
        _words(figure, runs, arm, name, list(dict.fromkeys(drawn)))
    return figure


def _curves(runs: Runs, arm: str, kind: str, split: str) -> _Curves | None:
    """A kind's log-probs, or the argmax log-prob along chosen; None where no seed scores it."""
    of, metric = ("chosen", "argmax_logp") if kind == ARGMAX else (kind, "logp")
    tables = [t.by_example(arm, of, split, metric).to_numpy(float) for t in runs.trajectories]
    if len({table.shape for table in tables}) > 1:
        raise InputError(
            f"the seeds of arm {arm!r} differ in examples or probes of {of!r} and cannot be "
            "averaged; run them with one recipe"
        )
    return np.stack(tables) if tables[0].size else None


def _curve(axes: Axes, x: list[float], values: _Curves, kind: str) -> None:
    look = style(kind)
    axes.plot(
        x, values.mean((0, 1)), color=look.colour, ls=look.pattern, lw=look.width * 0.8, label=kind
    )
    if values.shape[1] > 1:
        axes.fill_between(x, *_band(values), color=look.colour, alpha=0.13, lw=0)


def _band(values: _Curves) -> tuple[Float[np.ndarray, " probes"], Float[np.ndarray, " probes"]]:
    """95% interval of each probe's mean over seeds and examples, which are drawn independently.

    With one seed only examples are drawn (as in `statistics.paired_difference_over_seeds`).
    """
    n_seeds, n_examples, _ = values.shape

    def means(*drawn: np.ndarray, axis: int) -> np.ndarray:
        # scipy resamples along the last axis and wants the resamples last in what comes back.
        seeds = drawn[0] if n_seeds > 1 else np.zeros_like(drawn[-1][..., :1])
        cells = values[seeds[..., :, None], drawn[-1][..., None, :]]
        return np.asarray(np.moveaxis(cells.mean(axis=(-3, -2)), -1, 0))

    samples = [np.arange(n) for n in (n_seeds, n_examples) if n > 1]
    found: Any = stats.bootstrap(
        samples, means, axis=-1, n_resamples=RESAMPLES, method="percentile", vectorized=True, rng=0
    )
    return found.confidence_interval.low, found.confidence_interval.high


def _words(figure: Figure, runs: Runs, arm: str, name: str, kinds: list[str]) -> None:
    what = "seed" if len(runs.seeds) == 1 else "seeds"
    figure.suptitle(
        f"Change of log-prob since the start of {name}: level {runs.level}, arm {arm}, "
        f"{what} {', '.join(map(str, runs.seeds))}; means with 95% intervals",
        fontsize=10,
    )
    handles = [
        Line2D([], [], color=look.colour, ls=look.pattern, lw=look.width, label=look.name)
        for look in map(style, kinds)
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=5, handlelength=3.0, fontsize=8
    )
