r"""Anthropic-HH's dialogue texts (`\n\nHuman:` … `\n\nAssistant:` …) and the paper's probing sets.

Rows ↔ examples as in `layouts`, for the formats that write a conversation as one string.
"""

from __future__ import annotations

import re

from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.layouts import Turns, column, example, row_id, split_conversations, text
from squeeze.data.probe_set import CHOSEN, REJECTED
from squeeze.data.rows import Row, RowError

_MARKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}

# The authors' column names (github.com/Joshua-Ren/Learning_dynamics_LLM) → our response kinds.
PAPER_KINDS = {
    "chosen_initial": "initial",
    "chosen_gptsemantic": "chosen_rephrased",
    "chosen_gptformat": "chosen_format",
    "reject_gptsemantic": "rejected_rephrased",
    "reject_gptformat": "rejected_format",
    "irr_train": "other_answer",
    "irr_test": "unseen_answer",
    "irr_hum": "human",
    "random_permute": "permuted",
    "random_nonhum": "random",
}


def is_dialogue(value: object) -> bool:
    """Whether the value is a text that begins with a speaker's marker."""
    return isinstance(value, str) and _MARKER.match(value) is not None


def _without_space(value: str) -> str:
    """The text behind "Assistant:", where one space belongs to the marker."""
    return value.removeprefix(" ")


def read_dialogue(value: str, field: str) -> Turns:
    """The turns of a dialogue text; raises `RowError` when it does not begin with a marker."""
    before, *parts = _MARKER.split(value)
    if before or not parts:
        raise RowError("not a dialogue", f"has no '\\n\\nHuman:' at the beginning of {field!r}")
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return tuple(Message(_ROLES[who], _without_space(said)) for who, said in pairs)


def _prompt(value: str) -> Turns:
    turns = read_dialogue(value, "prompt")
    opened = turns[-1].role == "assistant" and not turns[-1].content.strip()
    return turns[:-1] if opened else turns


def parse_hh(row: Row) -> PreferenceExample:
    """HH pairs: two dialogues up to the answer, or a dialogue as the prompt and two answers."""
    chosen, rejected = text(column(row, CHOSEN), CHOSEN), text(column(row, REJECTED), REJECTED)
    if row.get("prompt") is not None:
        prompt = _prompt(text(row["prompt"], "prompt"))
        if not is_dialogue(chosen) and not is_dialogue(rejected):
            return example(row_id(row), prompt, _without_space(chosen), _without_space(rejected))
    prompt, best, worst = split_conversations(
        read_dialogue(chosen, CHOSEN), read_dialogue(rejected, REJECTED)
    )
    return example(row_id(row), prompt, best, worst)


def write_hh(example: PreferenceExample) -> list[Row]:
    """Two dialogue texts; raises `RowError` for other roles and for markers within the texts."""
    speakers = {role: who for who, role in _ROLES.items()}
    for turn in example.prompt:
        if turn.role not in speakers:
            raise RowError("role not in the format", f"has a {turn.role!r} message")
    said = [*(turn.content for turn in example.prompt), example.chosen, example.rejected]
    if any(_MARKER.search(content) for content in said):
        raise RowError("marker in the text", "has a speaker's marker within a text")
    prompt = "".join(f"\n\n{speakers[t.role]}: {t.content}" for t in example.prompt)
    answers = {CHOSEN: example.chosen, REJECTED: example.rejected}
    return [{kind: f"{prompt}\n\nAssistant: {answer}" for kind, answer in answers.items()}]


def parse_paper(row: Row) -> PreferenceExample:
    """The paper's probing sets: every string column besides the pair is a response kind.

    Columns that `PAPER_KINDS` does not know keep their own name.
    """
    prompt = text(column(row, "prompt"), "prompt")
    pair = {"prompt", CHOSEN, REJECTED, "id"}
    responses = {
        PAPER_KINDS.get(name, name): _without_space(text(value, name))
        for name, value in row.items()
        if name not in pair and isinstance(value, str)
    }
    return example(
        row_id(row),
        _prompt(prompt) if is_dialogue(prompt) else (Message("user", prompt),),
        _without_space(text(column(row, CHOSEN), CHOSEN)),
        _without_space(text(column(row, REJECTED), REJECTED)),
        responses,
    )
