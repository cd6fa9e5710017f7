"""A diagnosis as pages: `squeeze.report`'s for whatever has scores, and the evidence beside it.

A log has no scores of single examples; its page (`write_page`) has the curves, the evidence and
what to do.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from squeeze.diagnosis import series as q
from squeeze.diagnosis.output import number, to_json
from squeeze.diagnosis.record import headline
from squeeze.diagnosis.series import RunSeries, Series
from squeeze.diagnosis.trend import fit
from squeeze.diagnosis.verdict import Diagnosis
from squeeze.files import read_json, replacing, write_json, write_text
from squeeze.report import build_report
from squeeze.report.style import ARGMAX, style

_PANELS = {
    "Log-probs (nats)": {q.CHOSEN: "chosen", q.REJECTED: "rejected", q.ARGMAX: ARGMAX},
    "Rewards (β · nats)": {q.CHOSEN_REWARD: "chosen", q.REJECTED_REWARD: "rejected"},
}


def write_report(diagnoses: Sequence[Diagnosis], directory: Path, ledger: Path) -> Path:
    """Write the report of runs that were read from files; return the path of its index.html.

    The arms of one trajectory get the full report, made in `directory` from copies; others get the
    page of their curves. Raises `InputError` if it cannot be written.
    """
    sources = {(d.run.format, d.run.source) for d in diagnoses}
    if len(sources) != 1 or diagnoses[0].run.format != "squeeze trajectory":
        return write_page(diagnoses, directory, ledger)
    source = Path(diagnoses[0].run.source).parent
    if source.resolve() != directory.resolve():
        for name in ("trajectory.parquet", "run.json", "samples.json", "verdicts.json"):
            if (source / name).is_file():
                with replacing(directory / name) as temporary:
                    shutil.copyfile(source / name, temporary)
    return finish_run(diagnoses, directory, ledger)


def finish_run(diagnoses: Sequence[Diagnosis], directory: Path, ledger: Path) -> Path:
    """Give a run directory its report and diagnosis.html; return the path of index.html.

    A single arm's verdict becomes the report's headline; several keep the one that they have.
    Raises `InputError` if the directory holds no trajectory or cannot be written.
    """
    if len(diagnoses) == 1:
        about = directory / "run.json"
        known = read_json(about) if about.exists() else {}
        write_json(about, known | headline(diagnoses[0]))
    write_page(diagnoses, directory, ledger, "diagnosis.html")
    return build_report(directory)


def write_page(
    diagnoses: Sequence[Diagnosis], directory: Path, ledger: Path, name: str = "index.html"
) -> Path:
    """Write `directory`/`name` and return its path; raises `InputError` if it cannot."""
    documents = [to_json([d], ledger) for d in diagnoses]
    runs = [
        {"data": document, "figures": _figures(d.run, i)}
        for i, (d, document) in enumerate(zip(diagnoses, documents, strict=True))
    ]
    environment = Environment(
        loader=PackageLoader("squeeze.diagnosis"), autoescape=True, undefined=StrictUndefined
    )
    environment.globals["number"] = number
    template = environment.get_template("diagnosis.html.j2")
    page = directory / name
    write_text(page, template.render(runs=runs, plotly_js=Markup(get_plotlyjs())))
    return page


def _figures(run: RunSeries, index: int) -> list[dict[str, Any]]:
    figures = []
    for panel, (title, kinds) in enumerate(_PANELS.items()):
        shown = [s for s in run.series if s.quantity in kinds]
        if shown:
            traces = [trace for s in shown for trace in _traces(s, kinds[s.quantity])]
            layout = go.Layout(
                template="none",
                height=380,
                margin={"l": 56, "r": 10, "t": 10, "b": 44},
                xaxis={"title": {"text": str(escape(run.axis))}, "gridcolor": "#ECECEC"},
                yaxis={"gridcolor": "#ECECEC"},
            )
            json_text = go.Figure(traces, layout).to_json()
            # Names come from the log: no tag may open or close inside the script element.
            safe = json_text.replace("<", "\\u003c").replace(">", "\\u003e")
            figures.append({"title": title, "id": f"curves-{index}-{panel}", "json": Markup(safe)})
    return figures


def _traces(series: Series, kind: str) -> list[go.Scatter]:
    """The logged values, faint, and their trend."""
    look = style(kind)
    name = str(escape(f"{look.name} ({series.split})" if series.split else look.name))
    dash = "dash" if series.split.startswith(("eval", "held")) else "solid"
    trend = fit(series)
    points = go.Scatter(
        x=series.steps.tolist(),
        y=series.values.tolist(),
        mode="markers",
        marker={"size": 4, "color": look.colour, "opacity": 0.35},
        name=f"{name}, logged",
        showlegend=False,
    )
    line = go.Scatter(
        x=trend.steps.tolist(),
        y=trend.level.tolist(),
        mode="lines",
        line={"color": look.colour, "dash": dash, "width": 2},
        name=name,
    )
    return [points, line]
