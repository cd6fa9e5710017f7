"""Preference examples, the data station's type; reading files is `sources`' work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from squeeze.data.rows import RowError


@dataclass(frozen=True)
class Message:
    """One turn of a conversation, with TRL's field names."""

    role: str
    content: str


Turns = tuple[Message, ...]


@dataclass(frozen=True)
class PreferenceExample:
    """A prompt with a chosen and a rejected response, and optionally more responses by kind.

    `prompt` is the conversation up to the answer (the last message is the user's, as a rule);
    `responses` maps a response kind of `probe_set` ("chosen_rephrased", ...) to its text.
    `rejected` is empty in instruction data, which serve SFT alone (`demonstrations`).
    `rejected_prompt` is the rejected answer's own conversation where it is another one than the
    chosen answer's (`--divergent last-turns`); such pairs are converted, not trained on.
    """

    id: str
    prompt: Turns
    chosen: str
    rejected: str
    responses: Mapping[str, str] = field(default_factory=dict)
    rejected_prompt: Turns | None = None


@lru_cache(maxsize=1)  # a conversion asks for a pair's id when it reads and when it writes it
def content_id(prompt: Turns, chosen: str, rejected: str) -> str:
    """An id that depends on the pair alone: the same in any file, at any place."""
    content = json.dumps([[(m.role, m.content) for m in prompt], chosen, rejected])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def make_example(
    identity: str | None,
    prompt: Turns,
    chosen: str,
    rejected: str,
    responses: Mapping[str, str] | None = None,
    rejected_prompt: Turns | None = None,
) -> PreferenceExample:
    """A checked pair; every way of reading a row ends here.

    Raises `RowError` for an empty prompt or response, and when chosen and rejected are the same.
    """
    for turns in (prompt, rejected_prompt or prompt):
        if not turns or not turns[-1].content.strip():
            raise RowError("empty prompt", "has an empty prompt")
        if turns[-1].role == "assistant":
            raise RowError(
                "prompt ends with an answer", "has a prompt that ends with the assistant"
            )
    for name, value in (("chosen", chosen), ("rejected", rejected)):
        if not value.strip():
            raise RowError(f"empty {name}", f"has an empty {name!r} response")
    if chosen == rejected:
        raise RowError("chosen equals rejected", "has the same text as 'chosen' and 'rejected'")
    identity = identity or content_id(prompt, chosen, rejected)
    return PreferenceExample(
        identity, prompt, chosen, rejected, dict(responses or {}), rejected_prompt
    )
