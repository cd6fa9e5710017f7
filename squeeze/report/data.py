"""The numbers behind a page's curves, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import repeat

from squeeze.report.source import RunData
from squeeze.report.style import ARGMAX, in_order
from squeeze.report.summary import View

COLUMNS = ("run", "split", "series", "unit", "axis", "position", "value", "low", "high", "n")


def curves_csv(run: RunData) -> str:
    """A row for every point that the page draws: means with 95% intervals, or logged values.

    `position` is where the point stands on its `axis` (DPO's start is 0); `low`, `high` and `n` are
    empty for a log, which has no single examples.
    """
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for row in (*_scored(run), *_logged(run)):
        out.writerow([_safe(cell) if isinstance(cell, str) else cell for cell in row])
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


def _logged(run: RunData) -> Iterator[tuple[str | float, ...]]:
    for d in run.diagnoses:
        for curve in d["curves"]:
            head = (d["run"], curve["split"], curve["kind"], curve["unit"], d["axis"])
            for step, value in zip(curve["steps"], curve["values"], strict=True):
                yield *head, step, value, "", "", ""


def _safe(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
