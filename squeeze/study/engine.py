"""Engine of an experiment on many machines: its phases as jobs of workers, over one directory.

A phase is a job, begun after the phase that it begins from; where a worker dies it is begun again
and goes on at its last probe. The directory must be one file system of all machines that renames
atomically (NFS does); no file of it is locked, as such locks are not to be trusted there, so one
engine at a time works on a directory. Who the workers are is `workers`', what a phase is
`training.runner`'s.
"""

from __future__ import annotations

import json
import os
import platform
import runpy
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import PositiveInt, TypeAdapter

from squeeze import interrupt
from squeeze.errors import InputError
from squeeze.files import read_as, write_json
from squeeze.study.seed_run import Experiment
from squeeze.training.config import RunConfig
from squeeze.training.inputs import Pairs
from squeeze.training.runner import phases_key

WORKERS = "workers.jsonl"  # beside a phase's files: a line for each worker that began it
MEASURED = "measured.json"  # beside a finished phase's: what it took
RETRIES = 3  # of a phase whose worker died
_SAID = TypeAdapter(tuple[str, float])  # by a worker: its host, and the epoch it is at


@dataclass(frozen=True)
class _Measured:
    model: str
    seconds: float
    epochs: PositiveInt
    bytes: int


_MEASURED = TypeAdapter(_Measured)


@dataclass(frozen=True)
class Seed:
    """One seed's experiment, as a worker builds it: `pairs` as for `Experiment`."""

    config: RunConfig
    arms: tuple[str, ...]
    pairs: Pairs | None = None


@dataclass(eq=False)
class Row:
    """A phase of a plan as it goes: `length` counts the phases of `arm` up to it (0: none).

    `number` is the seed's place in the plan, `after` the row that it begins from. `host` and
    `epoch` are its worker's last word, `seconds` since its first.
    """

    number: int
    seed: int
    arm: str
    length: int
    key: str
    kind: str
    epochs: int
    after: Row | None
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    host: str = ""
    epoch: float = 0.0
    since: float = 0.0
    seconds: float = 0.0
    reason: str = ""
    deaths: int = 0

    def __str__(self) -> str:
        """What it is, in a few words."""
        return f"seed {self.seed}, {self.arm}, {self.kind}"


@dataclass(frozen=True)
class Plan:
    """What an engine is going to do."""

    seeds: tuple[Seed, ...]
    store: Path
    plugin: Path | None = None

    def rows(self) -> list[Row]:
        """Every phase once, each after the one that it begins from."""
        found: dict[tuple[int, str], Row] = {}
        for number, seed in enumerate(self.seeds):
            for name in seed.arms:
                phases = seed.config.arm(name).phases
                before: Row | None = None
                for length in range(len(phases) + 1):
                    key = phases_key(phases[:length])
                    last = phases[length - 1] if length else None
                    what = (last.kind, last.epochs) if last else ("untrained model", 0)
                    row = Row(number, seed.config.seed, name, length, key, *what, before)
                    before = found.setdefault((number, key), row)
        return list(found.values())

    def __str__(self) -> str:
        """Arms, phases, epochs, hours and disk, in one line."""
        arms = sum(len(seed.arms) for seed in self.seeds)
        phases = [row for row in self.rows() if row.length]
        free = shutil.disk_usage(_existing(self.store)).free / 1e9
        return (
            f"{arms} arms on {len(self.seeds)} seeds: {len(phases)} phases (shared ones once), "
            f"{sum(row.epochs for row in phases)} epochs; {self._projected(phases)}; "
            f"{free:.0f} GB are free in {self.store}"
        )

    def _projected(self, phases: Sequence[Row]) -> str:
        """Hours and disk, as finished phases of these models in the store took."""
        models, found = {seed.config.model for seed in self.seeds}, []
        for path in self.store.glob(f"*/*/{MEASURED}"):
            with suppress(InputError):  # damaged: it is only an estimate
                one = read_as(path, _MEASURED, "delete it")
                if one.model in models:
                    found.append((one.seconds, one.epochs, one.bytes))
        if not found:
            return "hours and disk are known once a phase of the model is finished here"
        seconds, epochs, size = map(sum, zip(*found, strict=True))
        an_epoch = seconds / epochs
        hours = sum(row.epochs for row in phases) * an_epoch / 3600
        gigabytes = len(phases) * size / len(found) / 1e9
        return (
            f"about {hours:.2g} hours of one worker and {gigabytes:.2g} GB where all are new "
            f"({len(found)} phases here took {an_epoch:.3g} s an epoch)"
        )


Engine = Callable[[Plan], dict[str, str]]  # trains a plan; the arms that it could not, and why
Call = tuple[Plan, int, str, int, str]  # the arguments of `phase`


def train_missing(
    engine: Engine, experiments: Iterable[Experiment], arms: Sequence[str]
) -> dict[str, str]:
    """Train what is missing of these arms; those that could not be trained, with the reason."""
    left = [one for one in experiments if not all(map(one.is_trained, arms))]
    if not left:
        return {}
    seeds = tuple(Seed(one.config, tuple(arms), one.pairs) for one in left)
    return engine(Plan(seeds, left[0].directory.parent.absolute()))


class WorkerDiedError(Exception):
    """A worker that ended without an answer."""


