"""JSON documents: transformers' trainer_state.json, and experiment files with series by name.

The latter come in many shapes (the replication seed writes config and series); every shape that
names a series by something `names` recognises, as a list or as a list of records, is read.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from squeeze.diagnosis.names import is_step, is_telling, recognise
from squeeze.diagnosis.readers import charts
from squeeze.diagnosis.readers.columns import holds
from squeeze.diagnosis.readers.records import Table, flat, spread
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.readers.text import parse_json
from squeeze.errors import InputError

_DEPTH = 4
Wanted = Callable[[str], bool]  # whether a column is looked for

_BLANK = re.compile(r"[\s,]*")
# What else begins with a bracket: a printed dict, or a logger's "[2024-05-01 12:00:00] ".
_BEGINS_JSON = re.compile(r'\s*(\{\s*["}]|\[\s*(\{\s*["}]|[\[\]]))')


def _recognise(source: Source) -> bool:
    return not source.is_directory and source.uncommented[0][1].lstrip()[0] in "{["


@reader("JSON", recognise=_recognise, order=50)
def read(source: Source) -> list[Table] | None:
    """Read a JSON document; None if it is none, and does not look like a broken one."""
    try:
        document = source.document
    except ValueError as error:
        records = _one_by_one(source.text)
        if records:
            return read_document(source.path, records)
        if _BEGINS_JSON.match(source.text[:1000]) and not _is_printed(source):
            raise InputError(
                f"{source.path} is cut off or not JSON ({error}); copy it again from the machine "
                "that trained, or give the console output"
            ) from error
        return None
    return [t.noted(*source.notes) for t in read_document(source.path, document)]


def _one_by_one(text: str) -> list[Any]:
    """Objects that follow each other, on lines of their own or not; none if anything else does."""
    decoder, at, found = json.JSONDecoder(), 0, list[Any]()
    while (begin := _BLANK.match(text, at).end()) < len(text):  # type: ignore[union-attr]
        try:
            value, at = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            return []
        found.append(value)
    return found


def _is_printed(source: Source) -> bool:
    """Whether lines begin with a dict as Python prints it, single quotes and all."""
    return any(line.lstrip().startswith("{'") for _, line in source.lines[:50])


# rewards/chosen = [0.1, 0.2], as a script or a YAML file has it.
_LISTED = re.compile(
    r"([A-Za-z_][\w/.\-]{0,60})['\"]?\s{0,3}[:=]\s{0,3}(?:[\w.]{1,20}\()?(\[[^\[\]]{1,1000000}\])"
)


@reader("lists by name in a text", recognise=lambda s: not s.is_directory, order=82)
def read_lists(source: Source) -> list[Table] | None:
    """Read lists of numbers that a text names; None if they tell nothing."""
    lists: dict[str, Any] = {}
    for found in _LISTED.finditer(source.text):
        with contextlib.suppress(ValueError):
            lists[found[1]] = parse_json(found[2])
    records = _columns(lists, is_telling)
    if records is None:
        return None
    path = source.path
    return [Table(path.stem, str(path), "lists by name", records, (), source.notes, "value")]


def read_document(path: Path, document: Any) -> list[Table]:
    """Read a parsed JSON document into one table a run; raises `InputError` if it has no series."""
    if isinstance(document, Mapping) and "log_history" in document:
        return [_trainer_state(path, document)]
    tables = charts.tables(path, document) or _find(path, document, path.stem, _DEPTH, is_telling)
    if not tables and isinstance(document, Mapping):
        tables = _single(path, document)
    tables = tables or [t for t in charts.tables(path, document, by_file=True) if holds(t)]
    tables = tables or _find(path, document, path.stem, _DEPTH, _known)[:1]
    if not tables and charts.is_nameless(document):
        raise InputError(
            f"{path} is one chart and does not name its metric; give it the name that TensorBoard "
            "gives, such as run-NAME-tag-train_rewards_chosen.json, or a directory of such files"
        )
    if not tables:
        raise InputError(
            f"{path} holds no series that a diagnosis can use: neither log_history nor lists named "
            "chosen, rejected, argmax, rewards/chosen, ..."
        )
    return tables


def _trainer_state(path: Path, document: Mapping[str, Any]) -> Table:
    history = document["log_history"]
    if not isinstance(history, list) or not all(isinstance(r, Mapping) for r in history):
        raise InputError(f"{path}: log_history is not a list of objects; is the file damaged?")
    if not history:
        raise InputError(
            f"{path}: log_history is empty; nothing was logged yet (check logging_steps)"
        )
    notes: tuple[str, ...] = ()
    done, planned = document.get("global_step"), document.get("max_steps")
    if isinstance(done, int) and isinstance(planned, int) and 0 < done < planned:
        notes = (f"the run stands at step {done} of {planned}",)
    return Table(
        path.parent.name or path.stem,
        str(path),
        "transformers trainer_state.json",
        history,
        notes=notes,
        unit="entry of log_history",
    )


def _single(path: Path, document: Mapping[str, Any]) -> list[Table]:
    """One evaluation by itself, as transformers' all_results.json."""
    record = {k: v for k, v in flat(document).items() if isinstance(v, (int, float))}
    if not any(map(is_telling, record)):
        return []
    return [Table(path.stem, str(path), "JSON with values", [record], unit="evaluation")]


