"""The numbers behind a page's curves, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

from squeeze.files import no_formula
from squeeze.report.content import Content
from squeeze.report.source import RunData
from squeeze.report.style import ARGMAX, in_order
from squeeze.report.summary import View

COLUMNS = ("run", "split", "series", "unit", "axis", "position", "value", "low", "high", "n")


def curves_csv(content: Content) -> str:
    """A row for every point that the page draws: means with 95% intervals, or logged values.

    `position` is where the point stands on its `axis` (DPO's start is 0); `low`, `high` and `n` are
    empty for a log, which has no single examples.
    """
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for row in (*_scored(content.run), *_logged(content.diagnoses)):
        out.writerow([f"{x:.7g}" if isinstance(x, float) else no_formula(x) for x in row])
    return text.getvalue()


def _scored(run: RunData) -> Iterator[tuple[str | float, ...]]:
    for arm in run.arms:
        unit = run.scores.timeline(arm.name).unit
        for split in run.scores.splits:
            for kind in in_order(run.scores.kinds):
                line = run.scores.curve(arm.name, kind, split, View(change=False))
                if line is None:
                    continue
                low: Iterable[str | float] = line.low or repeat("")
                high: Iterable[str | float] = line.high or repeat("")
                for x, mean, least, most in zip(line.x, line.mean, low, high, strict=False):
                    name = "argmax along chosen" if kind == ARGMAX else kind
                    yield arm.name, split, name, "nats", unit, x, mean, least, most, line.n


def _logged(diagnoses: Iterable[dict[str, Any]]) -> Iterator[tuple[str | float, ...]]:
    for d in diagnoses:
        for curve in d["curves"]:
            head = (d["run"], curve["split"], curve["kind"], curve["unit"], d["axis"])
            for step, value in zip(curve["steps"], curve["values"], strict=True):
                yield *head, step, value, "", "", ""
