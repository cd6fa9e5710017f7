"""A run's directory: who may use it, what is already there, and how far the run got.

`RunRecord` is the type of `run.json`, which only this module reads and writes.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import yaml
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from squeeze.errors import InputError
from squeeze.files import read_json, write_json, write_text
from squeeze.provenance import environment
from squeeze.provenance import now as now
from squeeze.trajectory import Trajectory

REPLICATE = "squeeze replicate"
FILES = (
    "trajectory.parquet",
    "verdicts.json",
    "samples.json",
    "report.md",
    "index.html",
    "config.yaml",
    "curves.json",
    "curves.png",
    "seed.json",  # what curves.* were called
    "seed.png",
)
_LOCK, _HOLDER = ".lock", ".holder.json"


@dataclass
class RunRecord:
    """What `run.json` says of a run. Fields that do not apply to a run are None and not written.

    `seconds` is the time by stage; `arms`, `model` and `data` describe what was trained on what;
    `scoring` says in which numeric type; `not_run` lists what was left out and why. `more` holds
    what a command says beyond that.
    """

    SCHEMA: ClassVar[int] = 1

    name: str
    config: dict[str, Any]
    command: str | None = None
    status: str = "running"
    created: str = field(default_factory=now)
    updated: str | None = None
    finished: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    arms: list[dict[str, Any]] | None = None
    model: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    scoring: dict[str, Any] | None = None
    not_run: list[dict[str, Any]] | None = None
    versions: dict[str, str] | None = None
    device: str | None = None
    git: str | None = None
    processes: int | None = None
    peak_memory_mb: dict[str, float] | None = None
    every: int | None = None
    overhead: dict[str, float] | None = None
    verdict: str | None = None
    headline: str | None = None
    tone: str | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read a `run.json`; raise `InputError` naming the field that is not as it should be."""
        value = read_json(path)
        if not isinstance(value, dict) or value.get("schema") != cls.SCHEMA:
            raise InputError(
                f"{path} is no run.json of this squeeze (schema {cls.SCHEMA}); pass another --out"
            )
        own = {f.name for f in fields(cls)} - {"more"}
        more = {key: v for key, v in value.items() if key not in own | {"schema"}}
        try:
            record: RunRecord = _RECORD.validate_python(
                {k: v for k, v in value.items() if k in own} | {"more": more}
            )
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(
                f"{path}, field {place}: {first['msg']}; the file was damaged or edited: put it "
                "back as it was, or start over with --force"
            ) from None
        return record

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON holds it, schema first."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "more"}
        known = {key: value for key, value in values.items() if value is not None}
        return {"schema": self.SCHEMA} | known | self.more

    def write(self, path: Path) -> None:
        """Write `run.json`."""
        write_json(path, self.as_dict())

    def update_environment(self) -> None:
        """Note versions, device and git revision."""
        facts = environment()
        self.versions, self.device, self.git = facts["versions"], facts["device"], facts["git"]

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Count time spent at a stage."""
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 2)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the block's time at a stage."""
        start = time.perf_counter()
        yield
        self.add_seconds(stage, time.perf_counter() - start)


_RECORD = TypeAdapter(RunRecord)


