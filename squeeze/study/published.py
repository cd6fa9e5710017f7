"""Level "published": the paper's own logs, judged by the checks that judge our runs.

A log becomes a trajectory whose arm is the run's name; each run is one seed, so its rows carry
intervals over the 500 prompts and decide nothing alone. What a log cannot say (an argmax along
another text, means without values per prompt) is "not run", with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from squeeze.claims import catalogue
from squeeze.claims.runs import Runs
from squeeze.claims.sft import Copies
from squeeze.claims.types import Verdict
from squeeze.files import write_figure
from squeeze.published_logs import ARGMAX, CHOSEN, PublishedRun, find_logs, read_published
from squeeze.report.style import ARGMAX as ARGMAX_STYLE
from squeeze.report.style import style
from squeeze.study.registration import with_registered_effects
from squeeze.trajectory import COLUMNS, Trajectory

DATA = "Anthropic-HH helpful-base, 5,000 pairs, full finetuning"
FIGURE = "published-figure-4.png"
# ‖A‖_F² = V‖π‖² + V − 2 (LD-2): the logs hold ‖A‖, our trajectories ‖π‖².
VOCABULARY = {"pythia": 50_304, "qwen": 151_936}


@dataclass(frozen=True)
class Judged:
    """One published run with the rows of the claims that it can say something about."""

    run: PublishedRun
    phase: Literal["sft", "dpo"] | None
    rows: list[Verdict]


def judge_published(directory: Path) -> list[Judged]:
    """Read every log below a directory and judge it; `InputError` as `find_logs` and the reader."""
    return [judge_run(read_published(path)) for path in find_logs(directory)]


def phase_of(run: PublishedRun) -> Literal["sft", "dpo"] | None:
    """What a run trained, by its name; None where the name does not say."""
    for phase in ("dpo", "sft"):
        if phase in run.name.lower():
            return phase
    return None


def judge_run(run: PublishedRun) -> Judged:
    """The rows of one run."""
    phase = phase_of(run)
    if phase is None:
        return Judged(run, None, [])
    claims, trajectory = _claims(run, phase), as_trajectory(run, phase)
    runs = Runs((trajectory,), "published", (0,), {phase: run.name}, model=run.name, data=DATA)
    rows: list[Verdict] = []
    for claim in claims:
        if claim == "DO-2" and run.argmax_problem:
            rows.append(_not_run(claim, run, run.argmax_problem))
        else:
            rows += catalogue.get(claim).check(Copies(runs) if claim == "SF-4" else runs)
    rows = [row for row in rows if row.ran or row.role == "primary"]
    if run.prompts is None:
        return Judged(run, phase, [_of_means(row) for row in rows])
    return Judged(run, phase, with_registered_effects(rows, "published"))


def _claims(run: PublishedRun, phase: str) -> list[str]:
    if phase == "dpo":
        return ["DO-1", "DO-2"]
    kinds, claims = run.kinds(), ["SF-1"]
    if "chosen_rephrased" in kinds:
        claims.append("SF-2")
    if "rejected" in kinds and "extend" not in run.name:  # there it is trained on
        claims.append("SF-3")
    if {"other_answer", "unseen_answer"} <= set(kinds):
        claims.append("SF-4")
    return [*claims, "SF-5"] if "permuted" in kinds or run.has("chosen_A_o") else claims


def _of_means(row: Verdict) -> Verdict:
    """A row on means alone: its effect without an interval, which decides nothing."""
    if not row.ran:
        return row
    return replace(
        row, outcome="inconclusive", interval=None, detectable=None, n=0, seed_means=(),
        reason="only means over prompts are published, which give no interval", evidence={},
    )  # fmt: skip


def _not_run(claim: str, run: PublishedRun, reason: str) -> Verdict:
    primary = catalogue.get(claim).primary
    series = {"evaluations": len(run.means), **_ends(run)}
    return Verdict(
        claim, "published", "not run", primary, comparison=run.name, reason=reason,
        evidence=series, model=run.name, data=DATA, updates=len(run.means) - 1,
    )  # fmt: skip


def _ends(run: PublishedRun) -> dict[str, float]:
    """Start, peak and end of chosen, and of the argmax where it may be used: means, nats."""
    chosen = run.mean(CHOSEN)
    peak = int(chosen.argmax())
    found = {"chosen, start": chosen[0], "chosen, peak": chosen[peak], "chosen, end": chosen[-1]}
    if not run.argmax_problem:
        argmax = run.mean(ARGMAX)
        found |= {"argmax, start": argmax[0], "argmax, end": argmax[-1]}
        found["argmax, at chosen's peak"] = argmax[peak]
    return {name: round(float(value), 2) for name, value in found.items()}


def as_trajectory(run: PublishedRun, phase: str) -> Trajectory:
    """A run as a trajectory of one arm: evaluations are probes and steps, prompts are examples.

    Means alone stand for two prompts that are alike: what is taken over prompts needs two.
    """
    values = np.repeat(run.means[..., None], 2, axis=-1) if run.prompts is None else run.prompts
    run = replace(run, prompts=values)
    n_evaluations, _, n_prompts = values.shape
    probes = np.repeat(np.arange(n_evaluations), n_prompts)
    base = {
        "arm": run.name,
        "phase": np.where(probes == 0, "base", phase),
        "step": probes,
        "epoch": probes.astype(float),
        "probe": probes,
        "example": np.tile([f"{i:03d}" for i in range(n_prompts)], n_evaluations),
        "split": "train",
        "argmax_logp": np.nan,
        "entropy": np.nan,
        "peakiness": np.nan,
        "n_tokens": 0,
    }
    frames = []
    for kind, field in run.kinds().items():
        frame = pd.DataFrame(base | {"kind": kind, "logp": run.values(field).ravel()})
        if kind == "chosen":
            if not run.argmax_problem:
                frame["argmax_logp"] = run.values(ARGMAX).ravel()
            frame["peakiness"] = _peakiness(run).ravel()
        frames.append(frame)
    return Trajectory(pd.concat(frames, ignore_index=True)[COLUMNS])


def _peakiness(run: PublishedRun) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """‖π‖² on chosen from the logged ‖A‖; NaN where the log's ‖A‖ is another text's."""
    vocabulary = next((v for name, v in VOCABULARY.items() if name in run.name.lower()), None)
    if vocabulary is None or not run.has("chosen_A_o"):
        return np.full_like(run.values(CHOSEN), np.nan)
    return np.asarray((run.values("chosen_A_o") ** 2 - vocabulary + 2) / vocabulary)


def draw_published(judged: Sequence[Judged], path: Path) -> Path | None:
    """The paper's Figure 4 from its own logs, with the argmax log-prob that is chosen's.

    A panel a DPO run whose argmax may be used: changes of the means since the first evaluation, in
    nats. None where there is no such run.
    """
    sound = [j.run for j in judged if j.phase == "dpo" and not j.run.argmax_problem]
    if not sound:
        return None
    figure = Figure(figsize=(4.2 * len(sound), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, run in zip(figure.subplots(1, len(sound), squeeze=False)[0], sound, strict=True):
        for name, field, key in (
            ("chosen", CHOSEN, "chosen"),
            ("argmax along chosen", ARGMAX, ARGMAX_STYLE),
        ):
            curve = run.mean(field)
            look = style(key)
            axes.plot(curve - curve[0], label=name, color=look.colour, linestyle=look.pattern)
        axes.axhline(0, color="0.7", linewidth=0.8)
        axes.set_title(run.name, fontsize=8)
        axes.set_xlabel("evaluation")
    figure.axes[0].set_ylabel("change of the mean log-prob, nats")
    figure.axes[0].legend(frameon=False, fontsize=8)
    write_figure(figure, path, dpi=120)
    return path
