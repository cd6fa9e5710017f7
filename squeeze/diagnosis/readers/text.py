"""A log file's text, whatever wrote it: encodings, line ends, gzip, JSON as trainers print it."""

from __future__ import annotations

import codecs
import gzip
import json
import re
from pathlib import Path
from typing import Any

from squeeze.errors import InputError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GZIP = b"\x1f\x8b"
# Strings are matched too, to be left as they are.
_BARE = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![\w.])(-?)(nan|inf(?:inity)?)(?![\w.])', re.IGNORECASE)


def read_text(path: Path) -> str:
    r"""The text with "\n" at line ends; UTF-8, UTF-16 with its mark (PowerShell's), or gzip of it.

    Bytes that are none of these but hold no NUL are taken as Latin-1: a log's names and numbers are
    ASCII. Raises `InputError` for a file that cannot be read, holds no text, or is empty.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({why})") from error
    text = _decoded(path, data).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise InputError(f"{path} is empty")
    return text


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise InputError(
                f"{path} is not UTF-8 text (byte {error.start}); is it a log, and not weights or "
                "an archive?"
            ) from error
    return data.decode("latin-1")


def parse_json(text: str) -> Any:
    """JSON with NaN and infinity as bare tokens in any spelling; raises `ValueError` if it is not.

    Python writes NaN, other loggers nan, inf and -inf.
    """
    try:
        try:
            return json.loads(text)
        except ValueError:
            mended = _BARE.sub(_spelled, text)
            if mended == text:
                raise
            return json.loads(mended)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _spelled(found: re.Match[str]) -> str:
    if found[2] is None:
        return found[0]
    return "NaN" if found[2].lower() == "nan" else f"{found[1]}Infinity"
