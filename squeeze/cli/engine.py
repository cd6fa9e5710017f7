"""Engines on the command line: the plan, a live table of its phases, a line a phase in a pipe."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from squeeze.study.engine import Engine, Plan, Row

Engines = Annotated[str, typer.Option(help="local, or ray or slurm: arms on many machines.")]
Address = Annotated[str | None, typer.Option(help="Of the Ray cluster; auto on a machine of it.")]
GpusPerArm = Annotated[
    float | None, typer.Option(help="On an engine; with ray one by default, where there are any.")
]
Slurm = Annotated[
    str | None,
    typer.Option(help="submitit's parameters: slurm_partition=gpu,timeout_min=240."),
]
_SHOWN = 30  # rows of the table


@contextmanager
def engine_of(
    name: str,
    address: str | None,
    gpus: float | None,
    slurm: str | None,
    console: Any,
    plugin: Path | None = None,
) -> Iterator[Engine | None]:
    """What trains a plan elsewhere, shown on the console; None for "local"."""
    from squeeze.study.engine import train
    from squeeze.study.workers import check_engine, workers_of

    check_engine(name, address, slurm)
    if name == "local":
        yield None
        return
    with workers_of(name, address, gpus, slurm) as workers:

        def elsewhere(plan: Plan) -> dict[str, str]:
            plan = replace(plan, plugin=plugin and plugin.absolute())
            console.print(str(plan), soft_wrap=True, markup=False)
            with shown(console) as said:
                return train(plan, workers, said)

        yield elsewhere


@contextmanager
def shown(console: Any) -> Iterator[Any]:
    """A function that shows rows: a live table on a terminal, else a line when a phase ends."""
    from rich.live import Live

    start, told = time.monotonic(), set[Any]()

    def lines(rows: Sequence[Row]) -> None:
        for row in rows:
            if row.state in ("done", "failed") and row not in told:
                told.add(row)
                console.print(_line(row, len(told), len(rows)), soft_wrap=True, markup=False)

    if not console.is_terminal:
        yield lines
        return
    with Live(console=console, refresh_per_second=2) as live:
        yield lambda rows: live.update(table(rows, time.monotonic() - start))


def _line(row: Row, done: int, total: int) -> str:
    took = f"in {row.seconds:.0f} s" if row.state == "done" else row.reason
    where = f" on {row.host}" if row.host else ""
    return f"{done} of {total}: {row}: {row.state}{where}, {took}"


def table(rows: Sequence[Row], elapsed: float) -> Any:
    """The phases that run, failed or wait, those that are done counted, and the time left."""
    from rich.markup import escape
    from rich.table import Table

    count = Counter[str](row.state for row in rows)
    states = [state for state in ("done", "running", "waiting", "failed") if count[state]]
    said = ", ".join(f"{count[state]} {state}" for state in states)
    total, done = sum(row.epochs for row in rows), sum(row.epoch for row in rows)
    if 0 < done < total:
        said += f"; about {(total - done) * elapsed / done / 3600:.2g} h left"
    found = Table("seed", "arm", "phase", "state", "epoch", "seconds", "on", caption=said)
    order = ("failed", "running", "waiting", "done")
    for row in sorted(rows, key=lambda row: order.index(row.state))[:_SHOWN]:
        state = "queued" if row.state == "running" and not row.host else row.state
        cells = [row.arm, row.kind, state, f"{row.epoch:g} of {row.epochs}"]
        cells += [f"{row.seconds:.0f}" if row.seconds else "", row.reason or row.host]
        found.add_row(str(row.seed), *map(escape, cells))
    return found