class RunDirectory:
    """The files of one run of a command. `work/` inside it holds what is only needed to resume."""

    def __init__(self, path: Path, command: str = REPLICATE, files: Sequence[str] = FILES) -> None:
        self.path, self.command, self.files = path, command, tuple(files)
        self.trajectory_file = path / "trajectory.parquet"
        self.run_file = path / "run.json"
        self.work = path / "work"
        self._hold = ExitStack()

    def open(self, config: Mapping[str, Any], *, resume: bool, force: bool) -> RunRecord | None:
        """Take the directory for this run; what `run.json` already says (None if new).

        With `force` an earlier run does not matter; `clear` removes it once the new one is ready.
        `close` gives the directory back, and so does the end of the process.

        Raises `InputError` when it cannot be written, another process is at it, it holds another
        run, or files of somebody else.
        """
        if resume and force:
            raise InputError("--resume goes on with a run and --force starts it over; give one")
        try:
            self._hold.enter_context(held(self.path))
            return self._known(config, resume=resume, force=force)
        except InputError:
            self.close()
            raise

    def _known(self, config: Mapping[str, Any], *, resume: bool, force: bool) -> RunRecord | None:
        if not self.run_file.exists():
            if any(p.name not in (_LOCK, _HOLDER) for p in self.path.iterdir()):
                raise InputError(
                    f"--out {self.path} holds files that are not a run of squeeze; choose an empty "
                    "or new directory"
                )
            return None
        known = RunRecord.read(self.run_file)
        if not self._ours(known):
            raise InputError(
                f"--out {self.path} holds a run of another command than {self.command}; choose an "
                "empty or new directory"
            )
        self._sweep()
        if force:
            return None
        if not resume:
            raise InputError(
                f"--out {self.path} already holds a run; pass --resume to go on with it, --force "
                "to start over, or another --out"
            )
        differing = [k for k in {**known.config, **config} if known.config.get(k) != config.get(k)]
        if differing:
            changes = ", ".join(
                f"{flag(k)} was {known.config.get(k)!r}, now {config.get(k)!r}" for k in differing
            )
            raise InputError(
                f"--out {self.path} holds a run with another configuration ({changes}); resume "
                "with the same options, or pass another --out"
            )
        return known

    def _ours(self, known: RunRecord) -> bool:
        """Whether this command made the run; the main job's records once did not say so."""
        unsaid = known.command is None and "sft_epochs" in known.config
        return known.command == self.command or (unsaid and self.command == REPLICATE)

    def close(self) -> None:
        """Give the directory back, and remove it if it was made for nothing."""
        self._hold.close()

    def _sweep(self) -> None:
        sweep(self.path, (*self.files, "run.json"))
        for place in (self.work, self.path / "figures"):
            for path in place.rglob(".*.*"):
                if path.is_file():
                    path.unlink()

    def clear(self) -> None:
        """Remove what a run of ours left, and nothing else; what tells it to be ours last."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.rmtree(self.path / "figures", ignore_errors=True)
        for name in (*self.files, "run.json"):
            (self.path / name).unlink(missing_ok=True)

    def require_space(self, needed: int) -> None:
        """Raise `InputError` unless `needed` bytes are free for checkpoints."""
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise InputError(
                f"--out {self.path} has {free / 1e6:.0f} MB free, but checkpoints need "
                f"{needed / 1e6:.0f} MB; free some space or choose another directory"
            )

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the full configuration, in the form that --config reads."""
        write_text(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))

    def trajectory(self) -> Trajectory:
        """The trajectory so far."""
        if self.trajectory_file.exists():
            return Trajectory.read(self.trajectory_file)
        return Trajectory.empty()


@contextmanager
def held(out: Path) -> Iterator[None]:
    """The directory of --out, made if need be, and in nobody else's use while the block runs.

    The system unlocks what a dead process held; a directory that was made for nothing is removed.
    Raises `InputError` where it cannot be made or written, or another process is at it.
    """
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create --out {out} ({error.strerror})") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise InputError(f"no permission to write in --out {out}; choose another directory")
    lock, holder = FileLock(out / _LOCK, blocking=False), out / _HOLDER
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"--out {out} is in use by {_said(holder)}; wait for it, or pass another --out"
        ) from None
    try:
        write_json(holder, {"pid": os.getpid(), "host": socket.gethostname(), "since": now()})
        yield
    finally:
        holder.unlink(missing_ok=True)
        (out / _LOCK).unlink(missing_ok=True)
        lock.release()
        if made and not any(out.iterdir()):
            out.rmdir()


def sweep(directory: Path, names: Iterable[str]) -> None:
    """Remove the temporary files that a killed process left of files with these names."""
    for name in names:
        for path in directory.glob(f".{name}.*"):
            if path.is_file():
                path.unlink()


def flag(field: str) -> str:
    """The command-line option of a configuration field."""
    return "--" + field.replace("_", "-")


def _said(holder: Path) -> str:
    """Who holds a directory, as far as its note says."""
    try:
        note = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {note['pid']} on {note['host']} since {note['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
