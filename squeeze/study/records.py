"""Records of finished phases: their probes and the trainer's log, kept apart from their weights.

A directory of records goes with the repository or between machines: what stands in it is not
trained again. Machines that take different seeds of a study merge their records by copying them
together; a file is complete or absent (written beside, then renamed; no locks, so that network
file systems do).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter

from squeeze.cache import locked, say_damaged
from squeeze.errors import InputError
from squeeze.files import having, read_as, write_json, write_text
from squeeze.training.arms import Arm
from squeeze.training.runner import ArmTrainer, Phases, phases_key
from squeeze.trajectory import Trajectory

_AGAIN = "delete it, and it is made again; if it came from elsewhere, copy it from there again"
_Log = list[dict[str, float]]
_LOG: TypeAdapter[_Log] = TypeAdapter(list[Annotated[dict[str, float], having("epoch")]])
T = TypeVar("T")


class _Kept(BaseModel, Generic[T]):
    """What `kept` writes."""

    recipe: dict[str, Any]
    result: T


def read_log(path: Path) -> _Log:
    """TRL's log of a phase; raises `InputError` where the file is not one."""
    return read_as(path, _LOG, _AGAIN)


@dataclass(frozen=True)
class Records:
    """The records of one experiment; `directory` bears its key."""

    directory: Path

    def _rows_file(self, phases: Phases) -> Path:
        return self.directory / f"{phases_key(phases)}.parquet"

    def _log_file(self, phases: Phases) -> Path:
        return self.directory / f"{phases_key(phases)}.log.json"

    def holds(self, arm: Arm) -> bool:
        """Whether every phase of an arm is recorded, so that nothing of it need be trained."""
        return all(self._rows_file(arm.phases[:n]).exists() for n in range(len(arm.phases) + 1))

    def rows(self, phases: Phases) -> Trajectory:
        """The probes of the last of these phases; of the untrained model if there are none."""
        return Trajectory.read(self._rows_file(phases))

    def log(self, phases: Phases) -> _Log:
        """TRL's log of the last of these phases."""
        return read_log(self._log_file(phases))

    def keep(self, arm: Arm, arms: ArmTrainer) -> None:
        """Record a finished arm: each phase's log before its probes, which say that it is there."""
        for length in range(len(arm.phases) + 1):
            phases = arm.phases[:length]
            if self._rows_file(phases).exists():
                continue
            if phases:
                log = read_log(arms.place(phases).directory / "log.json")
                write_json(self._log_file(phases), log)
            arms.rows(phases).write(self._rows_file(phases))


def kept(
    name: str,
    recipe: Mapping[str, Any],
    make: Callable[[], Any],
    cache: Path,
    records: Path | None = None,
    recorded: bool = False,
    shape: Any = Any,
) -> Any:
    """What `make` returns (JSON), or what it returned when it was called with this recipe before.

    It is read from `records` or `cache` (directories) as the type `shape`, and written to both;
    what is damaged in the cache is made again. With `recorded` nothing is made. Raises `InputError`
    where a record is damaged, and with `recorded` where there is none.
    """
    places = [] if records is None else [records]
    for directory in places:
        if (found := _stored(directory / name, recipe, shape)) is not None:
            return found.result
    if recorded:
        raise InputError(f"{name} is not in {records}, or of another recipe; leave out --recorded")
    with locked(cache / name):
        try:
            found = _stored(cache / name, recipe, shape)
        except InputError:
            say_damaged(cache / name)
            found = None
        result = make() if found is None else TypeAdapter(shape).dump_python(found.result)
        for directory in (cache, *places):
            directory.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"recipe": dict(recipe), "result": result})
            write_text(directory / name, text + "\n")
    return TypeAdapter(shape).validate_python(result)


def _stored(path: Path, recipe: Mapping[str, Any], shape: Any) -> Any:  # a `_Kept`, or None
    if not path.is_file():
        return None
    if read_as(path, TypeAdapter(_Kept[Any]), _AGAIN).recipe != dict(recipe):
        return None
    return read_as(path, TypeAdapter(_Kept[shape]), _AGAIN)
