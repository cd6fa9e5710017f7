"""Terminal guard: what data, names and libraries say cannot steer the terminal, nor stop a command.

Colours and the movements of our own progress bars pass; other control characters are shown.
"""

from __future__ import annotations

import io
import re
import sys
from typing import Any

# Colours, erasing a line, one line up, the cursor on and off: what rich writes.
_OURS = r"\x1b\[[0-9;]*m|\x1b\[[0-9]*[AGK]|\x1b\[\?25[lh]"
_CONTROL = re.compile(rf"({_OURS})|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with control characters written out, but for line breaks, tabs and rich's own."""
    return _CONTROL.sub(lambda found: found[1] or ascii(found[0])[1:-1], text)


class _Guarded:
    """A terminal that is written to with `visible`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_streams() -> None:
    """Let standard output and error show what they cannot encode, and guard terminals.

    Files and pipes get the text as it is.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        if stream is not None and not isinstance(stream, _Guarded) and stream.isatty():
            setattr(sys, name, _Guarded(stream))
