"""Summaries of diagnoses: several runs in one table, Markdown for a CI step, data as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from squeeze.diagnosis.movements import Evidence
from squeeze.diagnosis.output import STYLES, number
from squeeze.diagnosis.verdict import Diagnosis
from squeeze.files import no_formula

_ROLES = ("chosen", "rejected", "margin", "argmax")
_COLUMNS = ("run", "verdict", "split", "n", *_ROLES, "unit")


def side_by_side(diagnoses: Sequence[Diagnosis]) -> Table:
    """One row a run: its verdict, and what chosen, rejected, margin and argmax did in it."""
    table = Table(title="change from start to end", title_justify="left", show_edge=False)
    for column in _COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column in ("verdict", "n", "unit"))
    for d in diagnoses:
        name, verdict, *rest = _row(d)
        table.add_row(Text(name), Text(verdict, style=STYLES[d.verdict]), *map(Text, rest))
    return table


def markdown(diagnoses: Sequence[Diagnosis]) -> str:
    """What a CI step's summary shows: a table of the runs, then each one's sentences."""
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *(_line(_row(d)) for d in diagnoses)]
    for d in diagnoses:
        lines += ["", f"**{_cell(d.run.name)}: {d.verdict}** — {_cell(d.reason)}", ""]
        lines += [f"- {_cell(str(sentence))}" for sentence in (*d.findings, *d.cautions)]
    return "\n".join(lines).rstrip() + "\n"


def as_csv(diagnoses: Sequence[Diagnosis]) -> str:
    """Every logged value that a diagnosis rests on: run, verdict, split, quantity, step, value."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(("run", "verdict", "split", "series", "column", _axis(diagnoses), "value"))
    for d in diagnoses:
        for s in d.run.series:
            texts = (d.run.name, d.verdict, s.split, s.quantity, s.column)
            head = tuple(map(no_formula, texts))
            for step, value in zip(s.steps.tolist(), s.values.tolist(), strict=True):
                out.writerow((*head, f"{step:.10g}", repr(value)))
    return text.getvalue()


def _axis(diagnoses: Sequence[Diagnosis]) -> str:
    """What the steps count, if it is the same in every run."""
    axes = {d.run.axis for d in diagnoses}
    return axes.pop() if len(axes) == 1 else "position"


def _row(d: Diagnosis) -> list[str]:
    """The cells of a run; of the split that decided."""
    rows: Sequence[Evidence] = next((s.evidence for s in d.splits if s.split == d.split), ())
    by_role = {e.role: e for e in rows}
    chosen = by_role.get("chosen")
    changes = [_change(by_role[role]) if role in by_role else "—" for role in _ROLES]
    n = "" if chosen is None else str(chosen.n)
    unit = "" if chosen is None else {"reward": "β·nats"}.get(chosen.unit, chosen.unit)
    return [d.run.name, d.verdict, d.split, n, *changes, unit]


def _change(e: Evidence) -> str:
    sign = "+" if e.change.effect >= 0 else ""
    return f"{sign}{number(e.change.effect)} ({e.direction})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    """Text that stays text in Markdown."""
    for mark in "\\|<>*_`[]":
        text = text.replace(mark, "\\" + mark) if mark not in "<>" else text
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
