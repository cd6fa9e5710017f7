"""Results of `squeeze compare-losses` as JSON, CSV, Markdown, a figure and a page.

A row of `losses.json` is one change: model, loss, seed ("all": over all of them, with an interval),
split, cut, column, nats. Measures nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from squeeze.claims.variants import COLUMNS, LossRow
from squeeze.files import no_formula, read_as, replacing, write_figure, write_json, write_text
from squeeze.report.figures import plain
from squeeze.report.html import data_uri, environment
from squeeze.report.markdown import escape

SCHEMA = 2
FIELDS = ("model", "loss", "seed", "split", "cut", "column", "effect", "low", "high")
ALL = "all"
JSON, CSV, MARKDOWN, FIGURE = "losses.json", "losses.csv", "losses.md", "losses.png"
PAGE = "index.html"
FILES = (JSON, CSV, MARKDOWN, FIGURE, PAGE)
_AS_WRITTEN = ConfigDict(extra="allow", allow_inf_nan=False)


@with_config(_AS_WRITTEN)
class _Row(TypedDict):
    model: str
    loss: str
    seed: str
    split: str
    cut: str
    column: str
    effect: float | None
    low: float | None
    high: float | None


@with_config(_AS_WRITTEN)
class _Verdict(TypedDict):
    comparison: str
    reason: str
    outcome: str
    effect: float | None
    interval: tuple[float, float] | None
    n: int


@with_config(_AS_WRITTEN)
class _Table(TypedDict):
    schema: Literal[2]
    rows: list[_Row]
    not_measured: dict[str, dict[str, str]]
    verdicts: dict[str, list[_Verdict]]


_TABLE = TypeAdapter(_Table)


def records(model: str, seeds: Sequence[int], rows: Sequence[LossRow]) -> list[dict[str, Any]]:
    """One plain mapping a change: over all seeds, then of each."""
    made = []
    for row in rows:
        for column, found in row.changes.items():
            low, high = found.interval if found else (None, None)
            values = [(ALL, found.effect if found else None, low, high)]
            if found and len(seeds) > 1:
                pairs = zip(seeds, found.seed_means, strict=True)
                values += [(str(seed), value, None, None) for seed, value in pairs]
            made += [
                dict(
                    zip(
                        FIELDS, (model, row.loss, seed, row.split, row.cut, column, *v), strict=True
                    )
                )
                for seed, *v in values
            ]
    return made


def earlier(out: Path) -> dict[str, Any]:
    """What `losses.json` holds by now; raises `InputError` where the file is not this table."""
    path = out / JSON
    way_out = "put it back as it was, or move it away, or give another --out"
    if not path.exists():
        return {}
    found = read_as(path, _TABLE, way_out)
    return {**found}


def merged(
    out: Path,
    rows: Sequence[Mapping[str, Any]],
    missing: Mapping[str, Mapping[str, str]],
    verdicts: Mapping[str, Sequence[Any]],
) -> dict[str, Any]:
    """What `losses.json` is to hold: these models' results, and those of others that it has.

    Raises `InputError` as `earlier` does.
    """
    old, new = earlier(out), {row["model"] for row in rows}
    kept = [row for row in old.get("rows", []) if row["model"] not in new]
    others = {row["model"] for row in kept}

    def joined(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        return {m: v for m, v in old.get(name, {}).items() if m in others} | dict(given)

    return {
        "schema": SCHEMA,
        "rows": [*kept, *rows],
        "not_measured": joined("not_measured", missing),
        "verdicts": joined("verdicts", verdicts),
    }


def table(content: Mapping[str, Any], seeds: bool = False) -> list[list[str]]:
    """The cells of model, loss, seed, prompts, cut and a change each; `seeds` adds each one's."""
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in content["rows"]:
        if seeds or row["seed"] == ALL:
            key = tuple(row[name] for name in ("model", "loss", "seed", "split", "cut"))
            lines.setdefault(key, {})[row["column"]] = _cell(row)
    return [
        [*key, *(cells.get(column, "not measured") for column in COLUMNS)]
        for key, cells in lines.items()
    ]


