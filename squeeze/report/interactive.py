"""The interactive plots as figures of plotly.js, and their safe embedding in a page.

Plain dictionaries, as plotly.js reads them: plotly's Python objects check every field of a thousand
traces, which takes a second a page and is a test's business.

Every trace carries its kind, split and view in `meta`; the page's script only switches visibility.
All text that comes from data is escaped here, since plotly interprets HTML in labels.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

from squeeze.report.source import Arm, RunData
from squeeze.report.style import ARM_COLOURS, in_order, split_name, style
from squeeze.report.summary import (
    Series,
    View,
    final_changes,
    metric_series,
)

Figure = dict[str, Any]

VIEWS = [View(per_token, change) for change in (True, False) for per_token in (False, True)]
SIDE = {
    "margin": "Margin: chosen − rejected, change (nats)",
    "entropy": "Entropy along chosen (nats a token)",
    "peakiness": "Peakiness ‖π‖² along chosen (mean)",
}

MOST_DOTS = 200  # prompts that are drawn one by one

LOG_PANELS = {"nats": "Log-probs (nats)", "reward": "Rewards (β · nats)"}

_AXIS = {
    "gridcolor": "#ECECEC",
    "zerolinecolor": "#9A9A9A",
    "zerolinewidth": 1,
    "linecolor": "#BBBBBB",
    "ticks": "outside",
    "tickcolor": "#BBBBBB",
    "ticklen": 4,
    "automargin": True,
}


@cache
def plotly_js() -> str:
    """plotly.js, packed (1.9 MB instead of 4.8)."""
    return packed(get_plotlyjs())


def packed(text: str) -> str:
    """Text by gzip and base64, which the page unpacks and in which nothing can be a tag."""
    return base64.b64encode(gzip.compress(text.encode(errors="replace"), mtime=0)).decode("ascii")


def _layout(height: int, **more: Any) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 52, "r": 10, "t": 10, "b": 42},
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 12},
        "hoverlabel": {"bgcolor": "white", "align": "left", "namelength": -1},
        "hovermode": "closest",
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        **more,
    }


def _trace(type_: str, **fields: Any) -> dict[str, Any]:
    return {"type": type_, **{k: value for k, value in fields.items() if value is not None}}


def _figure(data: list[Any], layout: dict[str, Any]) -> Figure:
    return {"data": data, "layout": layout}


def _rgba(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def _rounded(numbers: list[float]) -> list[float]:
    return [round(v, 4) for v in numbers]


def _traces(name: str, look: dict[str, Any], line: Series, hover: str, **common: Any) -> list[Any]:
    """A mean line with its band; `look` has colour, dash and width."""
    traces = []
    if line.low is not None and line.high is not None:
        traces.append(
            _trace(
                "scatter",
                x=line.x + line.x[::-1],
                y=_rounded(line.high + line.low[::-1]),
                fill="toself",
                fillcolor=_rgba(look["colour"], 0.10),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                **common,
            )
        )
        custom = [_rounded(list(pair)) for pair in zip(line.low, line.high, strict=True)]
        hover += "<br>95%: %{customdata[0]:.2f} to %{customdata[1]:.2f}"
    else:
        custom = None
    traces.append(
        _trace(
            "scatter",
            x=line.x,
            y=_rounded(line.mean),
            customdata=custom,
            mode="lines+markers",
            marker={"size": 4 if len(line.x) > 1 else 8},
            line={"color": look["colour"], "dash": look["dash"], "width": look["width"]},
            hovertemplate=f"<b>{escape(name)}</b><br>{hover}<br>n = {line.n}<extra></extra>",
            **common,
        )
    )
    return traces


def arm_curves(run: RunData, arm: Arm, shown_split: str) -> Figure:
    """Curves of every kind of an arm, in every view and split; only the first view is visible."""
    time = run.scores.timeline(arm.name)
    data: list[Any] = []
    for split in run.scores.splits:
        for view in VIEWS:
            for kind in reversed(in_order(run.scores.kinds)):
                line = run.scores.curve(arm.name, kind, split, view)
                if line is None:
                    continue
                look = style(kind)
                unit = "nats a token" if view.per_token else "nats"
                data += _traces(
                    look.name,
                    {"colour": look.colour, "dash": look.dash, "width": look.width},
                    line,
                    f"{time.unit} %{{x:.3~g}}: %{{y:{'+' if view.change else ''}.2f}} {unit}",
                    visible=split == shown_split and view == VIEWS[0],
                    meta={
                        "kind": kind,
                        "split": split,
                        "perToken": view.per_token,
                        "change": view.change,
                    },
                )
    before = min(time.position.values(), default=0.0)
    shapes, notes = [], []
    if time.has_dpo and before < 0:
        box = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0}}
        shapes = [box | {"x0": before, "x1": 0, "fillcolor": "#F1F1EE", "layer": "below"}]
        notes = [
            {"x": before / 2, "y": 1, "yref": "paper", "text": "SFT", "showarrow": False}
            | {"yanchor": "top", "font": {"color": "#6B6B6B"}}
        ]
    axis = {"title": {"text": time.unit, "standoff": 8}, "zeroline": False, "showgrid": False}
    layout = _layout(370, xaxis=_AXIS | axis, yaxis=_AXIS, shapes=shapes, annotations=notes)
    return _figure(data, layout)


def arm_distribution(run: RunData, arm: Arm, shown_split: str) -> Figure:
    """Each example's change over DPO by kind, as boxes with an example a dot.

    Of more than `MOST_DOTS` examples so many are taken, evenly by rank with both extremes, of
    which the box is that of all.
    """
    data = []
    kinds = in_order(run.scores.kinds)
    for split in run.scores.splits:
        for kind in kinds:
            found = final_changes(run.scores, arm.name, kind, split)
            if found is None:
                continue
            if len(found) > MOST_DOTS:
                ranks = np.linspace(0, len(found) - 1, MOST_DOTS).round().astype(int)
                found = found.sort_values(kind="stable").iloc[ranks]
            look = style(kind)
            data.append(
                _trace(
                    "box",
                    x=_rounded(found.tolist()),
                    y=[escape(look.name)] * len(found),
                    text=[escape(str(example)) for example in found.index],
                    orientation="h",
                    boxpoints="all",
                    jitter=0.5,
                    pointpos=0,
                    marker={"size": 4, "color": look.colour, "opacity": 0.75},
                    line={"width": 1, "color": look.colour},
                    fillcolor=_rgba(look.colour, 0.08),
                    hoveron="points",
                    hovertemplate="<b>%{text}</b><br>%{x:+.2f} nats<extra></extra>",
                    visible=split == shown_split,
                    meta={"kind": kind, "split": split},
                )
            )
    names = [escape(style(k).name) for k in kinds]
    across = {"title": {"text": "change (nats per response)", "standoff": 8}}
    down = {"categoryorder": "array", "categoryarray": names[::-1], "ticks": "", "showgrid": False}
    return _figure(data, _layout(30 * len(kinds) + 90, xaxis=_AXIS | across, yaxis=_AXIS | down))


def side_figure(run: RunData, metric: str, split: str) -> Figure:
    """Margin, entropy or peakiness over time, a line an arm."""
    data: list[Any] = []
    for index, arm in enumerate(run.arms):
        line = metric_series(run.scores, arm.name, split, metric)
        if line is None:
            continue
        look = {"colour": ARM_COLOURS[index % len(ARM_COLOURS)], "width": 2.0}
        look["dash"] = ("solid", "dash", "dot", "dashdot")[index % 4]
        unit = run.scores.timeline(arm.name).unit
        data += _traces(arm.name, look, line, f"{unit} %{{x:.3~g}}: %{{y:.3f}}")
    unit = run.scores.timeline(run.arms[0].name).unit if run.arms else ""
    title = {"title": {"text": unit, "standoff": 8}, "zeroline": False, "showgrid": False}
    return _figure(data, _layout(250, xaxis=_AXIS | title, yaxis=_AXIS | {"zeroline": False}))


def log_curves(diagnosed: dict[str, Any]) -> dict[str, Figure]:
    """A log's values, faint, and their trends, by unit; empty for a run with scored examples."""
    data: dict[str, list[Any]] = {}
    for curve in diagnosed["curves"]:
        look = style(curve["kind"])
        held_out = curve["split"].startswith(("eval", "held"))
        name = escape(f"{look.name} ({curve['split']})" if curve["split"] else look.name)
        shared = {"name": name, "legendgroup": name, "hovertemplate": "%{x}: %{y:.4~g}"}
        data.setdefault(curve["unit"], []).extend(
            (
                _trace(
                    "scatter",
                    x=curve["steps"],
                    y=curve["values"],
                    mode="markers",
                    marker={"size": 4, "color": look.colour, "opacity": 0.35},
                    showlegend=False,
                    **shared,
                ),
                _trace(
                    "scatter",
                    x=curve["trend_steps"],
                    y=_rounded(curve["trend"]),
                    mode="lines",
                    line={"color": look.colour, "dash": "dash" if held_out else "solid"},
                    showlegend=True,
                    **shared,
                ),
            )
        )
    title = {"title": {"text": escape(str(diagnosed["axis"])), "standoff": 8}, "showgrid": False}
    layout = _layout(340, xaxis=_AXIS | title, yaxis=_AXIS | {"zeroline": False})
    layout |= {"showlegend": True, "legend": {"orientation": "h", "y": 1.12}}
    return {unit: _figure(traces, layout) for unit, traces in data.items()}


