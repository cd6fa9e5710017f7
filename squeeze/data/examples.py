"""The data station's type: one preference example. Reading files is `formats`' work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Message:
    """One turn of a conversation, with TRL's field names."""

    role: str
    content: str


@dataclass(frozen=True)
class PreferenceExample:
    """A prompt with a chosen and a rejected response, and optionally more responses by kind.

    `prompt` is the conversation up to the answer (the last message is the user's, as a rule);
    `responses` maps a response kind of `families` ("chosen_rephrased", ...) to its text.
    `rejected` is empty in instruction data, which serve SFT alone (`demonstrations`).
    """

    id: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    responses: Mapping[str, str] = field(default_factory=dict)
