"""Origin of a run's numbers: time, versions, device, git revision, memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

PACKAGES = ("torch", "transformers", "trl", "peft")


def now() -> str:
    """The time of day in UTC, as run.json and the ledger hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def this_device() -> str:
    """Name the GPU this process has initialised, else the CPU with torch's number of threads."""
    machine = f"{platform.machine()} CPU"
    torch = sys.modules.get("torch")
    if torch is None:
        return machine  # a check that never imported torch is not worth the seconds it takes
    # is_initialized, because a check that never touched the GPU ran on the CPU.
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return f"{machine}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a verdict may depend on."""
    installed = {found.name: found.version for found in metadata.distributions()}
    packages = {name: installed[name] for name in PACKAGES if name in installed}
    return {"python": platform.python_version()} | packages


def git_revision() -> str | None:
    """The current directory's git revision, "-dirty" if tracked files differ; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def environment() -> dict[str, Any]:
    """Versions, device and git revision, as `run.json` holds them."""
    return {
        "versions": {"squeeze": metadata.version("dpo-squeeze")} | versions(),
        "device": this_device(),
        "git": git_revision(),
    }


def peak_memory_mb() -> dict[str, float]:
    """The most memory this process has held so far, in MB: resident, and allocated on the GPU."""
    import torch

    peaks = {}
    if sys.platform != "win32":
        import resource

        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000  # Linux counts in KB
        peaks["resident"] = round(resident, 1)
    if torch.cuda.is_available():
        peaks["gpu"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return peaks
