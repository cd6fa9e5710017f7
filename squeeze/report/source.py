"""Reading a run directory, with nothing taken for granted: what is absent stays empty.

Only a trajectory or a diagnosis is needed; a report of another source (a log, a row of checkpoints)
may have nothing else. No numbers are computed here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squeeze.claims.types import Verdict, verdict_from
from squeeze.errors import InputError
from squeeze.files import read_as
from squeeze.report.schemas import SCHEMAS
from squeeze.report.summary import Scores
from squeeze.trajectory import Trajectory

VERDICTS_SCHEMA = 2  # of verdicts.json


@dataclass(frozen=True)
class Arm:
    """An arm's name, its title and its phases (dicts with `kind`, `on`, `epochs`, ...)."""

    name: str
    title: str
    phases: tuple[dict[str, Any], ...] = ()

    @property
    def recipe(self) -> str:
        """Its phases in words, or an empty string."""
        return ", then ".join(_phase(phase) for phase in self.phases)


def _phase(phase: dict[str, Any]) -> str:
    name = str(phase.get("kind", "training")).upper()
    on = phase.get("on")
    words = f" on {' and '.join(map(str, on)) if isinstance(on, list | tuple) else on}"
    epochs = phase.get("epochs")
    return (
        name
        + (words if on else "")
        + (f" ({epochs:g} epoch{'' if epochs == 1 else 's'})" if epochs is not None else "")
    )


@dataclass(frozen=True)
class RunData:
    """A run directory's contents; `run` is `run.json`, `verdicts` is None when not run.

    `diagnoses` are the runs of `diagnosis.json`.
    """

    directory: Path
    scores: Scores
    arms: tuple[Arm, ...]
    run: dict[str, Any] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] | None = None
    tokens: tuple[dict[str, Any], ...] = ()
    generations: tuple[dict[str, Any], ...] = ()
    diagnoses: tuple[dict[str, Any], ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def trajectory(self) -> Trajectory:
        """The scores as they were read."""
        return self.scores.trajectory

    @property
    def name(self) -> str:
        """The run's name, else its directory's."""
        return str(self.run.get("name") or self.directory.resolve().name)

    @property
    def from_log(self) -> bool:
        """Whether there is a diagnosis and no score of an example, as of a trainer's log."""
        return bool(self.diagnoses) and self.trajectory.frame.empty

    @property
    def start(self) -> str:
        """What changes are counted from."""
        if "base" in self.section("model"):
            return "the base model"
        dpo = any(self.scores.timeline(arm.name).has_dpo for arm in self.arms)
        return "the start of DPO" if dpo else "the start of training"

    @property
    def running(self) -> bool:
        """Whether the run says that it has not ended."""
        return self.run.get("status") == "running"

    def section(self, key: str) -> dict[str, Any]:
        """A sub-object of `run.json`, empty when absent; a bare value is kept as its `name`."""
        value = self.run.get(key)
        if isinstance(value, dict):
            return value
        return {} if value is None else {"name": value}


def _verdict(path: Path, fields: dict[str, Any]) -> Verdict:
    try:
        return verdict_from(fields)
    except ValueError as error:
        raise InputError(
            f"{path} holds a malformed verdict ({error}); {SCHEMAS[path.name][1]}"
        ) from error


def _object(path: Path) -> dict[str, Any] | None:
    """The file's object as its schema has it, None if there is no file."""
    if not path.exists():
        return None
    found: dict[str, Any] = read_as(path, *SCHEMAS[path.name])
    return found


def _arms(run: dict[str, Any], trajectory: Trajectory) -> tuple[Arm, ...]:
    """Declared arms that have scores, in their order, then undeclared ones."""
    declared = [a if isinstance(a, dict) else {"name": a} for a in run.get("arms") or []]
    scored = trajectory.arms()
    arms = [
        Arm(str(a["name"]), str(a.get("title") or ""), tuple(a.get("phases") or ()))
        for a in declared
        if a.get("name") in scored
    ]
    known = {arm.name for arm in arms}
    return (*arms, *(Arm(name, "") for name in scored if name not in known))


def read_run(directory: Path) -> RunData:
    """Read a run directory.

    Raises `InputError` when it has neither trajectory nor diagnosis, or a file that is not as its
    schema has it.
    """
    if not directory.is_dir():
        raise InputError(f"{directory} is no directory; give the one that a run wrote")
    parquet = directory / "trajectory.parquet"
    diagnosis = _object(directory / "diagnosis.json")
    if not parquet.exists() and diagnosis is None:
        raise InputError(
            f"{directory} holds no trajectory.parquet, so there is nothing to report; "
            "give the directory that a run wrote"
        )
    trajectory = Trajectory.read(parquet) if parquet.exists() else Trajectory.empty()
    found = {n: _object(directory / n) for n in ("run.json", "verdicts.json", "samples.json")}
    if (found["verdicts.json"] or {}).get("schema") != VERDICTS_SCHEMA:
        found["verdicts.json"] = None  # of an earlier version, in whose words two outcomes were one
    run, verdicts, samples = found.values()
    return RunData(
        directory=directory,
        scores=Scores(trajectory),
        arms=_arms(run or {}, trajectory),
        run=run or {},
        verdicts=None
        if verdicts is None
        else tuple(_verdict(directory / "verdicts.json", v) for v in verdicts.get("verdicts", [])),
        tokens=tuple((samples or {}).get("tokens", [])),
        generations=tuple((samples or {}).get("generations", [])),
        diagnoses=tuple((diagnosis or {}).get("runs", [])),
        absent=tuple(name for name, value in found.items() if value is None),
    )
