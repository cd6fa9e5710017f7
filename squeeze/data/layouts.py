"""How each data format lays a preference pair out in a row: pure functions row → example and back.

Which format a file has is `formats`' work; nothing here opens files. A parser raises `RowError`
naming the field when a row does not hold a usable pair.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.families import CHOSEN, KINDS, REJECTED
from squeeze.data.rows import Row, RowError

EXTRA_KINDS = tuple(kind for kind in KINDS if kind not in (CHOSEN, REJECTED))


def column(row: Row, name: str) -> Any:
    """The row's value of a column that must be there; raises `RowError` naming it."""
    if row.get(name) is None:
        raise RowError(f"no {name!r}", f"has no {name!r} (columns: {', '.join(row)})")
    return row[name]


def text(value: Any, field: str) -> str:
    """The value as text; raises `RowError` when it is not a string or not valid Unicode."""
    if not isinstance(value, str):
        raise RowError("not a string", f"has a {type(value).__name__} in {field!r}, not a string")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise RowError("not Unicode", f"has a lone surrogate in {field!r}") from None
    return value


def content_id(prompt: tuple[Message, ...], chosen: str, rejected: str) -> str:
    """An id that depends on the pair alone: the same in any file, at any place."""
    content = json.dumps([[(m.role, m.content) for m in prompt], chosen, rejected])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def row_id(row: Row) -> str | None:
    """The row's own id, if it has one."""
    for name in ("id", "prompt_id"):
        if isinstance(row.get(name), str | int) and str(row[name]).strip():
            return text(str(row[name]), name)
    return None


def example(
    identity: str | None,
    prompt: tuple[Message, ...],
    chosen: str,
    rejected: str,
    responses: Mapping[str, str] | None = None,
) -> PreferenceExample:
    """Check a pair and build the example; every format's parser ends here.

    Raises `RowError` for an empty prompt or response, and when chosen and rejected are the same.
    """
    if not prompt or not prompt[-1].content.strip():
        raise RowError("empty prompt", "has an empty prompt")
    if prompt[-1].role == "assistant":
        raise RowError("prompt ends with an answer", "has a prompt that ends with the assistant")
    for field, value in ((CHOSEN, chosen), (REJECTED, rejected)):
        if not value.strip():
            raise RowError(f"empty {field}", f"has an empty {field!r} response")
    if chosen == rejected:
        raise RowError("chosen equals rejected", "has the same text as 'chosen' and 'rejected'")
    identity = identity or content_id(prompt, chosen, rejected)
    return PreferenceExample(identity, prompt, chosen, rejected, dict(responses or {}))


def extra_responses(row: Row) -> dict[str, str]:
    """The row's columns that are named like response kinds."""
    return {kind: text(row[kind], kind) for kind in EXTRA_KINDS if row.get(kind) is not None}


def parse_trl(row: Row) -> PreferenceExample:
    """TRL's standard preference format, prompt in a column of its own."""
    prompt = (Message("user", text(column(row, "prompt"), "prompt")),)
    chosen = text(column(row, CHOSEN), CHOSEN)
    rejected = text(column(row, REJECTED), REJECTED)
    return example(row_id(row), prompt, chosen, rejected, extra_responses(row))