def compared(diagnoses: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    """The trends of several logs on shared axes, by unit: a colour a run, rejected dashed.

    Of every run the split that decided. Where the runs count different things, x is the share of
    each run that was done.
    """
    axes = {str(d["axis"]) for d in diagnoses}
    title = axes.copy().pop() if len(axes) == 1 else "share of the run"
    data: dict[str, dict[str, list[Any]]] = {}
    for index, d in enumerate(diagnoses):
        for curve in d["curves"]:
            if curve["split"] != d["split"]:
                continue
            steps, last = curve["trend_steps"], max(map(abs, curve["trend_steps"])) or 1.0
            name = escape(f"{d['run']}: {style(curve['kind']).name}")
            data.setdefault(curve["unit"], {}).setdefault(d["run"], []).append(
                _trace(
                    "scatter",
                    x=steps if len(axes) == 1 else [step / last for step in steps],
                    y=_rounded(curve["trend"]),
                    mode="lines",
                    line={
                        "color": ARM_COLOURS[index % len(ARM_COLOURS)],
                        "dash": {"chosen": "solid", "rejected": "dash"}.get(curve["kind"], "dot"),
                    },
                    name=name,
                    showlegend=True,
                    hovertemplate=f"{name} %{{y:.4~g}}",
                )
            )
    axis = {"title": {"text": escape(title), "standoff": 8}, "showgrid": False}
    layout = _layout(380, xaxis=_AXIS | axis, yaxis=_AXIS | {"zeroline": False})
    layout |= {"showlegend": True, "legend": {"orientation": "h", "y": 1.12}}
    return {
        unit: _figure([trace for traces in runs.values() for trace in traces], layout)
        for unit, runs in data.items()
        if len(runs) > 1
    }


def split_options(run: RunData) -> list[tuple[str, str]]:
    """The splits present, each with its name."""
    return [(s, split_name(s)) for s in run.scores.splits]
