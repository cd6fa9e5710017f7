"""Charts: the steps and values of a metric by themselves, as TensorBoard and trackers export them.

A JSON document holds one, many by name (ClearML, Comet, Sacred, Aim) or one of several runs. Where
a file does not say which metric it holds, its name does. A directory of charts is a run or several.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from squeeze.diagnosis.names import is_split, is_step, recognise
from squeeze.diagnosis.readers.columns import holds, names_method
from squeeze.diagnosis.readers.records import Point, Table, is_numeric, joined, missing
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.readers.sheets import is_chart, is_scalar, of_file, only_metric, read_csv
from squeeze.diagnosis.readers.text import parse_json, read_lines, read_text, regular
from squeeze.errors import InputError

Points = list[tuple[float, Any]]  # steps and values
Named = tuple[tuple[str, ...], Points]  # the names that lead to a chart, from the outermost on

_STEPS = ("x", "step", "steps", "iters", "iterations", "iteration")
_VALUES = ("y", "value", "values", "metric")
_NAMES = ("name", "metric", "tag", "metricName", "metric_name", "key")
_HOLDERS = {"runtoseries", "metrics", "scalars", "data", "series", "charts", "result", "results"}
_DEPTH = 8
_WALL_TIME = 1e8  # seconds; no step is as large
# What the first bytes of a JSON chart look like; weights' and tokenizers' files do not.
_CHART = re.compile(
    rb'\s*(?:\[|\{\s*"[^"]{0,200}"\s*:\s*\[)\s*\[\s*[-\d.]'
    rb'|\s*\[?\s*\{[^{}\[\]]{0,300}"(?:x|steps|iters|iterations)"\s*:\s*\['
)


def tables(path: Path, document: Any, *, by_file: bool = False) -> list[Table]:
    """The charts of a document as a table a run; none if it holds none whose metric is known.

    `by_file` lets the file's name tell the metric that the document does not name.
    """
    run, tag = of_file(path)
    outer = ((run,) if run else (), (tag,)) if by_file else ((), ())
    found: dict[str, list[Point]] = {}
    for names, points in _charts(document):
        name, of_run = _named((*outer[0], *names, *outer[1]))
        found.setdefault(of_run, []).extend(({"step": s}, name, value) for s, value in points)
    return [
        Table(run or path.stem, str(path), "JSON with charts", joined(points), unit="value")
        for run, points in (found if len(found) < 2 else _as_one_run(found)).items()
        if by_file or any(recognise(name) for _, name, _ in points)
    ]


def is_nameless(document: Any) -> bool:
    """Whether a document is one chart without the name of its metric."""
    return _points(document) is not None


def _named(names: tuple[str, ...]) -> tuple[str, str]:
    """A chart's metric, those of its names that make it known, and its run, the others."""
    names = tuple(word for name in names for part in name.split(" - ") for word in _cut(part))
    split = "".join(f"{word}/" for word in names if is_split(word))
    rest = tuple(word for word in names if not is_split(word))
    spans = [(i, j) for j in range(len(rest), 0, -1) for i in range(j)]
    known = [
        (i, j)
        for i, j in sorted(spans, key=lambda span: span[0] - span[1])
        if recognise(name := split + "/".join(rest[i:j])) or names_method(name)
    ]
    if not known:
        return split + "".join(rest[-1:]), "/".join(rest[:-1])
    # Of those that mean the same the shortest: a run may be called "dpo", or "good".
    meaning = recognise(split + "/".join(rest[slice(*known[0])]))
    i, j = [s for s in known if recognise(split + "/".join(rest[slice(*s)])) == meaning][-1]
    return split + "/".join(rest[i:j]), "/".join(rest[:i] + rest[j:])


def _cut(name: str) -> tuple[str, ...]:
    """A name and the split behind its last slash, as TensorBoard calls a run's writers."""
    before, slash, last = name.rpartition("/")
    return (before, last) if slash and is_split(last) else (name,)


def _as_one_run(found: dict[str, list[Point]]) -> dict[str, list[Point]]:
    """Runs of which no metric is another's as one: their names are groups of metrics."""
    columns = [{name for _, name, _ in points} for points in found.values()]
    if len(set().union(*columns)) < sum(map(len, columns)):
        return found
    return {"": [point for points in found.values() for point in points]}


def _charts(node: Any, names: tuple[str, ...] = (), depth: int = _DEPTH) -> Iterator[Named]:
    """Every chart below a node, as deep as trackers write them."""
    if depth < 0:
        return
    if isinstance(node, Mapping):
        names = (*names, *_own(node, names))
    points = _points(node)
    if points is not None:
        _require_whole(node, names)
        yield names, points
    elif isinstance(node, Mapping):
        for key, child in node.items():
            held = str(key).lower() in _HOLDERS
            yield from _charts(child, names if held else (*names, str(key)), depth - 1)
    elif isinstance(node, list):
        for child in node:
            if isinstance(child, Mapping):
                yield from _charts(child, names, depth - 1)


