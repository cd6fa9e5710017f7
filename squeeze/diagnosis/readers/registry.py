"""Registry of log readers: a decorator on each reader's function, and the source that it is given.

A reader is a module of this package with a recogniser and a parser. Nothing lists them: the package
imports its modules, and the first that recognises a source reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from squeeze.diagnosis.readers import text as texts
from squeeze.diagnosis.readers.records import Table
from squeeze.diagnosis.series import RunSeries

Found = list[Table] | list[RunSeries] | None
Read = Callable[["Source"], Found]


@dataclass(frozen=True)
class Source:
    """A file or directory that a user gives; its text is read once, and within bounds."""

    path: Path

    @classmethod
    def of_lines(cls, path: Path, lines: texts.Lines) -> Source:
        """Lines that were found inside of a file, as if they were one."""
        source = cls(path)
        source.__dict__["_bounded"] = ([(n, line) for n, line in lines if line.strip()], "")
        return source

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.path.is_dir()

    @property
    def suffix(self) -> str:
        """The file's suffix in lower case, without a ".gz" behind it."""
        return Path(self.path.name.lower().removesuffix(".gz")).suffix

    @cached_property
    def head(self) -> bytes:
        """The first bytes of a file; none of a directory."""
        if self.is_directory:
            return b""
        with self.path.open("rb") as file:
            return file.read(4096)

    @cached_property
    def _bounded(self) -> tuple[texts.Lines, str]:
        return texts.read_lines(self.path)

    @property
    def lines(self) -> texts.Lines:
        """Numbered lines that are not blank."""
        return self._bounded[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of a file that is too long."""
        return (self._bounded[1],) if self._bounded[1] else ()

    @cached_property
    def text(self) -> str:
        """The whole text."""
        return "\n".join(line for _, line in self.lines)

    @cached_property
    def uncommented(self) -> texts.Lines:
        """The lines without those that are comments; all of them where every line is one."""
        return [(n, line) for n, line in self.lines if not texts.is_comment(line)] or self.lines

    @cached_property
    def document(self) -> Any:
        """The parsed JSON; raises `ValueError` if it is none."""
        return texts.parse_json("\n".join(line for _, line in self.uncommented))


@dataclass(frozen=True)
class Reader:
    """A log family: its name, how it is recognised, what reads it, and which are asked before it.

    `read` may return None: then it was not of this family after all, and the next is asked.
    """

    name: str
    recognise: Callable[[Source], bool]
    read: Read
    order: int


_readers: dict[str, Reader] = {}


def reader(
    name: str, *, recognise: Callable[[Source], bool], order: int = 50
) -> Callable[[Read], Read]:
    """Register the decorated function as the reader of a log family.

    Families that a name or the first bytes give away have a low `order`, guesses a high one.
    """

    def register(read: Read) -> Read:
        _readers[name] = Reader(name, recognise, read, order)
        return read

    return register


def readers() -> list[Reader]:
    """Every reader, in the order in which they are asked."""
    return sorted(_readers.values(), key=lambda r: (r.order, r.name))
