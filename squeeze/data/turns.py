"""Turns of a conversation, read from whatever a column holds: message lists, rendered dialogues.

Pure functions of values; which column holds what is `layouts`' work. What is no plain text (images,
tool calls) is refused with `RowError`, never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from squeeze.data.examples import Message, Turns
from squeeze.data.rows import Row, RowError, is_unicode

ROLES = {
    **{role: role for role in ("system", "developer", "user", "assistant", "tool")},
    **dict.fromkeys(("human", "prompter", "question"), "user"),
    **dict.fromkeys(("gpt", "bot", "model", "chatgpt", "ai"), "assistant"),
    **{"[inst]": "user", "[/inst]": "assistant"},
    **dict.fromkeys(("observation", "tool_response", "function"), "tool"),
}
_ROLE_KEYS = ("role", "from", "sender", "speaker")
_CONTENT_KEYS = ("content", "value", "text", "parts")
_TOOL_ROLES = ("tool_call", "function_call")
_MEDIA_BLOCKS = ("image", "image_url", "input_image", "video", "audio", "input_audio")


def text(value: Any, name: str) -> str:
    """The value as text; raises `RowError` when it is not a string or not valid Unicode."""
    if not isinstance(value, str):
        raise RowError("not a string", f"has a {type(value).__name__} in {name!r}, not a string")
    if not is_unicode(value):
        raise RowError("not Unicode", f"has a lone surrogate in {name!r}")
    return value


@dataclass(frozen=True)
class Tags:
    """The keys and roles of messages: those that are known here, or those of a dataset_info."""

    role: tuple[str, ...] = _ROLE_KEYS
    content: tuple[str, ...] = _CONTENT_KEYS
    roles: Mapping[str, str] = field(default_factory=lambda: ROLES)

    def read(self, value: Any, name: str) -> Turns:
        """The messages of a list (or one message); raises `RowError` for what is no plain text."""
        turns = [value] if isinstance(value, dict) else value
        if turns == []:
            raise RowError("no messages", f"has no list of messages in {name!r}")
        if isinstance(turns, list) and _are_blocks(turns):
            return (Message("assistant", _content(turns, name)),)
        if not isinstance(turns, list) or not isinstance(turns[0], dict):
            text(value, name)  # neither text nor messages
        return tuple([self._message(turn, name) for turn in turns])

    def _message(self, turn: Any, name: str) -> Message:
        if not isinstance(turn, dict):
            raise RowError("not a message", f"has no object as a message in {name!r}")
        spoken = next((turn[key] for key in self.role if turn.get(key) is not None), None)
        if spoken is None:
            raise RowError("not a message", f"has a message without {self.role[0]!r} in {name!r}")
        if turn.get("tool_calls") or turn.get("function_call") or spoken in _TOOL_ROLES:
            raise RowError(
                "unsupported tools",
                f"has tool calls in {name!r}, which a chat template must render; render them to "
                "text with the model's template first",
            )
        if any(isinstance(turn.get(key), str) and turn[key].strip() for key in _THOUGHTS):
            raise RowError(
                "unsupported reasoning",
                f"has reasoning beside the content in {name!r}, which a chat template must render; "
                "write it into the content as the model does (<think>…</think>)",
            )
        role = None
        if isinstance(spoken, str):
            role = self.roles.get(spoken, self.roles.get(spoken.lower()))
        if role is None:
            raise RowError(
                "unsupported message", f"has role {spoken!r} in {name!r}, which is not supported"
            )
        key = next((key for key in self.content if key in turn), self.content[0])
        return Message(role, _content(turn.get(key), f"{name}.{key}"))


_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


def _are_blocks(value: list[Any]) -> bool:
    """Whether a list holds blocks of a text ({"text": …}) and no messages."""
    return all(
        isinstance(block, dict) and "text" in block and not any(key in block for key in _ROLE_KEYS)
        for block in value
    )


def _content(value: Any, name: str) -> str:
    """A message's text; of a list of content blocks, the texts joined."""
    if not isinstance(value, list) or not all(isinstance(block, dict) for block in value):
        return text(value, name)
    for block in value:
        if block.get("type") in _MEDIA_BLOCKS:
            raise RowError("images", IMAGES)
    return "".join([text(block.get("text"), name) for block in value])


# ---- images --------------------------------------------------------------------------------------

_MEDIA_COLUMNS = ("image", "images", "image_path", "video", "videos", "audio", "audios")
_PLACEHOLDER = re.compile(r"<(?:image|video|audio)>\n?")
IMAGES = (
    "has images (or sound), without which its answers cannot be judged; --drop-images reads the "
    "texts alone"
)


def has_media(row: Row) -> bool:
    """Whether the row has a filled column of images, videos or sounds."""
    return any(row.get(name) for name in _MEDIA_COLUMNS)