def header() -> list[str]:
    """The names of the columns of `table`."""
    return ["model", "loss", "seed", "prompts", "cut", *(f"Δ{column}" for column in COLUMNS)]


def _cell(row: Mapping[str, Any]) -> str:
    """A change, with its interval over all seeds, in nats; or "not measured"."""
    if row["effect"] is None:
        return "not measured"
    if row["low"] is None:
        return f"{row['effect']:+.1f}"
    return f"{row['effect']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"


def remarks(content: Mapping[str, Any]) -> list[str]:
    """Which losses were not measured, and why."""
    return [
        f"{loss} was not measured on {model}: {reason}"
        for model, losses in content["not_measured"].items()
        for loss, reason in losses.items()
    ]


def markdown(content: Mapping[str, Any]) -> str:
    """The table over all seeds, then the losses that could not be trained and why."""
    rows = [header(), ["---"] * len(header()), *table(content)]
    lines = ["| " + " | ".join(map(escape, row)) + " |" for row in rows]
    return "\n".join([*lines, "", *map(escape, remarks(content))]).rstrip() + "\n"


def plot(content: Mapping[str, Any], path: Path) -> None:
    """One panel a column and cut on held-out prompts, a bar a loss and model, as a PNG."""
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False}):  # a name may hold a $
        _plot(content, path)


def _plot(content: Mapping[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    shown = [r for r in content["rows"] if r["split"] == "held_out" and r["seed"] == ALL]
    models = list(dict.fromkeys(row["model"] for row in shown))
    losses, cuts = list(dict.fromkeys(r["loss"] for r in shown)), ("end", "equal margin")
    figure = Figure(figsize=(14, 2.5 + 0.5 * len(losses)), layout="constrained")
    axes = figure.subplots(2, len(COLUMNS), sharey=True)
    for cut, line in zip(cuts, axes, strict=True):
        for column, axis in zip(COLUMNS, line, strict=True):
            for row in shown:
                if (row["cut"], row["column"]) == (cut, column) and row["effect"] is not None:
                    which = models.index(row["model"])
                    y, colour = losses.index(row["loss"]) + 0.15 * which, f"C{which}"
                    axis.plot([row["low"], row["high"]], [y, y], color=colour)
                    axis.plot(row["effect"], y, "o", color=colour)
            axis.axvline(0, color="0.6", linewidth=0.8)
            axis.set(title=f"Δ{column}, {cut}", xlabel="nats", yticks=range(len(losses)))
            axis.set_yticklabels([_label(loss) for loss in losses])
            axis.set_ylim(len(losses) - 0.5, -0.5)
    if len(models) > 1:
        handles = [axes[0][0].plot([], [], "o", color=f"C{i}")[0] for i in range(len(models))]
        names = [_label(model) for model in models]
        figure.legend(handles, names, loc="outside lower center", ncols=len(models))
    write_figure(figure, path, dpi=120)


def _label(name: str) -> str:
    """A name that a figure can draw, and has room for."""
    return plain(name) if len(name) <= 40 else plain(f"{name[:37]}...")


def write(out: Path, content: Mapping[str, Any]) -> None:
    """Write `FILES`, each atomically."""
    write_json(out / JSON, content)
    with replacing(out / CSV) as temporary:
        frame = pd.DataFrame(content["rows"], columns=list(FIELDS))
        frame.map(no_formula).to_csv(temporary, index=False)
    write_text(out / MARKDOWN, markdown(content))
    plot(content, out / FIGURE)
    page = environment(autoescape=True).get_template("losses.html.j2")
    names, rows = header(), table(content, seeds=True)
    models = {row[0] for row in rows}
    shown = [i for i, name in enumerate(names) if name != "model" or len(models) > 1]
    text = page.render(
        models=models,
        header=[names[i] for i in shown],
        rows=[[row[i] for i in shown] for row in rows],
        remarks=remarks(content),
        verdicts=[(m, v) for m, found in content["verdicts"].items() for v in found],
        image=data_uri(out / FIGURE),
    )
    write_text(out / PAGE, text)
