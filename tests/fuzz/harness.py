"""Calls of the `squeeze` command in this process, and what every call must keep, whatever it read.

`Outcome.faults` is empty for a command that behaved: an exit code that means something, bad input
in one sentence without a traceback, in bounded time and memory, nothing half written left behind.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from unittest.mock import patch

SECONDS = 60.0
MEGABYTES = 2000.0
CODES = {0, 1, 2, 130, 143}
_STATUS = Path("/proc/self/status")


class TooLong(BaseException):
    """A command that was stopped after `SECONDS`; no handler of ours may catch it."""


@dataclass(frozen=True)
class Outcome:
    """What a command did. `megabytes` is the most memory the process held meanwhile."""

    argv: tuple[str, ...]
    code: int | None
    stdout: str
    stderr: str
    seconds: float
    megabytes: float
    litter: tuple[str, ...]

    @property
    def faults(self) -> list[str]:
        """What is wrong with it, in words."""
        said = self.stderr.strip()
        found = []
        if self.code is None:
            found.append(f"stopped after {SECONDS:g} s")
        elif self.code not in CODES:
            found.append(f"exit code {self.code}")
        if "Traceback (most recent call last)" in self.stderr + self.stdout:
            found.append("traceback: " + said.splitlines()[-2 if self.code == 70 else -1][:300])
        if self.code == 2 and not _is_a_sentence(said):
            found.append(f"exit code 2 without a sentence: {said[-300:]!r}")
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said.replace("\r", "")):
            found.append(f"control characters reach the terminal: {said[-300:]!r}")
        if self.megabytes > MEGABYTES:
            found.append(f"{self.megabytes:.0f} MB")
        if self.litter:
            found.append(f"left behind: {', '.join(self.litter)}")
        return found


def _is_a_sentence(said: str) -> bool:
    """Whether the last line is ours; a wrong option is typer's, in a box or after "Error:"."""
    last = said.splitlines()[-1] if said else ""
    return last.startswith("squeeze: ") or "Error" in said or "Usage:" in said


def invoke(argv: Sequence[object], directory: Path) -> Outcome:
    """Run `squeeze ARGV` with `directory` as the working directory."""
    from squeeze.cli import main

    given = tuple(str(word) for word in argv)
    out, err = _stream(), _stream()
    _forget_peak()
    start, code = time.perf_counter(), None
    with (
        _within(directory),
        patch.object(sys, "argv", ["squeeze", *given]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                with _limit():
                    main()
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
            except TooLong:
                pass
    seconds = time.perf_counter() - start
    litter = sorted(p.name for p in directory.rglob(".*.*") if p.is_file() and p.suffix != ".lock")
    texts = [stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err)]
    return Outcome(given, code, *texts, seconds, _peak(), tuple(litter))


def _stream() -> io.TextIOWrapper:
    """A stream as a terminal's: strict UTF-8, so that what cannot be printed is an error."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


@contextlib.contextmanager
def _within(directory: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _limit() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """The most memory since `_forget_peak`, in MB; 0 where the system does not tell."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0
