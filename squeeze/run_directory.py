"""A run's directory: who may use it, what is already there, and how far the run got."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from squeeze.errors import InputError
from squeeze.files import read_json, write_json, write_text
from squeeze.trajectory import Trajectory

FILES = (
    "trajectory.parquet",
    "run.json",
    "verdicts.json",
    "samples.json",
    "report.md",
    "index.html",
    "config.yaml",
    "seed.json",
    "seed.png",
)


def _flag(field: str) -> str:
    """The command-line option of a configuration field."""
    return "--" + field.replace("_", "-")


class RunDirectory:
    """The files of one run. `work/` inside it holds what is only needed to resume."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trajectory_file = path / "trajectory.parquet"
        self.run_file = path / "run.json"
        self.work = path / "work"

    def open(self, config: Mapping[str, Any], *, resume: bool, force: bool) -> dict[str, Any]:
        """Check that this run may use the directory; what `run.json` already says ({} if new).

        With `force` an earlier run does not matter; `clear` removes it once the new one is ready.

        Raises `InputError` when it cannot be written, holds another run, or holds files of
        somebody else.
        """
        self._check_writable()
        if not self.run_file.exists():
            if any(self.path.iterdir()):
                raise InputError(
                    f"--out {self.path} holds files that are not a run of squeeze; choose an empty "
                    "or new directory"
                )
            return {}
        if force:
            return {}
        if not resume:
            raise InputError(
                f"--out {self.path} already holds a run; pass --resume to go on with it, --force "
                "to start over, or another --out"
            )
        known: dict[str, Any] = read_json(self.run_file)
        before = known.get("config", {})
        differing = [key for key in config if before.get(key) != config[key]]
        if differing:
            changes = ", ".join(
                f"{_flag(k)} was {before.get(k)!r}, now {config[k]!r}" for k in differing
            )
            raise InputError(
                f"--out {self.path} holds a run with another configuration ({changes}); resume "
                "with the same options, or pass another --out"
            )
        return known

    def _check_writable(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot create --out {self.path} ({error.strerror})") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise InputError(
                f"no permission to write in --out {self.path}; choose another directory"
            )

    def clear(self) -> None:
        """Remove what a run of ours left, and nothing else."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.rmtree(self.path / "figures", ignore_errors=True)
        for name in FILES:
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

    def write_run(self, value: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        write_json(self.run_file, value)

    def trajectory(self) -> Trajectory:
        """The trajectory so far."""
        if self.trajectory_file.exists():
            return Trajectory.read(self.trajectory_file)
        return Trajectory.empty()