def _own(node: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    """What a node says of itself: its context (Aim's {"subset": "train"}) and its name."""
    context = node.get("context")
    said = [v for v in context.values() if isinstance(v, str)] if isinstance(context, dict) else []
    named = [node[k] for k in _NAMES if isinstance(node.get(k), str)]
    return [*said, *(name for name in dict.fromkeys(named) if name and name not in names)]


def _points(node: Any) -> Points | None:
    """The points of a node that is a chart: {"x": [...], "y": [...]}, [[time, step, value], ...],
    [[step, value], ...] or [{"step": ..., "value": ...}, ...]; else None.
    """
    pairs: list[tuple[Any, Any]] = []
    if isinstance(node, Mapping):
        steps: list[Any] = next((node[k] for k in _STEPS if isinstance(node.get(k), list)), [])
        values: list[Any] = next((node[k] for k in _VALUES if isinstance(node.get(k), list)), [])
        pairs = list(zip(steps, values, strict=False))
    elif isinstance(node, list) and node and isinstance(node[0], list):
        width = len(node[0])
        timed = width == 3 and all(isinstance(r, list) and _is_time(r[0]) for r in node)
        if (timed or width == 2) and all(isinstance(r, list) and len(r) == width for r in node):
            pairs = [(r[-2], r[-1]) for r in node]
    elif isinstance(node, list) and node and isinstance(node[0], Mapping):
        step = next((k for k in _STEPS if k in node[0]), "")
        value = next((k for k in _VALUES if k in node[0]), "")
        named = any(isinstance(node[0].get(k), str) for k in _NAMES)
        if step and value and not named and all(isinstance(r, Mapping) for r in node):
            pairs = [(r.get(step), r.get(value)) for r in node]
    if not pairs or not all(_is_step(s) and _is_value(v) for s, v in pairs):
        return None
    if all(s == pairs[0][0] for s, _ in pairs) and len(pairs) > 1:
        return None
    return [(float(s), v) for s, v in pairs]


def _require_whole(node: Any, names: tuple[str, ...]) -> None:
    """Raise `InputError` for a known chart whose steps and values are not as many."""
    lists = [v for v in node.values() if isinstance(v, list)] if isinstance(node, dict) else []
    if len({len(v) for v in lists if v}) > 1 and recognise(_named(names)[0]):
        lengths = " and ".join(str(len(v)) for v in lists)
        raise InputError(
            f"the chart of {'/'.join(names)} has lists of {lengths} numbers, so it is unknown "
            "which belong together; export it again"
        )


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and value > _WALL_TIME


def _is_step(value: Any) -> bool:
    return _is_value(value) and not missing(value) and 0 <= float(value) < math.inf


def _is_value(value: Any) -> bool:
    if isinstance(value, str):  # TensorBoard writes "NaN" and "Infinity"
        return is_numeric(value)
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


# --- a directory of charts ----------------------------------------------------------------------


def _exports(directory: Path) -> list[Path]:
    """The charts of a directory: CSV files of a scalar each, of W&B's runs, or JSON."""
    sheets = [p for p in regular(directory.iterdir()) if p.suffix in (".csv", ".tsv")]
    scalars = [path for path in sheets if is_scalar(path)]
    scalars += _json_charts(directory)
    return scalars or [path for path in sheets if is_chart(path)] or _of_one_metric(sheets)


def _of_one_metric(sheets: list[Path]) -> list[Path]:
    """Tables of steps and one metric each, as DVCLive writes them; none if two hold the same."""
    metrics = {path: metric for path in sheets if (metric := only_metric(path))}
    return list(metrics) if len(metrics) == len(set(metrics.values())) > 1 else []


def _json_charts(directory: Path) -> list[Path]:
    if (directory / "trainer_state.json").exists():
        return []
    return [p for p in regular(directory.glob("*.json")) if _CHART.match(Source(p).head)]


@reader("a directory of exported charts", recognise=lambda s: s.is_directory, order=20)
def read_charts(source: Source) -> list[Table] | None:
    """Read exported charts, a metric each, joined by run and step."""
    exports = _exports(source.path)
    if not exports:
        return None
    found = [table for path in exports for table in _of_file(path)]
    if not any(map(holds, found)):
        raise InputError(
            f"{source.path} holds charts whose metric neither they nor their files' names tell; "
            "name each file for its metric, such as train_rewards_chosen.json"
        )
    by_run: dict[str, list[Table]] = {}
    for table in found:
        by_run.setdefault(table.name, []).append(table)
    as_one = [_as_one(source.path, of_run) for of_run in by_run.values()]
    return [table for table in as_one if holds(table)]


def _of_file(path: Path) -> list[Table]:
    """The charts of a file, named for their runs; "" where it names none."""
    if path.suffix == ".json":
        try:
            document = parse_json(read_text(path))
        except ValueError as error:
            raise InputError(f"{path} is cut off or not JSON ({error}); export it again") from error
        found = tables(path, document) or tables(path, document, by_file=True)
        return [replace(t, name="" if t.name == path.stem else t.name) for t in found]
    found = read_csv(path, read_lines(path)[0])
    if is_chart(path):
        return found
    return [replace(t, name=of_file(path)[0] if is_scalar(path) else "") for t in found]


def _as_one(directory: Path, tables: list[Table]) -> Table:
    """Tables of one run, joined by step."""
    points = [
        ({k.lower(): v for k, v in record.items() if is_step(k)}, name, value)
        for table in tables
        for record in table.records
        for name, value in record.items()
        if not is_step(name)
    ]
    name = tables[0].name or directory.name
    notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
    return Table(name, str(directory), tables[0].format, joined(points), notes=notes, unit="value")
