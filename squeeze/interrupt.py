"""Signals that ask a command to stop: the step in hand is finished, and the next start goes on.

A cluster sends SIGTERM, a person SIGINT (Ctrl-C). Inside `interruptible` the first one is noted,
and whoever trains asks `requested()` where stopping loses nothing; the second stops at once.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from squeeze.distributed import is_main, on_main

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_received: signal.Signals | None = None


class Interrupted(SystemExit):
    """A command that stopped because a signal asked for it; its exit code is 128 + the signal."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(128 + received)
        self.received = received


class Terminated(BaseException):
    """SIGTERM outside of a training; no handler of `Exception` keeps it from ending a command."""


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # the second one stops at once
    raise Terminated


def _default_in_child() -> None:
    with suppress(ValueError):  # not its main thread
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_default_in_child)


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` in the block on SIGTERM, so that nothing half written stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def requested() -> bool:
    """Whether to stop where it is safe; of several processes the main one's answer holds."""
    return on_main(lambda: _received is not None)


def stop_if_requested() -> None:
    """Raise `Interrupted` where a signal has asked for it; a safe place is the caller's to know."""
    if requested():
        raise Interrupted(_received or signal.SIGTERM)


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    received = signal.Signals(number)
    if _received is not None:  # the second: as if there were no handler
        signal.signal(received, signal.SIG_DFL)
        os.kill(os.getpid(), received)
        return
    _received = received
    if is_main():
        text = f"\nsqueeze: {received.name}: stopping after the step in hand; again to stop now\n"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())


def again(*options: str) -> str:
    """This command as it was given, with these options and not --force: what goes on with it."""
    given = [word for word in sys.argv[1:] if word != "--force" and word not in options]
    return shlex.join(["squeeze", *given, *options])


@contextmanager
def interruptible(resume: str) -> Iterator[None]:
    """Let signals stop the block where it is safe; then say in one line how to `resume`."""
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    _received, before = None, {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, _note)
    try:
        yield
    except Interrupted as stopped:
        if is_main():
            print(
                f"squeeze: stopped by {stopped.received.name}; go on with: {resume}",
                file=sys.stderr,
            )
        raise
    finally:
        _received = None
        for number, handler in before.items():
            signal.signal(number, handler)
