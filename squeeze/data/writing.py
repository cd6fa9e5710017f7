"""Writing examples: a table of each format's columns, streamed to JSONL, JSON or Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeeze.data.examples import Message, PreferenceExample, Turns
from squeeze.data.formats import FORMATS
from squeeze.data.layouts import EXTRA_KINDS
from squeeze.data.rows import Row, RowError
from squeeze.data.turns import HH
from squeeze.errors import InputError

if TYPE_CHECKING:
    import pyarrow

_BATCH = 2000  # rows of a Parquet row group


@dataclass(frozen=True)
class Column:
    """A column that is written: its Parquet type, a key of `_types`, and its value."""

    type: str
    value: Callable[[PreferenceExample], Any]


def _user_text(example: PreferenceExample) -> str:
    """The prompt's text if it is one user message; raises `RowError` otherwise."""
    prompt = example.prompt
    if len(prompt) != 1 or prompt[0].role != "user":
        raise RowError(
            "prompt is a conversation",
            f"has a prompt of {len(prompt)} messages, where the format holds one user message",
        )
    return prompt[0].content


def _chat(turns: Turns) -> list[Row]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _said(answer: str) -> list[Row]:
    return _chat((Message("assistant", answer),))


_SHAREGPT = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}


def _sharegpt(turns: Turns) -> list[Row]:
    return [{"from": _named(t, _SHAREGPT), "value": t.content} for t in turns]


def _named(turn: Message, names: Mapping[str, str]) -> str:
    """The format's name for the turn's role; raises `RowError` where it has none."""
    if turn.role not in names:
        raise RowError("role not in the format", f"has a {turn.role!r} message")
    return names[turn.role]


_SPEAKERS = {"user": "Human", "assistant": "Assistant"}


def _dialogue(example: PreferenceExample, answer: str) -> str:
    """One dialogue text; raises `RowError` for other roles and for markers within the texts."""
    said = [*(turn.content for turn in example.prompt), example.chosen, example.rejected]
    prompt = "".join(f"\n\n{_named(t, _SPEAKERS)}: {t.content}" for t in example.prompt)
    if any(HH.marker.search(content) for content in said):
        raise RowError("marker in the text", "has a speaker's marker within a text")
    return f"{prompt}\n\nAssistant: {answer}"


def _alpaca(example: PreferenceExample) -> tuple[str, str, list[list[str]]]:
    """System, instruction and history; raises `RowError` when the turns do not alternate."""
    turns = list(example.prompt)
    system = turns.pop(0).content if turns[0].role == "system" else ""
    if system == "" and len(turns) < len(example.prompt):
        raise RowError("empty system message", "has an empty system message, which Alpaca drops")
    if [t.role for t in turns] != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise RowError("turns do not alternate", "has a prompt whose turns do not alternate")
    history = [[turns[i].content, turns[i + 1].content] for i in range(0, len(turns) - 1, 2)]
    return system, turns[-1].content, history


def _outputs(example: PreferenceExample) -> list[str]:
    """The ranked answers, best first."""
    ranks = [k for k in example.responses if k.startswith("rank_") and k[5:].isdecimal()]
    between = (example.responses[k] for k in sorted(ranks, key=lambda k: int(k[5:])))
    return [example.chosen, *between, example.rejected]


def _conversation(example: PreferenceExample, chosen: bool) -> list[Row]:
    """The answer's message; the whole conversation where the sides do not share one."""
    answer = _said(example.chosen if chosen else example.rejected)
    if example.rejected_prompt is None:
        return answer
    return _chat(example.prompt if chosen else example.rejected_prompt) + answer


def _response(kind: str) -> Callable[[PreferenceExample], str | None]:
    return lambda example: example.responses.get(kind)


_ID = Column("text", lambda e: e.id)
_CHAT = Column("chat", lambda e: _chat(e.prompt))
_USER = Column("text", _user_text)
_EMPTY = Column("text", lambda e: "")
_PAIR = {"chosen": Column("text", lambda e: e.chosen)}
_PAIR = {**_PAIR, "rejected": Column("text", lambda e: e.rejected)}
_KINDS = {kind: Column("text", _response(kind)) for kind in EXTRA_KINDS}