@runtime_checkable
class Workers(Protocol):
    """Those who do the phases: a job is a call of `phase`, on some machine."""

    def begin(self, calls: Sequence[Call]) -> list[Any]:
        """Start a job a call."""

    def ended(self, jobs: Sequence[Any]) -> list[Any]:
        """Those that ended, after a second's wait at most."""

    def answer(self, job: Any) -> str | None:
        """What the call returned; raises `WorkerDiedError` where nothing came."""


def train(
    plan: Plan, workers: Workers, said: Callable[[Sequence[Row]], object] = lambda rows: None
) -> dict[str, str]:
    """Train a plan; the arms that could not be trained, with the reason.

    `said(rows)` is told about once a second how the phases stand. Raises `InputError` where no arm
    could be trained, as where a worker sees another directory than this process or not the model,
    and for a phase whose workers keep dying.
    """
    rows, jobs = plan.rows(), dict[Any, Row]()
    with _marked(plan.store) as mark:
        while True:
            ready = _ready(rows)
            calls = [(plan, row.number, row.arm, row.length, mark.name) for row in ready]
            for row, job in zip(ready, workers.begin(calls) if calls else (), strict=True):
                row.state, row.since, jobs[job] = "running", time.monotonic(), row
            said(rows)
            if not jobs:
                break
            ended = workers.ended(list(jobs))
            _follow(jobs.values(), mark)
            for job in ended:
                _end(jobs.pop(job), workers, job)
            interrupt.stop_if_requested()
    found = {(row.number, row.key): row.reason for row in rows}
    missing: dict[str, str] = {}
    for number, seed in enumerate(plan.seeds):
        for name in seed.arms:
            if reason := found[number, phases_key(seed.config.arm(name).phases)]:
                missing[name] = reason
    if missing and missing.keys() == {name for seed in plan.seeds for name in seed.arms}:
        raise InputError(next(iter(missing.values())))
    return missing


def _ready(rows: Iterable[Row]) -> list[Row]:
    """The rows that can begin; those whose beginning failed have failed as well."""
    found = []
    for row in rows:
        if row.state == "waiting" and (row.after is None or row.after.state == "done"):
            found.append(row)
        elif row.state == "waiting" and row.after is not None and row.after.state == "failed":
            row.state, row.reason = "failed", row.after.reason
    return found


def _end(row: Row, workers: Workers, job: Any) -> None:
    try:
        reason = workers.answer(job)
    except WorkerDiedError as error:
        row.state, row.deaths = "waiting", row.deaths + 1
        if row.deaths > RETRIES:
            raise InputError(
                f"the worker of {row} died {row.deaths} times ({error}); what was trained is kept: "
                "type the same command again"
            ) from error
        return
    row.state, row.reason = ("failed", reason) if reason else ("done", "")
    row.epoch = float(row.epochs)


def _follow(rows: Iterable[Row], mark: Path) -> None:
    """Read what the workers of these rows last wrote; they may still be in a queue."""
    for row in rows:
        waited = not row.host
        with suppress(InputError):  # nothing yet
            row.host, row.epoch = read_as(mark / f"{row.number}-{row.key}", _SAID, "wait")
        if waited:
            row.since = time.monotonic()
        row.seconds = time.monotonic() - row.since


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)


@contextmanager
def _marked(store: Path) -> Iterator[Path]:
    """A directory in the store that every worker must see, for what they say while they work."""
    mark = store / f".engine-{uuid.uuid4().hex}"
    mark.mkdir(parents=True)
    try:
        yield mark
    finally:
        shutil.rmtree(mark, ignore_errors=True)


def phase(plan: Plan, number: int, name: str, length: int, mark: str) -> str | None:
    """On a worker: train phase `length` of an arm (0: score the model); why not, or None."""
    seed, host, said = plan.seeds[number], platform.node(), plan.store / mark
    if not said.exists():
        return (
            f"the worker {host} does not see {plan.store} as this machine does; it must be on "
            "a file system that all machines share (--out, or SQUEEZE_CACHE for observe)"
        )
    try:
        if plan.plugin is not None:
            _load_once(plan.plugin)
        experiment = Experiment(seed.config, seed.pairs, cache=plan.store, locks=False)
        phases = seed.config.arm(name).phases[:length]
        place = experiment.arms.place(phases).directory
        place.mkdir(parents=True, exist_ok=True)
        with (place / WORKERS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"host": host, "pid": os.getpid()}) + "\n")

        def note(*_: object) -> None:
            points = experiment.arms.rows(phases).points("")
            if said.exists():  # else the engine has stopped
                last = points[-1].epoch if points else 0.0
                write_json(said / f"{number}-{phases_key(phases)}", [host, last])

        note()
        experiment.arms.probed = note
        new, start = not experiment.arms.rows(phases).points(""), time.monotonic()
        experiment.train(name, length=length)
        if new and phases:
            seconds, files = time.monotonic() - start, [*place.rglob("*")]
            facts = {"seconds": seconds, "epochs": phases[-1].epochs}
            size = sum(path.stat().st_size for path in files if path.is_file())
            write_json(place / MEASURED, {"model": seed.config.model, **facts, "bytes": size})
    except InputError as error:
        return f"{error} (on {host})"
    return None


@cache
def _load_once(plugin: Path) -> None:
    """A worker trains several phases, and a loss is registered once."""
    runpy.run_path(str(plugin))
