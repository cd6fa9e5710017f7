"""How each data format lays a preference pair out in a row: pure functions row → example and back.

Which format a file has is `formats`' work; nothing here opens files. A parser raises `RowError`
naming the field when a row does not hold a usable pair, a writer when a format cannot hold one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.probe_set import CHOSEN, KINDS, REJECTED
from squeeze.data.rows import Row, RowError, is_unicode
from squeeze.text_statistics import pieces

EXTRA_KINDS = tuple(kind for kind in KINDS if kind not in (CHOSEN, REJECTED))
_EXTRA = frozenset(EXTRA_KINDS)
ROLES = ("system", "developer", "user", "assistant", "tool")
Turns = tuple[Message, ...]


# ---- the parts that formats share ----------------------------------------------------------------


def column(row: Row, name: str) -> Any:
    """The row's value of a column that must be there; raises `RowError` naming it."""
    if row.get(name) is None:
        raise RowError(f"no {name!r}", f"has no {name!r} (it has: {', '.join(row) or 'nothing'})")
    return row[name]


def text(value: Any, field: str) -> str:
    """The value as text; raises `RowError` when it is not a string or not valid Unicode."""
    if not isinstance(value, str):
        raise RowError("not a string", f"has a {type(value).__name__} in {field!r}, not a string")
    if not is_unicode(value):
        raise RowError("not Unicode", f"has a lone surrogate in {field!r}")
    return value


@lru_cache(maxsize=1)  # a conversion asks for a pair's id when it reads and when it writes it
def content_id(prompt: Turns, chosen: str, rejected: str) -> str:
    """An id that depends on the pair alone: the same in any file, at any place."""
    content = json.dumps([[(m.role, m.content) for m in prompt], chosen, rejected])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def row_id(row: Row) -> str | None:
    """The row's own id, if it has one."""
    value = row.get("id")
    if isinstance(value, str | int | float) and str(value).strip():
        return text(str(value), "id")
    return None  # another type, or empty