def without_media(value: Any) -> Any:
    """The value without content blocks of images and without their placeholders in texts."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub("", value)
    if isinstance(value, list):
        kept = (v for v in value if not (isinstance(v, dict) and v.get("type") in _MEDIA_BLOCKS))
        return [without_media(v) for v in kept]
    if isinstance(value, dict):
        return {
            key: without_media(part) for key, part in value.items() if key not in _MEDIA_COLUMNS
        }
    return value


# ---- dialogues in one text -----------------------------------------------------------------------


@dataclass(frozen=True)
class Dialogue:
    """A way of writing a conversation as one text: a marker before each turn, an end behind it."""

    name: str
    marker: re.Pattern[str]
    end: re.Pattern[str]
    lead: str = ""  # what belongs to the marker if it is there
    within: str = ""  # a marker in a text whose first turn, the user's, has none

    def read(self, value: str) -> Turns | None:
        """The turns, without an opened answer at the end; None where no marker comes first."""
        before, *parts = self.marker.split(value)
        if not parts or (before and not self.within):
            return None
        turns = [Message("user", before.removesuffix("\n"))] if before else []
        turns += [
            Message(ROLES[speaker.lower()], self.said(content))
            for speaker, content in zip(parts[::2], parts[1::2], strict=True)
        ]
        return tuple(t for t in turns if t.role != "system" or t.content)

    def said(self, content: str) -> str:
        """The text of one turn: what the markers add is taken off."""
        return self.end.sub("", content.removeprefix(self.lead))


HH = Dialogue("hh", re.compile(r"\n\n(Human|Assistant):"), re.compile(r"(?!)"), " ")
DIALOGUES = (
    HH,
    Dialogue(
        "nemo",
        re.compile(r"<extra_id_[01]>(System|User|Assistant)\n"),
        re.compile(r"\n(?:<extra_id_1>)?\Z"),
        within="\n<extra_id_1>Assistant\n",
    ),
    Dialogue(
        "chatml",
        re.compile(r"(?:<\|endoftext\|>)?<\|im_start\|>(system|user|assistant|tool)\n"),
        re.compile(r"<\|im_end\|>\s*\Z"),
    ),
    Dialogue(
        "llama3",
        re.compile(
            r"(?:<\|begin_of_text\|>)?<\|start_header_id\|>(system|user|assistant|tool)"
            r"<\|end_header_id\|>\n\n"
        ),
        re.compile(r"<\|eot_id\|>\s*\Z"),
    ),
    Dialogue(
        "gemma",
        re.compile(r"(?:<bos>)?<start_of_turn>(user|model)\n"),
        re.compile(r"<end_of_turn>\s*\Z"),
    ),
    Dialogue(
        "mistral",  # and Llama 2, whose system message stands in the first of the user's turns
        re.compile(r"\s{0,9}(?:<s>)?\s{0,9}(\[/?INST\])\s{0,9}"),
        re.compile(r"\s*(?:</s>)?\s*\Z"),
        " ",
    ),
    Dialogue(
        "zephyr",
        re.compile(r"<\|(system|user|assistant)\|>\n"),
        re.compile(r"(?:</s>|<\|end\|>|<\|endoftext\|>)\s*\Z|(?<!\s)\s+\Z"),
    ),
)


def dialogue_of(value: object) -> Dialogue | None:
    """How a text is written as a dialogue: the one whose marker it begins with, if any."""
    if not isinstance(value, str):
        return None
    if not value.startswith(("\n\n", "<", "[INST]")):
        return next((known for known in DIALOGUES if known.within and known.within in value), None)
    return next((known for known in DIALOGUES if known.marker.match(value)), None)


def without_open_answer(turns: Turns) -> Turns:
    """The turns without a last answer that is only opened, as a prompt ends with "Assistant:"."""
    opened = bool(turns) and turns[-1].role == "assistant" and not turns[-1].content.strip()
    return turns[:-1] if opened else turns


# ---- two conversations ---------------------------------------------------------------------------


def one_answer(turns: Sequence[Message], name: str) -> str:
    """The text of a list that holds one assistant message; raises `RowError` otherwise."""
    if len(turns) != 1 or turns[0].role != "assistant":
        roles = ", ".join(t.role for t in turns) or "nothing"
        raise RowError(
            "not one answer", f"has {roles} behind the prompt in {name!r}, not one answer"
        )
    return turns[0].content


def shared_beginning(chosen: Turns, rejected: Turns) -> int:
    """How many turns two conversations begin with together, their last ones left out."""
    for shared, (a, b) in enumerate(zip(chosen[:-1], rejected[:-1], strict=False)):
        if a != b:
            return shared
    return min(len(chosen), len(rejected)) - 1
