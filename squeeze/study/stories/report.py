"""The page of a `squeeze stories` run: verdicts, curves over DPO, the same prompts side by side.

A pure function of the run's files (run.json, texts.json, verdicts). Its look, number formats and
macros are those of `squeeze.report`, whose own page needs a trajectory of log-probs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, PackageLoader
from matplotlib.figure import Figure

from squeeze.claims.types import Verdict
from squeeze.files import read_json, write_figure, write_text
from squeeze.report.content import duration, flat
from squeeze.report.html import data_uri, environment
from squeeze.report.markdown import escape
from squeeze.report.style import ARM_COLOURS
from squeeze.text_statistics import TextStatistics, describe

TITLES = {"dpo": "DPO", "control": "without the rejected term"}
PANELS = {
    "repeated_4": "repeated 4-grams, share",
    "distinct_2": "distinct-2, per story",
    "entropy": "unigram entropy, nats",
    "length": "length, words and marks",
}
_GREY = "#767676"


@dataclass(frozen=True)
class Look:
    """One model's stories: `title` in words; `arm` and `epoch` of DPO, or neither."""

    title: str
    texts: list[list[str]]
    statistics: TextStatistics
    arm: str = ""
    epoch: int = 0


@dataclass(frozen=True)
class LogRow:
    """TRL's own means over an epoch of training: nats a story, and the implicit reward margin."""

    epoch: int
    loss: float
    chosen: float
    rejected: float


@dataclass(frozen=True)
class Page:
    """Everything the templates show."""

    name: str
    headline: str
    tone: str
    verdicts: Sequence[Verdict]
    looks: list[Look]
    truth: TextStatistics
    stories: list[dict[str, Any]]
    logs: dict[str, list[LogRow]]
    rejected: list[dict[str, str]]
    facts: list[tuple[str, str]]
    config: list[tuple[str, str]]
    seconds: list[tuple[str, str]]


def _look(name: str, texts: list[list[str]]) -> Look:
    statistics = describe([text for row in texts for text in row])
    arm, _, epoch = name.rpartition("-")
    if not arm:
        return Look({"base": "base", "sft": "after SFT"}[name], texts, statistics)
    plural = "" if epoch == "1" else "s"
    title = f"{TITLES[arm]}, {epoch} epoch{plural}"
    return Look(title, texts, statistics, arm, int(epoch))


def _log(rows: list[dict[str, Any]]) -> list[LogRow]:
    return [
        LogRow(round(r["epoch"]), r["loss"], r["logps/chosen"], r["logps/rejected"])
        for r in rows
        if {"loss", "logps/chosen", "logps/rejected"} <= r.keys()
    ]


def _headline(verdicts: Sequence[Verdict]) -> tuple[str, str]:
    """What DPO's three rows say in a few words, and their tone."""
    rows = [v for v in verdicts if "control" not in v.comparison]
    held, run = sum(v.on_claimed_side for v in rows), [v for v in rows if v.ran]
    if not run:
        return "Not judged: the stories are too short", "unknown"
    if held == len(rows):
        return "Long DPO made the stories repeat themselves", "yes"
    if held:
        return f"Long DPO: {held} of {len(rows)} signs of repetition", "partly"
    return "Long DPO did not make the stories repeat themselves", "no"


def read_page(directory: Path, verdicts: Sequence[Verdict]) -> Page:
    """What a run's files say, as they were just written."""
    run, texts = (read_json(directory / name) for name in ("run.json", "texts.json"))
    looks = [_look(name, found) for name, found in texts["texts"].items()]
    headline, tone = _headline(verdicts)
    shown = [x for x in looks if x.arm != "control" or x.epoch == run["config"]["dpo"]["epochs"]]
    stories = [
        {
            "prompt": story["prompt"],
            "cells": [
                *((x.title, x.texts[0][i]) for x in shown),
                ("ground truth", story["text"]),
            ],
        }
        for i, story in enumerate(texts["prompts"])
    ]
    facts = [("model", f"Qwen3, {run['model']['parameters']:,} parameters, from scratch")]
    told = ("data", "device", "git", "created", "versions")  # outside a checkout there is no git
    facts += flat({key: run[key] for key in told if key in run})
    return Page(
        name=run["name"],
        headline=headline,
        tone=tone,
        verdicts=verdicts,
        looks=looks,
        truth=describe([story["text"] for story in texts["prompts"]]),
        stories=stories,
        logs={TITLES[arm]: _log(rows) for arm, rows in texts["log"].items()},
        rejected=texts["rejected"][:4],
        facts=facts,
        config=flat(run["config"]),
        seconds=[(stage, duration(s)) for stage, s in run["seconds"].items()],
    )


def draw(page: Page, path: Path) -> None:
    """The measures over the epochs of DPO, a line an arm, the SFT model at 0, as a PNG."""
    start = next(x for x in page.looks if x.title == "after SFT")
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for axis, (field, title) in zip(axes, PANELS.items(), strict=True):
        for (arm, name), colour in zip(TITLES.items(), ARM_COLOURS, strict=False):
            points = [start, *(x for x in page.looks if x.arm == arm)]
            values = [getattr(x.statistics, field) for x in points]
            axis.plot([x.epoch for x in points], values, "o-", ms=3, color=colour, label=name)
        truth = getattr(page.truth, field)
        axis.axhline(truth, color=_GREY, linestyle=":", label="ground truth")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epochs of DPO")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    write_figure(figure, path, dpi=130)


def write_report(directory: Path, verdicts: Sequence[Verdict]) -> Path:
    """Write degeneration.png, report.md and index.html (last); the path of index.html."""
    page = read_page(directory, verdicts)
    figure = directory / "degeneration.png"
    draw(page, figure)
    image = data_uri(figure)
    for template, name in (("stories.md.j2", "report.md"), ("stories.html.j2", "index.html")):
        env = environment(autoescape=name.endswith("html"))
        if name.endswith("md"):
            env.finalize = escape
        assert env.loader is not None  # `environment` gives it one
        env.loader = ChoiceLoader([PackageLoader("squeeze.study.stories"), env.loader])
        write_text(directory / name, env.get_template(template).render(p=page, image=image))
    return directory / "index.html"
