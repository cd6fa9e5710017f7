"""The HTML page: one self-contained file, laid out by jinja2 with autoescape.

What the page says is decided in `content`.
"""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.io.json import to_json_plotly

from squeeze.report import figures as png
from squeeze.report import interactive
from squeeze.report.content import (
    Content,
    changed,
    duration,
    effect,
    interval,
    measured,
    number,
)
from squeeze.report.data import curves_csv
from squeeze.report.style import ARGMAX, split_name, style
from squeeze.report.tokens import visible

_DASHES = {"solid": "", "dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3"}


def environment(autoescape: bool) -> Environment:
    """The jinja2 environment of the report's templates, with its number formats."""
    env = Environment(
        loader=PackageLoader("squeeze.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"number": number, "interval": interval, "duration": duration}
    env.filters |= {"visible": visible, "split_name": split_name, "effect": effect}
    env.filters |= {"measured": measured, "changed": changed}
    return env


def _plots(content: Content) -> dict[str, interactive.Figure]:
    """The figures of the page by the id of their element."""
    run = content.run
    split = png.main_split(run)
    plots: dict[str, interactive.Figure] = {}
    for index, page in enumerate(content.arms):
        plots[f"curves-{index}"] = interactive.arm_curves(run, page.arm, split)
        if any(s.chosen is not None for s in page.splits):
            plots[f"spread-{index}"] = interactive.arm_distribution(run, page.arm, split)
    for index, diagnosed in enumerate(content.diagnoses):
        for unit, figure in interactive.log_curves(diagnosed).items():
            plots[f"log-{index}-{unit}"] = figure
    for unit, figure in interactive.compared(content.diagnoses).items():
        plots[f"together-{unit}"] = figure
    for metric in interactive.SIDE:
        plots[f"side-{metric}"] = interactive.side_figure(run, metric, split)
    return {name: figure for name, figure in plots.items() if figure["data"]}


def data_uri(path: Path) -> str:
    """A PNG file as a URI that a page can hold."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def render_html(content: Content, figures: list[Path]) -> str:
    """The page; `figures` are the PNG files that it embeds."""
    plots = _plots(content)
    swatches = [
        (kind, name, what, style(kind).colour, _DASHES[style(kind).dash], style(kind).leading)
        for kind, name, what in content.kinds
    ]
    return (
        environment(autoescape=True)
        .get_template("index.html.j2")
        .render(
            c=content,
            run=content.run,
            swatches=swatches,
            splits=interactive.split_options(content.run),
            main_split=png.main_split(content.run),
            side=interactive.SIDE,
            log_panels=interactive.LOG_PANELS,
            argmax=ARGMAX,
            plots=set(plots),
            plots_json=interactive.packed(to_json_plotly(plots)),
            plotly_js=interactive.plotly_js(),
            data_csv=interactive.packed(curves_csv(content)),
            images={path.stem: data_uri(path) for path in figures},
        )
    )
