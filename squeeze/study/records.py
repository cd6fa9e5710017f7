"""Records of finished phases: their probes and the trainer's log, kept apart from their weights.

A directory of records goes with the repository or between machines: what stands in it is not
trained again. Machines that take different seeds of a study merge their records by copying them
together; a file is complete or absent (written beside, then renamed; no locks, so that network
file systems do).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squeeze.files import read_json, write_json
from squeeze.training.arms import Arm
from squeeze.training.runner import ArmTrainer, Phases, phases_key
from squeeze.trajectory import Trajectory


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

    def log(self, phases: Phases) -> list[dict[str, float]]:
        """TRL's log of the last of these phases."""
        found: list[dict[str, float]] = read_json(self._log_file(phases))
        return found

    def keep(self, arm: Arm, arms: ArmTrainer) -> None:
        """Record a finished arm: each phase's log before its probes, which say that it is there."""
        for length in range(len(arm.phases) + 1):
            phases = arm.phases[:length]
            if self._rows_file(phases).exists():
                continue
            if phases:
                log: Any = read_json(arms.place(phases).directory / "log.json")
                write_json(self._log_file(phases), log)
            arms.rows(phases).write(self._rows_file(phases))
