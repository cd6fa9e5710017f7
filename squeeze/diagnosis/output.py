"""A diagnosis as JSON (schema in docs/diagnosis.md) and as text for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from squeeze.diagnosis.movements import Evidence
from squeeze.diagnosis.remedies import MEANING, Remedy, remedies
from squeeze.diagnosis.series import ARGMAX
from squeeze.diagnosis.severity import Name, worst
from squeeze.diagnosis.trend import Change
from squeeze.diagnosis.verdict import Diagnosis, SplitVerdict
from squeeze.tables import print_table

SCHEMA = 1
STYLES: dict[Name, str] = {
    "healthy": "green",
    "undetermined": "yellow",
    "no learning": "yellow",
    "early": "yellow",
    "displacement": "red",
    "lazy displacement": "red",
    "entropy collapse": "bold red",
    "length collapse": "bold red",
    "repetition collapse": "bold red",
    "squeezing": "bold red",
    "collapse": "bold red",
}


def to_json(diagnoses: Sequence[Diagnosis], ledger: Path | None = None) -> dict[str, Any]:
    """One run as an object with its `verdict`; several as `runs` beside the worst `verdict`."""
    runs = [_run_json(d, ledger) for d in diagnoses]
    if len(runs) == 1:
        return {"schema": SCHEMA} | runs[0]
    return {"schema": SCHEMA, "verdict": worst(d.verdict for d in diagnoses), "runs": runs}


def _run_json(d: Diagnosis, ledger: Path | None = None) -> dict[str, Any]:
    return {
        "verdict": d.verdict,
        "run": d.run.name,
        "source": d.run.source,
        "format": d.run.format,
        "axis": d.run.axis,
        "phase": d.run.phase,
        "split": d.split,
        "reason": d.reason,
        "findings": [asdict(f) for f in d.findings],
        "meaning": MEANING[d.verdict],
        "cautions": list(d.cautions),
        "missing": list(d.missing),
        "notes": list(_notes(d)),
        "splits": [_split_json(s) for s in d.splits],
        "remedies": [asdict(r) for r in _remedies(d, ledger)],
    }


def _split_json(s: SplitVerdict) -> dict[str, Any]:
    return {
        "split": s.split,
        "verdict": s.verdict,
        "reason": s.reason,
        "cautions": list(s.cautions),
        "evidence": [_evidence_json(e) for e in s.evidence],
    }


def _evidence_json(e: Evidence) -> dict[str, Any]:
    return {
        "series": e.role,
        "column": e.column,
        "split": e.split,
        "unit": e.unit or "as logged",
        "n": e.n,
        "start": e.start,
        "peak": e.peak,
        "peak_step": e.peak_step,
        "end": e.end,
        "direction": e.direction,
        "change": _change_json(e.change),
        "fall_from_peak": _change_json(e.fall),
        "relative_change": e.relative,
        "reference": e.reference,
    }


def _change_json(c: Change) -> dict[str, Any]:
    interval = None if c.interval is None else list(c.interval)
    return {"effect": c.effect, "interval": interval, "p": c.p}


def _remedies(d: Diagnosis, ledger: Path | None = None) -> list[Remedy]:
    known = any(s.quantity == ARGMAX for s in d.run.series) and not any(
        f.kind == "argmax" for f in d.findings
    )
    return remedies(d.verdict, ledger, known, d.advice)


def _notes(d: Diagnosis) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*d.run.notes, *(n for s in d.splits for n in s.notes))))


# --- terminal -------------------------------------------------------------------------------------


def print_diagnosis(d: Diagnosis, console: Console, ledger: Path | None = None) -> None:
    """Verdict, what it means, the evidence, and what to do, for a person."""
    line = Text.assemble(
        (d.run.name, "bold"), ": ", (d.verdict.upper(), STYLES[d.verdict]), f" — {d.reason}"
    )
    if d.split:
        line.append(f" [{d.split}]")
    console.print(line)
    console.print(Text(f"{d.run.source} ({d.run.format})", style="dim"), soft_wrap=True)
    _print_list(console, "First, the log itself", [str(f) for f in d.findings])
    console.print()
    console.print(MEANING[d.verdict])
    for split in d.splits:
        if split.evidence:
            print_table(_table(split, d.run.axis), console)
    for title, sentences in (
        ("But", d.cautions),
        ("Not in the log", d.missing),
        ("Notes", _notes(d)),
    ):
        _print_list(console, title, sentences)
    _print_remedies(d, console, ledger)


def _table(split: SplitVerdict, axis: str) -> Table:
    name = f"{split.split} split" if split.split else "evidence"
    table = Table(title=f"{name}: {split.verdict}", title_justify="left", show_edge=False)
    for column in ("series", "n", "start", f"peak (at {axis})", "end"):
        table.add_column(column, justify="left" if column == "series" else "right")
    table.add_column("change [95%]", justify="right")
    table.add_column("from peak [95%]", justify="right")
    table.add_column("unit")
    table.add_column("")
    for e in split.evidence:
        cells = (
            e.role.removeprefix("other:"),
            str(e.n),
            number(e.start) + ("" if e.reference is None else f" (ref. {number(e.reference)})"),
            f"{number(e.peak)} ({e.peak_step:.5g})",
            number(e.end),
            _interval(e.change),
            _interval(e.fall),
            {"reward": "β·nats"}.get(e.unit, e.unit),
            e.direction,
        )
        table.add_row(*map(Text, cells))  # "[unknown]" is no markup
    return table


def _interval(c: Change) -> str:
    if c.interval is None:
        return f"{c.effect:+.3g} [unknown]"
    return f"{c.effect:+.3g} [{c.interval[0]:+.3g}, {c.interval[1]:+.3g}]"


def number(value: float) -> str:
    """A value with four significant digits, without an exponent where it can be avoided."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}"


