"""The directory of one phase: its checkpoints, and once it is finished its adapter."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from squeeze.cache import damaged, seal
from squeeze.files import parse_json

_BETWEEN = "between-probes"  # marks a checkpoint after whose step no probe was due
_TORCH_FILES = ("optimizer.pt", "scheduler.pt")
_KEPT = 2  # the newest, and one to fall back on


@dataclass(frozen=True)
class PhasePlace:
    """Where a phase keeps its checkpoints and, once finished, its adapter."""

    directory: Path

    @property
    def adapter(self) -> Path:
        """The finished phase's adapter; exists only when complete."""
        return self.directory / "adapter"

    @property
    def data(self) -> Path:
        """What several processes train on, for as long as they do."""
        return self.directory / "data"

    def checkpoint(self, step: int) -> Path:
        """The trainer's checkpoint after an optimizer step."""
        return self.directory / f"checkpoint-{step}"

    def steps(self) -> list[int]:
        """The steps of all checkpoints, in their order (a clock may have stepped back)."""
        names = (path.name.rpartition("-")[2] for path in self.directory.glob("checkpoint-*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def mark_between(self, step: int) -> None:
        """Note that no probe was due after this checkpoint's step, so none is missing."""
        (self.checkpoint(step) / _BETWEEN).touch()
        self.seal(step)

    def seal(self, step: int) -> None:
        """Note the checksums of a checkpoint, but of what other processes may still be writing."""
        names = (path.name for path in self.checkpoint(step).glob("*"))
        seal(self.checkpoint(step), [name for name in names if not name.startswith("rng_state")])

    def empty(self) -> None:
        """Remove everything but the lock."""
        for path in self.directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def resume_step(self, probed: Iterable[int]) -> int | None:
        """The newest checkpoint to go on from: whole, and with all probes until there on disk.

        `probed` are the steps whose probes are. None is the phase's start.
        """
        known = set(probed)
        for step in reversed(self.steps()):
            place = self.checkpoint(step)
            if (step in known or (place / _BETWEEN).exists()) and is_whole(place, step):
                return step
        return None

    def keep_until(self, step: int | None) -> None:
        """Remove the checkpoints after `step` (None: all), which are not gone on from."""
        for later in self.steps():
            if step is None or later > step:
                shutil.rmtree(self.checkpoint(later))

    def keep_newest(self) -> None:
        """Remove all checkpoints but the newest by step, and one to fall back on."""
        for old in self.steps()[:-_KEPT]:
            shutil.rmtree(self.checkpoint(old))


def is_whole(checkpoint: Path, step: int) -> bool:
    """Whether a trainer's checkpoint holds all that an exact resumption needs, none of it cut."""
    try:
        state = parse_json((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        weights = [*checkpoint.glob("*.safetensors")]
        for path in weights:
            with safe_open(path, framework="pt"):  # reads the header, which knows the size
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    archives = [checkpoint / name for name in _TORCH_FILES] + [*checkpoint.glob("rng_state*.pth")]
    return (
        isinstance(state, dict)
        and state.get("global_step") == step
        and bool(weights)
        and len(archives) > len(_TORCH_FILES)
        and all(zipfile.is_zipfile(path) for path in archives)
        and damaged(checkpoint) is None
    )
