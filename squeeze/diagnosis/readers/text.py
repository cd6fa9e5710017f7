"""Text of a log file, whatever wrote it: encodings, line ends, gzip, JSON as trainers print it.

Whatever its size, a file is read within bounds: of a longer one every k-th block of lines, with a
note.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from squeeze.errors import InputError

Lines = list[tuple[int, str]]

KEPT = 16 * 2**20  # characters of lines that are looked at
WHOLE = 256 * 2**20  # characters of a document, of which no line can be left out
BLOCK = 64  # lines; what a trainer prints at a step stands in one of them, progress bars between
LONGEST = 64 * 2**20  # of a single line: a whole JSON document may be one
LARGEST = 4 * 2**30  # bytes, unpacked
BLANK = 1_000_000  # lines on end
PACKED, RATIO = 64 * 2**20, 200  # a gzip file may unpack to as many bytes, or so many times
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GZIP = b"\x1f\x8b"
_CHUNK = 2**20
# What JSON has otherwise: Python's strings and words, commas before a bracket. JSON's own strings
# are matched too, to be left as they are.
_OTHERWISE = re.compile(
    r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|,(?=\s*[}\]])'
    r"|(?<=[{,\s])\d{1,18}(?=\s*:)|(?<![\w.])(-?)(nan|inf(?:inity)?|none|null|true|false)(?![\w.])",
    re.IGNORECASE,
)
_IN_JSON = {"nan": "NaN", "none": "null", "null": "null", "true": "true", "false": "false"}
_COMMENT = re.compile(r"\s*(?:#|//)")
# The minus before a number as typesetters have it: its own sign, a dash, another hyphen.
_MINUS = re.compile(r"[\u2212\u2013\uff0d\u2011](?=[\d.]|inf|nan)", re.IGNORECASE)
# What terminals are told between the text: colours, "cursor up".
_ESCAPE = re.compile(r"\x1b\[[0-9;?]{0,16}[A-Za-z]")


def read_lines(path: Path) -> tuple[Lines, str]:
    r"""Numbered lines that are not blank, and a note if some were left out.

    UTF-8, UTF-16 with its mark (PowerShell's), or gzip of it; "\r" ends a line too (progress bars).
    Bytes that are none of these but hold no NUL are taken as Latin-1: a log's names and numbers are
    ASCII. Of a file with more than `KEPT` characters the first line and every k-th block are kept.
    Raises `InputError` for what is no regular file, cannot be read, holds no text, is empty or too
    large.
    """
    require_file(path)
    try:
        kept, total, every = _thinned(path)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({why})") from error
    if not kept:
        raise InputError(f"{path} is empty")
    if every == 1:
        return kept, ""
    return kept, f"of {total} lines every {every}th was read, in blocks, as the file is long"


def read_text(path: Path) -> str:
    """The text of `read_lines`, with blank lines left out."""
    return "\n".join(line for _, line in read_lines(path)[0])


def require_file(path: Path) -> None:
    """Raise `InputError` for a pipe, a device or a socket, which may never end, and nothing."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        kind = "a pipe" if stat.S_ISFIFO(about.st_mode) else "a device or socket"
        raise InputError(f"{path} is {kind}; write what it gives into a file, and give that")
    if about.st_size == 0:  # or of /proc, where reading may wait for ever
        raise InputError(f"{path} is empty")


def regular(paths: Iterable[Path]) -> list[Path]:
    """Those that are files, sorted: opening a pipe of the same name would wait for ever."""
    return sorted(path for path in paths if path.is_file())


def _thinned(path: Path) -> tuple[Lines, int, int]:
    """The kept lines, how many there are, and which share was kept: 1 in `every`."""
    kept: Lines = []
    size, number, every, blank = 0, 0, 1, 0
    for number, line in enumerate(_decoded(path), 1):
        blank = 0 if line.strip() else blank + 1
        if blank == BLANK:
            raise InputError(f"{path} has {BLANK:,} blank lines up to line {number}; is it a log?")
        if not line.strip() or (every > 1 and kept and number // BLOCK % every):
            continue
        kept.append((number, line))
        size += len(line) + 60
        if size > KEPT and _is_document(path, kept[0][1]):
            if size > WHOLE:
                raise InputError(
                    f"{path} is a document of more than {WHOLE // 2**20} million characters; give "
                    "the log as JSON Lines or CSV, of which a share can be read"
                )
            continue
        while size > KEPT and len(kept) > 2:
            every *= 2
            kept = [kept[0], *((n, line) for n, line in kept[1:] if n // BLOCK % every == 0)]
            size = sum(len(line) + 60 for _, line in kept)
    return kept, number, every


def _is_document(path: Path, first: str) -> bool:
    """Whether a file is one document, JSON over many lines or a page, rather than a log."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    return suffix in (".json", ".ipynb", ".html", ".htm") or first.strip() in ("{", "[")


def _decoded(path: Path) -> Iterator[str]:
    """The file's lines."""
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
    with gzip.open(path) if packed else path.open("rb") as file:
        most = max(PACKED, RATIO * path.stat().st_size) if packed else LARGEST
        yield from _lines(path, file, min(most, LARGEST))  # type: ignore[arg-type]


def _lines(path: Path, file: IO[bytes], most: int) -> Iterator[str]:
    encoding = "utf-8-sig"
    decoder: codecs.IncrementalDecoder | None = None
    rest: list[str] = []
    waiting, read = 0, 0
    while chunk := file.read(_CHUNK):
        read += len(chunk)
        if read > most:
            size = f"{LARGEST // 2**30} GB" if most == LARGEST else f"{RATIO} times its size"
            raise InputError(
                f"{path} is larger than {size} unpacked; give a part of it, or its summary"
            )
        if decoder is None:
            encoding = "utf-16" if chunk.startswith(_UTF16) else encoding
            decoder = codecs.getincrementaldecoder(encoding)()
        try:
            text = decoder.decode(chunk)
        except UnicodeDecodeError as error:
            decoder = codecs.getincrementaldecoder("latin-1")()
            text = chunk.decode("latin-1")
            _require_text(path, text, error.start)
        _require_text(path, text, 0)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        *whole, last = text.split("\n")
        for line in whole:
            yield _clean("".join(rest) + line)
            rest, waiting = [], 0
        rest.append(last)
        waiting += len(last)
        if waiting > LONGEST:
            raise InputError(
                f"{path} has a line of more than {LONGEST // 2**20} million characters, so it is "
                "no log; give JSON Lines or CSV"
            )
    if rest:
        yield _clean("".join(rest))


def _require_text(path: Path, text: str, at: int) -> None:
    if "\0" in text:
        raise InputError(
            f"{path} is not UTF-8 text (byte {at}); is it a log, and not weights or an archive?"
        )


def _clean(line: str) -> str:
    line = _ESCAPE.sub("", line) if "\x1b" in line else line
    return line if line.isascii() else _MINUS.sub("-", line)


def is_comment(line: str) -> bool:
    """Whether a line is a comment of a table or a JSON document."""
    return _COMMENT.match(line) is not None


def parse_json(text: str) -> Any:
    """JSON with what other writers put into it; raises `ValueError` if it is not.

    NaN and infinity as bare tokens in any spelling, commas behind the last item, and Python's
    literals of lists and dicts (single quotes, None, True).
    """
    try:
        try:
            return json.loads(text)
        except ValueError:
            mended = _OTHERWISE.sub(_as_json, text)
            if mended == text:
                raise
            return json.loads(mended)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _as_json(found: re.Match[str]) -> str:
    token = found[0]
    if token.isdigit():  # a key
        return f'"{token}"'
    if token[0] == "'":
        return json.dumps(re.sub(r"\\(.)", r"\1", token[1:-1]))
    if found[2] is None:
        return "" if token == "," else token
    return _IN_JSON.get(found[2].lower(), f"{found[1]}Infinity")
