"""Commands and Python examples of the documentation, as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "AGENTS")]
PAGES += sorted(ROOT.glob("docs/*.md"))
PROGRAMS = (
    "squeeze|pytest|python|make|pip|uv|torchrun|accelerate|ruff|mypy|lint-imports|git|pre-commit"
)
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:{PROGRAMS})(?: .*)?")
FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A block of a page: its language ("" where it has none) and its text, without the indent."""

    page: str
    language: str
    text: str


def blocks(page: Path) -> tuple[list[Block], str]:
    """Fenced and indented blocks of a page, and the rest of its text."""
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(ROOT))
    found = [Block(name, language, body) for language, body in FENCE.findall(text)]
    rest = FENCE.sub("\n", text)
    found += [Block(name, "", re.sub("^    ", "", b, flags=re.M)) for b in INDENTED.findall(rest)]
    return found, INDENTED.sub("\n", rest)


def commands() -> dict[str, str]:
    """Every command of the documentation, and the first page that has it.

    Of blocks each line that begins with a program, parts of `&&` apart, without its comment; of the
    text what stands in backticks and begins with one. A bare `squeeze` or `pytest` is a name.
    """
    found: dict[str, str] = {}
    for page in PAGES:
        inside, rest = blocks(page)
        for block in inside:
            if block.language != "python":
                for line in _lines(block.text):
                    found.setdefault(line, block.page)
        for span in INLINE.findall(rest):
            line = " ".join(span.split())
            if COMMAND.fullmatch(line) and " " in line:
                found.setdefault(line, str(page.relative_to(ROOT)))
    return found


def _lines(text: str) -> Iterator[str]:
    """Commands of a block: continued lines joined, comments cut."""
    text = re.sub(r"\\?\n {5,}|\\\n", " ", text)  # a synopsis goes on far to the right
    for line in text.splitlines():
        for part in re.sub(r"\s#.*", "", line).split(" && "):
            command = " ".join(part.split()).removeprefix("$ ")
            if COMMAND.fullmatch(command):
                yield command


def examples() -> list[Block]:
    """Every Python example of the documentation."""
    starts = ("import ", "from ", "trainer = ")
    return [
        block
        for page in PAGES
        for block in blocks(page)[0]
        if block.language == "python" or (not block.language and block.text.startswith(starts))
    ]