def example(
    identity: str | None,
    prompt: Turns,
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


@dataclass(frozen=True)
class Tags:
    """How a format names the keys and roles of a message."""

    role: str = "role"
    content: str = "content"
    roles: tuple[tuple[str, str], ...] = tuple((role, role) for role in ROLES)

    def read(self, value: Any, field: str) -> Turns:
        """The messages of a list (or one message); raises `RowError` for what is no plain text."""
        turns = [value] if isinstance(value, dict) else value
        if not isinstance(turns, list) or not turns:
            raise RowError("no messages", f"has no list of messages in {field!r}")
        return tuple(self._message(turn, field) for turn in turns)

    def _message(self, turn: Any, field: str) -> Message:
        if not isinstance(turn, dict) or turn.get(self.role) is None:
            raise RowError("not a message", f"has a message without {self.role!r} in {field!r}")
        role = next((ours for theirs, ours in self.roles if theirs == turn[self.role]), None)
        if role is None or turn.get("tool_calls"):
            what = f"role {turn[self.role]!r}" if role is None else "tool calls"
            raise RowError(
                "unsupported message", f"has {what} in {field!r}, which is not supported"
            )
        content = turn.get(self.content)
        if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
            content = content[0].get("text")  # OpenAI's content parts
        return Message(role, text(content, f"{field}.{self.content}"))

    def write(self, turns: Sequence[Message]) -> list[Row]:
        """Messages as the format writes them; raises `RowError` for a role it does not know."""
        names = {role: name for name, role in self.roles}
        for turn in turns:
            if turn.role not in names:
                raise RowError("role not in the format", f"has a {turn.role!r} message")
        return [{self.role: names[t.role], self.content: t.content} for t in turns]


CHAT = Tags()
SHAREGPT_ROLES = (  # where two names mean the same role, the last one is written
    ("user", "user"),
    ("assistant", "assistant"),
    ("human", "user"),
    ("gpt", "assistant"),
    ("system", "system"),
    ("observation", "tool"),
)
SHAREGPT = Tags("from", "value", SHAREGPT_ROLES)


def one_answer(turns: Turns, field: str) -> str:
    """The text of a list that holds one assistant message; raises `RowError` otherwise."""
    if len(turns) != 1 or turns[0].role != "assistant":
        roles = ", ".join(t.role for t in turns)
        raise RowError(
            "not one answer", f"has {roles} behind the prompt in {field!r}, not one answer"
        )
    return turns[0].content


def _response(value: Any, field: str, tags: Tags = CHAT) -> str:
    return (
        text(value, field) if isinstance(value, str) else one_answer(tags.read(value, field), field)
    )


def split_conversations(chosen: Turns, rejected: Turns) -> tuple[Turns, str, str]:
    """Two conversations that share their beginning: (the prompt, the two last answers)."""
    shared = 0
    for a, b in zip(chosen[:-1], rejected[:-1], strict=False):
        if a != b:
            break
        shared += 1
    return (
        chosen[:shared],
        one_answer(chosen[shared:], CHOSEN),
        one_answer(rejected[shared:], REJECTED),
    )


def extra_responses(row: Row) -> dict[str, str]:
    """The row's text columns that are named like response kinds."""
    if _EXTRA.isdisjoint(row):
        return {}
    return {kind: text(row[kind], kind) for kind in EXTRA_KINDS if isinstance(row.get(kind), str)}


def single_user_text(prompt: Turns) -> str:
    """The prompt's text if it is one user message; raises `RowError` otherwise."""
    if len(prompt) != 1 or prompt[0].role != "user":
        raise RowError(
            "prompt is a conversation",
            f"has a prompt of {len(prompt)} messages, where the format holds one user message",
        )
    return prompt[0].content


def _user(content: str) -> Turns:
    return (Message("user", content),)


def system_turn(row: Row) -> Turns:
    """The row's system message, if it has a filled column of that name."""
    return (Message("system", text(row["system"], "system")),) if row.get("system") else ()


# ---- squeeze -------------------------------------------------------------------------------------


def parse_squeeze(row: Row) -> PreferenceExample:
    """The lossless format: id, prompt messages, chosen, rejected, responses by kind."""
    return example(
        row_id(row),
        CHAT.read(column(row, "prompt"), "prompt"),
        text(column(row, CHOSEN), CHOSEN),
        text(column(row, REJECTED), REJECTED),
        dict(_responses(row.get("responses") or {})),
    )


def _responses(value: Any) -> Iterator[tuple[str, str]]:
    """Kind and text: from an object, or from a list of both, as Parquet has no open-ended ones."""
    if isinstance(value, dict):
        value = [{"kind": kind, "text": said} for kind, said in value.items() if said is not None]
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise RowError("bad responses", "has 'responses' that do not map kinds to texts")
    for entry in value:
        kind = text(entry.get("kind"), "responses")
        yield kind, text(entry.get("text"), kind)


def write_squeeze(example: PreferenceExample) -> list[Row]:
    """The inverse of `parse_squeeze`."""
    prompt = CHAT.write(example.prompt)
    pair = {CHOSEN: example.chosen, REJECTED: example.rejected}
    return [{"id": example.id, "prompt": prompt, **pair, "responses": dict(example.responses)}]


# ---- TRL -----------------------------------------------------------------------------------------


def parse_trl(row: Row) -> PreferenceExample:
    """TRL's standard format; without a prompt column, the prompt is what both texts begin with.

    That common beginning ends with a whole word (Chinese characters are words) and without white
    space: TRL's rule, but that one tears words apart.
    """
    chosen, rejected = text(column(row, CHOSEN), CHOSEN), text(column(row, REJECTED), REJECTED)
    extra = extra_responses(row)
    if row.get("prompt") is not None:
        prompt = text(row["prompt"], "prompt")
        return example(row_id(row), _user(prompt), chosen, rejected, extra)
    shared = _shared_beginning(chosen, rejected)
    if not shared:
        raise RowError("no shared prompt", "has no 'prompt', and its responses begin differently")
    prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    return example(row_id(row), _user(prompt), chosen, rejected, extra)


def _shared_beginning(chosen: str, rejected: str) -> int:
    """How many characters the texts begin with together, in whole words, white space left out."""
    first, second = pieces(chosen), pieces(rejected)
    shared = min(len(first), len(second)) - 1  # something must be left to answer
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            shared = min(shared, place)
            break
    return len("".join(first[: max(shared, 0)]).rstrip())


def write_trl(example: PreferenceExample) -> list[Row]:
    """TRL's standard format with an explicit prompt."""
    prompt = single_user_text(example.prompt)
    extra = {k: v for k, v in example.responses.items() if k in EXTRA_KINDS}
    pair = {"prompt": prompt, CHOSEN: example.chosen, REJECTED: example.rejected}
    return [{"id": example.id, **pair, **extra}]


def parse_trl_conversational(row: Row) -> PreferenceExample:
    """Message lists, the prompt in its own column or at the beginning of both (TRL, UltraFeedback).

    A prompt *string* beside lists that hold the whole conversation (UltraFeedback) repeats what
    they hold; beside lists of one answer it is the user's message. A prompt *list* that both lists
    begin with is not repeated either.
    """
    chosen = CHAT.read(column(row, CHOSEN), CHOSEN)
    rejected = CHAT.read(column(row, REJECTED), REJECTED)
    given = row.get("prompt")
    if isinstance(given, str) and len(chosen) == len(rejected) == 1:
        given = [{"role": "user", "content": given}]
    if isinstance(given, list):
        prompt = CHAT.read(given, "prompt")
        if chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
        best, worst = one_answer(chosen, CHOSEN), one_answer(rejected, REJECTED)
    else:
        prompt, best, worst = split_conversations(chosen, rejected)
    return example(row_id(row), prompt, best, worst, extra_responses(row))


def write_trl_conversational(example: PreferenceExample) -> list[Row]:
    """TRL's conversational format with an explicit prompt."""
    extra = {k: v for k, v in example.responses.items() if k in EXTRA_KINDS}
    return [
        {
            "id": example.id,
            "prompt": CHAT.write(example.prompt),
            CHOSEN: CHAT.write([Message("assistant", example.chosen)]),
            REJECTED: CHAT.write([Message("assistant", example.rejected)]),
            **extra,
        }
    ]


# ---- Alpaca, ShareGPT, OpenAI --------------------------------------------------------------------


def alpaca_prompt(row: Row) -> Turns:
    """LLaMA-Factory's reading of Alpaca: system, history, instruction and input on a new line."""
    instruction = text(column(row, "instruction"), "instruction")
    query = text(row.get("input") or "", "input")
    turns = list(system_turn(row))
    history = row.get("history") or []
    if not isinstance(history, list):
        raise RowError("bad history", "has a 'history' that is no list")
    for past in history:
        if not isinstance(past, list | tuple) or len(past) != 2:
            raise RowError("bad history", "has a 'history' entry that is no [question, answer]")
        turns.append(Message("user", text(past[0], "history")))
        turns.append(Message("assistant", text(past[1], "history")))
    return (*turns, Message("user", f"{instruction}\n{query}" if query else instruction))


def parse_alpaca(row: Row) -> PreferenceExample:
    """Alpaca ranking: instruction, input, chosen, rejected (and system, history)."""
    chosen, rejected = text(column(row, CHOSEN), CHOSEN), text(column(row, REJECTED), REJECTED)
    return example(row_id(row), alpaca_prompt(row), chosen, rejected)


def write_alpaca(example: PreferenceExample) -> list[Row]:
    """Alpaca ranking; raises `RowError` when the turns do not alternate."""
    turns = list(example.prompt)
    system = turns.pop(0).content if turns[0].role == "system" else ""
    if system == "" and len(turns) < len(example.prompt):
        raise RowError("empty system message", "has an empty system message, which Alpaca drops")
    wanted = ["user", "assistant"] * (len(turns) // 2) + ["user"]
    if [t.role for t in turns] != wanted:
        raise RowError("turns do not alternate", "has a prompt whose turns do not alternate")
    history = [[turns[i].content, turns[i + 1].content] for i in range(0, len(turns) - 1, 2)]
    row: Row = {"instruction": turns[-1].content, "input": ""}
    row |= {CHOSEN: example.chosen, REJECTED: example.rejected}
    return [{**row, "system": system, "history": history}]


QUESTIONS = ("question", "query", "input")


def parse_question(row: Row) -> PreferenceExample:
    """Orca's pairs: a question (of any name in `QUESTIONS`), perhaps a system message, the pair."""
    name = next((name for name in QUESTIONS if row.get(name) is not None), QUESTIONS[0])
    prompt = (*system_turn(row), *_user(text(column(row, name), name)))
    chosen, rejected = text(column(row, CHOSEN), CHOSEN), text(column(row, REJECTED), REJECTED)
    return example(row_id(row), prompt, chosen, rejected)


def parse_comparison(row: Row) -> PreferenceExample:
    """comparison_gpt4_data_zh: instruction, input, output (a list, best first).

    Of more than two outputs the first and the last make the pair; those between are kept as
    responses `rank_2`, `rank_3`, ….
    """
    outputs = column(row, "output")
    if not isinstance(outputs, list) or len(outputs) < 2:
        raise RowError("fewer than two outputs", "has fewer than two responses in 'output'")
    best, *between, worst = [text(value, "output") for value in outputs]
    ranks = {f"rank_{place}": value for place, value in enumerate(between, start=2)}
    return example(row_id(row), alpaca_prompt(row), best, worst, ranks)


def write_comparison(example: PreferenceExample) -> list[Row]:
    """One user message and the ranked outputs, best first."""
    ranks = sorted((k for k in example.responses if _is_rank(k)), key=lambda k: int(k[5:]))
    output = [example.chosen, *(example.responses[k] for k in ranks), example.rejected]
    return [{"instruction": single_user_text(example.prompt), "input": "", "output": output}]


def _is_rank(kind: str) -> bool:
    return kind.startswith("rank_") and kind[5:].isdecimal()


def parse_sharegpt(
    row: Row, tags: Tags = SHAREGPT, messages: str = "conversations"
) -> PreferenceExample:
    """ShareGPT ranking: conversations, and chosen and rejected as one message each."""
    prompt = (*system_turn(row), *tags.read(column(row, messages), messages))
    chosen = _response(column(row, CHOSEN), CHOSEN, tags)
    rejected = _response(column(row, REJECTED), REJECTED, tags)
    return example(row_id(row), prompt, chosen, rejected)


def write_sharegpt(example: PreferenceExample) -> list[Row]:
    """ShareGPT ranking with from/value."""
    (chosen,) = SHAREGPT.write([Message("assistant", example.chosen)])
    (rejected,) = SHAREGPT.write([Message("assistant", example.rejected)])
    conversations = SHAREGPT.write(example.prompt)
    return [{"conversations": conversations, CHOSEN: chosen, REJECTED: rejected}]


def parse_openai(row: Row) -> PreferenceExample:
    """OpenAI's preference JSONL: input.messages, preferred_output, non_preferred_output."""
    given = column(row, "input")
    if not isinstance(given, dict):
        raise RowError("not an object", "has an 'input' that is no object")
    if given.get("tools"):
        raise RowError("unsupported tools", "has tools in 'input', which are not supported")
    chosen, rejected = "preferred_output", "non_preferred_output"
    return example(
        row_id(row),
        CHAT.read(column(given, "messages"), "input.messages"),
        one_answer(CHAT.read(column(row, chosen), chosen), chosen),
        one_answer(CHAT.read(column(row, rejected), rejected), rejected),
    )


def write_openai(example: PreferenceExample) -> list[Row]:
    """OpenAI's preference JSONL."""
    return [
        {
            "input": {"messages": CHAT.write(example.prompt)},
            "preferred_output": CHAT.write([Message("assistant", example.chosen)]),
            "non_preferred_output": CHAT.write([Message("assistant", example.rejected)]),
        }
    ]