# format → column → what is written there. A column whose value is None is left out of JSON.
WRITTEN: dict[str, dict[str, Column]] = {
    "squeeze": {
        **{
            "id": _ID,
            "prompt": _CHAT,
            **_PAIR,
            "responses": Column("responses", lambda e: dict(e.responses)),
        },
        "rejected_prompt": Column(
            "chat", lambda e: None if e.rejected_prompt is None else _chat(e.rejected_prompt)
        ),
    },
    "trl": {"id": _ID, "prompt": _USER, **_PAIR, **_KINDS},
    "trl-conversational": {
        "id": _ID,
        "prompt": Column("chat", lambda e: _chat(e.prompt) if e.rejected_prompt is None else None),
        "chosen": Column("chat", lambda e: _conversation(e, True)),
        "rejected": Column("chat", lambda e: _conversation(e, False)),
        **_KINDS,
    },
    "alpaca": {
        "instruction": Column("text", lambda e: _alpaca(e)[1]),
        **{"input": _EMPTY, **_PAIR},
        "system": Column("text", lambda e: _alpaca(e)[0]),
        "history": Column("history", lambda e: _alpaca(e)[2]),
    },
    "comparison": {"instruction": _USER, "input": _EMPTY, "output": Column("texts", _outputs)},
    "sharegpt": {
        "conversations": Column("sharegpt", lambda e: _sharegpt(e.prompt)),
        "chosen": Column("turn", lambda e: _sharegpt((Message("assistant", e.chosen),))[0]),
        "rejected": Column("turn", lambda e: _sharegpt((Message("assistant", e.rejected),))[0]),
    },
    "openai": {
        "input": Column("input", lambda e: {"messages": _chat(e.prompt)}),
        "preferred_output": Column("chat", lambda e: _said(e.chosen)),
        "non_preferred_output": Column("chat", lambda e: _said(e.rejected)),
    },
    "hh": {
        "chosen": Column("text", lambda e: _dialogue(e, e.chosen)),
        "rejected": Column("text", lambda e: _dialogue(e, e.rejected)),
    },
    "kto": {  # two rows: `rejected` is None in the first, the wanted one
        **{"id": _ID, "prompt": _CHAT},
        "completion": Column("chat", lambda e: _said(e.rejected or e.chosen)),
        "label": Column("label", lambda e: not e.rejected),
    },
}
WRITABLE = tuple(WRITTEN)


def rows_of(example: PreferenceExample, format: str) -> list[Row]:
    """The rows that hold an example in a format; raises `RowError` where it cannot hold it."""
    if example.rejected_prompt is not None and "rejected_prompt" not in FORMATS[format].carries:
        raise RowError(
            "conversations diverge",
            "has two conversations, where the format holds one prompt; write squeeze or "
            "trl-conversational",
        )
    several = [example]
    if format == "kto":
        several = [replace(example, rejected=""), replace(example, chosen="")]
    made = []
    for one in several:
        values = ((name, column.value(one)) for name, column in WRITTEN[format].items())
        made.append({name: value for name, value in values if value is not None})
    return made


def lossless(example: PreferenceExample) -> Row:
    """The example as a row of the format "squeeze"."""
    return rows_of(example, "squeeze")[0]


def _schema(format: str) -> pyarrow.Schema:
    """The Parquet schema of a format that is written; every extra response kind is a column."""
    import pyarrow as pa

    text = pa.string()
    turn = pa.struct([("from", text), ("value", text)])
    chat = pa.list_(pa.struct([("role", text), ("content", text)]))
    types = {
        **{"text": text, "texts": pa.list_(text), "label": pa.bool_(), "chat": chat},
        **{"turn": turn, "sharegpt": pa.list_(turn), "history": pa.list_(pa.list_(text))},
        "input": pa.struct([("messages", chat)]),
        "responses": pa.list_(pa.struct([("kind", text), ("text", text)])),
    }
    return pa.schema([(name, types[column.type]) for name, column in WRITTEN[format].items()])


def _for_parquet(row: Row) -> Row:
    """Parquet has no open-ended objects: responses become a list of kind and text."""
    if isinstance(row.get("responses"), dict):
        return row | {"responses": [{"kind": k, "text": t} for k, t in row["responses"].items()]}
    return row


Write = Callable[[Row], None]


@contextmanager
def _parquet(path: Path, format: str) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet

    schema = _schema(format)
    batch: list[Row] = []
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            batch.clear()

        def write(row: Row) -> None:
            batch.append(_for_parquet(row))
            if len(batch) == _BATCH:
                flush()

        yield write
        if batch:
            flush()


@contextmanager
def _json(path: Path, array: bool) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        encode = json.JSONEncoder(ensure_ascii=False).encode
        before = "[\n" if array else ""

        def write(row: Row) -> None:
            nonlocal before
            stream.write(before + encode(row))
            before = ",\n" if array else "\n"

        yield write
        stream.write("" if before == "" else "\n]\n" if array else "\n")


def check_extension(path: Path) -> None:
    """Raise `InputError` unless the file can be written: .jsonl, .json or .parquet."""
    if path.suffix not in (".jsonl", ".json", ".parquet"):
        raise InputError(f"{path}: the output must end in .jsonl, .json or .parquet")


@contextmanager
def open_writer(path: Path, suffix: str, format: str) -> Iterator[Write]:
    """A function that writes one row of the format to `path`; `suffix` says how (".jsonl", …)."""
    if suffix == ".parquet":
        with _parquet(path, format) as write:
            yield write
    else:
        with _json(path, array=suffix == ".json") as write:
            yield write