def _find(path: Path, node: Any, name: str, depth: int, wanted: Wanted) -> list[Table]:
    """Depth-first: the shallowest nodes that are a table of wanted series."""
    records = _records(node, wanted)
    if records is not None:
        return [Table(name, str(path), "JSON with series", records, unit="evaluation")]
    if depth == 0 or not isinstance(node, Mapping):
        return []
    below = (_find(path, child, str(key), depth - 1, wanted) for key, child in node.items())
    return [table for found in below for table in found]


def _records(node: Any, wanted: Wanted) -> list[dict[str, Any]] | None:
    if isinstance(node, list) and node and all(isinstance(r, Mapping) for r in node):
        rows = [flat(r) for r in node]
        rows = spread(rows, rows[0])
        return rows if _holds(rows, wanted) else None
    if not isinstance(node, Mapping):
        return None
    keyed = _keyed_by_step(node, wanted)
    return keyed if keyed is not None else _columns(_of_frame(node), wanted)


def _of_frame(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A column as a list, where pandas wrote it otherwise; anything else as it is.

    {"columns": [...], "data": [[...]]} or {"chosen": {"0": ..., "1": ...}}.
    """
    names, data = node.get("columns"), node.get("data")
    if isinstance(names, list) and isinstance(data, list) and all(_fits(r, names) for r in data):
        return {str(name): [row[i] for row in data] for i, name in enumerate(names)}
    frame = [v for v in node.values() if isinstance(v, Mapping)]
    if len(frame) == len(node) and frame and all(v.keys() == frame[0].keys() for v in frame):
        return {str(k): list(v.values()) for k, v in node.items()} if _counted(frame[0]) else node
    return node


def _fits(row: Any, names: list[Any]) -> bool:
    return isinstance(row, list) and len(row) == len(names)


def _counted(column: Mapping[str, Any]) -> bool:
    return all(str(key).isdigit() for key in column)


def _columns(node: Mapping[str, Any], wanted: Wanted) -> list[dict[str, Any]] | None:
    """{"epoch": [...], "chosen": [...]}, possibly beside a config and nested one level."""
    lists = {str(k): v for k, v in node.items() if _is_series(v)}
    for key, value in node.items():
        if isinstance(value, Mapping):
            lists |= {f"{key}/{k}": v for k, v in value.items() if _is_series(v)}
    telling = [k for k in lists if wanted(k)]
    if not telling:
        return None
    lengths = {k: len(lists[k]) for k in telling}
    steps = {
        k.rpartition("/")[2]: v
        for k, v in lists.items()
        if is_step(k.rpartition("/")[2]) and len(v) == max(lengths.values())
    }
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{k} {n}" for k, n in lengths.items())
        raise InputError(
            f"the series have unequal lengths ({listed}), so it is unknown which values belong "
            "together; was the file cut off while it was written?"
        )
    columns = {k: lists[k] for k in telling} | steps
    n = max(lengths.values())
    return [{k: v[i] for k, v in columns.items()} for i in range(n)]


def _keyed_by_step(node: Mapping[str, Any], wanted: Wanted) -> list[dict[str, Any]] | None:
    """{"0": {"chosen": ...}, "4": {...}}: keys are the steps or epochs."""
    if len(node) < 1 or not all(isinstance(v, Mapping) for v in node.values()):
        return None
    try:
        steps = [float(str(k).lower().removeprefix("epoch").strip(" _-")) for k in node]
    except ValueError:
        return None
    rows = [{"step": s} | flat(v) for s, v in zip(steps, node.values(), strict=True)]
    return rows if _holds(rows, wanted) else None


def _holds(rows: Sequence[Mapping[str, Any]], wanted: Wanted) -> bool:
    return any(wanted(c) and not isinstance(v, (dict, list)) for r in rows for c, v in r.items())


def _is_series(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in value
        )
    )


def _known(column: str) -> bool:
    return recognise(column) is not None
