"""Engine of an experiment on many machines: its phases as Ray's tasks, over one shared directory.

Ray starts each phase once, after the phase that it begins from, and again where a worker dies; it
then goes on at its last probe. The directory must be one file system of all machines that renames
atomically (NFS does); no file of it is locked, as such locks are not to be trusted there, so one
engine at a time works on a directory. What a phase is stays `training.runner`'s.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import runpy
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from squeeze import interrupt
from squeeze.errors import InputError
from squeeze.study.seed_run import Experiment
from squeeze.training.config import RunConfig
from squeeze.training.inputs import Pairs
from squeeze.training.runner import phases_key

ENGINES = ("local", "ray")
WORKERS = "workers.jsonl"  # beside a phase's files: a line for each worker that began it
_NO_CLUSTER = (
    "no Ray cluster answers at {} ({}); start one with ray start --head, or leave out --address to "
    "use this machine"
)
_RETRIES = 3  # of a phase whose worker died


@dataclass(frozen=True)
class Seed:
    """One seed's experiment, as a worker builds it: `pairs` as for `Experiment`."""

    config: RunConfig
    arms: tuple[str, ...]
    pairs: Pairs | None = None

    def prefixes(self) -> dict[str, tuple[str, int]]:
        """Each phase once, after those it begins from: an arm that has it, and its number there."""
        found: dict[str, tuple[str, int]] = {}
        for name in self.arms:
            phases = self.config.arm(name).phases
            for length in range(len(phases) + 1):
                found.setdefault(phases_key(phases[:length]), (name, length))
        return found


@dataclass(frozen=True)
class Plan:
    """What an engine is going to do."""

    seeds: tuple[Seed, ...]
    store: Path
    plugin: Path | None = None

    def __str__(self) -> str:
        """Arms, phases, epochs and disk, in one line."""
        arms = sum(len(seed.arms) for seed in self.seeds)
        last = [
            seed.config.arm(name).phases[length - 1]
            for seed in self.seeds
            for name, length in seed.prefixes().values()
            if length
        ]
        free = shutil.disk_usage(_existing(self.store)).free / 1e9
        return (
            f"{arms} arms on {len(self.seeds)} seeds: {len(last)} phases (shared ones once), "
            f"{sum(phase.epochs for phase in last)} epochs; {free:.0f} GB are free in {self.store}"
        )


Engine = Callable[[Plan], dict[str, str]]  # trains a plan; the arms that it could not, and why


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)


def check_engine(engine: str, address: str | None) -> None:
    """Raise `InputError` for an engine that there is not, or that is not installed."""
    if engine not in ENGINES:
        raise InputError(f"--engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if engine == "local" and address is not None:
        raise InputError("--address is Ray's; add --engine ray")
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise InputError("Ray is not installed; run: pip install 'dpo-squeeze[ray]'")


def train_on_ray(
    plan: Plan,
    gpus: float | None = None,
    said: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> dict[str, str]:
    """Within `cluster`, train a plan; the arms that could not be trained, with the reason.

    Each phase takes one CPU and `gpus` GPUs (None: one, where the cluster has any; Ray hides them
    from a phase that takes none). `said(done, total, what)` is told of each finished phase.
    Raises `InputError` where no arm could be trained, as where a worker sees another directory
    than this process or not the model.
    """
    import ray

    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
    with _marked(plan.store) as mark:
        begin = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(_phase)
        running: dict[Any, str] = {}
        ends: dict[tuple[int, str], Any] = {}
        for number, seed in enumerate(plan.seeds):
            before: dict[str, Any] = {}
            for key, (name, length) in seed.prefixes().items():
                phases = seed.config.arm(name).phases
                parent = before.get(phases_key(phases[: length - 1])) if length else None
                before[key] = begin.remote(plan, number, name, length, mark, parent)
                running[before[key]] = f"seed {seed.config.seed}, {name}, phase {length}"
            for name in seed.arms:
                ends[number, name] = before[phases_key(seed.config.arm(name).phases)]
        total, waiting = len(running), list(running)
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=1.0)
            interrupt.stop_if_requested()
            for one in ready:
                ray.get(one)
                said(total - len(waiting), total, running[one])
        reasons = {key: ray.get(end) for key, end in ends.items()}
    missing = {name: reason for (_, name), reason in reasons.items() if reason is not None}
    if len(missing) == len({name for _, name in reasons}):
        raise InputError(next(iter(missing.values())))
    return missing


@contextmanager
def cluster(address: str | None = None) -> Iterator[None]:
    """Join a Ray cluster ("auto" on a machine of it); None starts Ray on this machine alone.

    Raises `InputError` where none answers, and for a phase that fails in no way of its own.
    """
    import ray

    if address is not None and (place := re.search(r"([^/@]+):(\d+)$", address)) is not None:
        try:  # Ray itself would try for minutes
            socket.create_connection((place[1], int(place[2])), timeout=10).close()
        except OSError as error:
            raise InputError(_NO_CLUSTER.format(address, error)) from error
    try:
        ray.init(address=address or "local", include_dashboard=False, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(_NO_CLUSTER.format(address or "this machine", error)) from error
    try:
        yield
    except ray.exceptions.RayError as error:
        raise InputError(
            f"a phase failed on its worker, {_RETRIES} times if the worker died ({error}); what "
            "was trained is kept: type the same command again"
        ) from error
    finally:
        ray.shutdown()


@contextmanager
def _marked(store: Path) -> Iterator[str]:
    """A file in the store that every worker must see."""
    store.mkdir(parents=True, exist_ok=True)
    mark = store / f".engine-{uuid.uuid4().hex}"
    mark.touch()
    try:
        yield mark.name
    finally:
        mark.unlink()


def _phase(
    plan: Plan, number: int, name: str, length: int, mark: str, failed: str | None
) -> str | None:
    """On a worker: train phase `length` of an arm (0: score the model); why not, or None.

    `failed` is why the phase before was not trained.
    """
    if failed is not None:
        return failed
    seed, host = plan.seeds[number], platform.node()
    if not (plan.store / mark).exists():
        return (
            f"the worker {host} does not see {plan.store} as this machine does; it must be on "
            "a file system that all machines share (--out, or SQUEEZE_CACHE for observe)"
        )
    try:
        if plan.plugin is not None:
            _load_once(plan.plugin)
        experiment = Experiment(seed.config, seed.pairs, cache=plan.store, locks=False)
        place = experiment.arms.place(seed.config.arm(name).phases[:length]).directory
        place.mkdir(parents=True, exist_ok=True)
        with (place / WORKERS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"host": host, "pid": os.getpid()}) + "\n")
        experiment.train(name, length=length)
    except InputError as error:
        return f"{error} (on {host})"
    return None


@cache
def _load_once(plugin: Path) -> None:
    """A worker trains several phases, and a loss is registered once."""
    runpy.run_path(str(plugin))
