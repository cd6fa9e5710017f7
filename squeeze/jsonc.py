"""JSON as people write it: comments (`//`, `#`, `/* */`) and commas before a closing bracket."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from squeeze.errors import InputError

_STRING = r'"(?:\\.|[^"\\])*"'
_COMMENT = re.compile(rf"({_STRING})|//[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
_COMMA = re.compile(rf"({_STRING})|,(?=\s*[}}\]])", re.DOTALL)


def _blank(found: re.Match[str]) -> str:
    """The string as it is; anything else as blanks, so that error positions stay true."""
    return found[1] or re.sub(r"[^\n]", " ", found[0])


def strip_comments(text: str) -> str:
    """Return the text with comments and needless commas blanked; strings are left alone."""
    return _COMMA.sub(_blank, _COMMENT.sub(_blank, text))


def read(path: Path) -> Any:
    """Read JSON with comments; raise `InputError` naming the file if it is missing or malformed."""
    try:
        return json.loads(strip_comments(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON ({error})") from error
