"""JSON as people write it: comments (`//`, `#`, `/* */`) and commas before a closing bracket."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from squeeze.errors import InputError

# A string or comment that nobody closes ends with the text: every character is read once.
_STRING = r'"(?:\\.|[^"\\])*+(?:"|\\?\Z)'
_COMMENT = re.compile(rf"({_STRING})|//[^\n]*|#[^\n]*|/\*(?:.*?\*/|.*\Z)", re.DOTALL)
MOST_BYTES = 50_000_000
_COMMA = re.compile(rf"({_STRING})|,(?=\s*[}}\]])", re.DOTALL)


def _blank(found: re.Match[str]) -> str:
    """The string as it is; anything else as blanks, so that error positions stay true."""
    return found[1] or re.sub(r"[^\n]", " ", found[0])


def strip_comments(text: str) -> str:
    """Return the text with comments and needless commas blanked; strings are left alone."""
    return _COMMA.sub(_blank, _COMMENT.sub(_blank, text))


def read(path: Path) -> Any:
    """Read JSON with comments; raise `InputError` naming the file if it is missing or malformed."""
    if path.exists() and (not path.is_file() or path.stat().st_size > MOST_BYTES):
        raise InputError(f"{path} must be a file of at most {MOST_BYTES:,} bytes")
    try:
        return json.loads(strip_comments(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except RecursionError:
        raise InputError(f"{path} is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON ({error})") from error