def _print_list(console: Console, title: str, sentences: Sequence[str]) -> None:
    if sentences:
        console.print()
        console.print(Text(title, style="bold"))
        for sentence in sentences:
            console.print(Text(f"  - {sentence}"))


def _print_remedies(d: Diagnosis, console: Console, ledger: Path | None = None) -> None:
    found = _remedies(d, ledger)
    if not found:
        return
    console.print()
    console.print(Text("What to do, in this order", style="bold"))
    for i, remedy in enumerate(found, 1):
        backing = f" ({remedy.claim}: {remedy.status})" if remedy.claim else ""
        console.print(Text(f"  {i}. {remedy.action}: {remedy.how}{backing}"))


SHOWN_ANSWERS = 2


def print_tokens(entries: Sequence[dict[str, Any]], console: Console) -> None:
    """Where along the most squeezed chosen answers the mass went, and which tokens gained most.

    `entries` are those of samples.json.
    """
    from squeeze.report.tokens import token_view, visible  # its package draws figures, slowly

    for entry in entries[:SHOWN_ANSWERS]:
        view = token_view(entry, 1.0)
        console.print()
        title = f"chosen answer of {view.example}: {view.change:+.1f} nats"
        if view.losing:
            title += f"; half of the loss on {view.half} of {len(view.tokens)} tokens"
        table = Table(title=escape(title), title_justify="left", show_edge=False)
        for column in ("token", "position", "before", "after", "change", "favourite after"):
            left = column in ("token", "favourite after")
            table.add_column(column, justify="left" if left else "right")
        for t in (*view.largest, *view.gained):
            text, logp = t.favourite_after
            table.add_row(
                Text(visible(t.text)),
                str(t.position),
                f"{t.before:.2f}",
                f"{t.after:.2f}",
                f"{t.change:+.2f}",
                Text(f"{visible(text)} ({logp:.2f})"),
            )
        print_table(table, console)
