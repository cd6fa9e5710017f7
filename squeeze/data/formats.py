"""The formats of preference data: which one a file has, and the stream of its examples.

How a row is laid out is `layouts`', `dialogues`', `pairing`'s and `dataset_info`'s work.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

from squeeze.data import dataset_info, dialogues, layouts, pairing
from squeeze.data.dialogues import PAPER_KINDS, is_dialogue
from squeeze.data.examples import PreferenceExample
from squeeze.data.layouts import EXTRA_KINDS
from squeeze.data.pairing import Unpaired
from squeeze.data.rows import Row, RowError, RowReader
from squeeze.errors import InputError

_SAMPLE = 50  # rows looked at to recognise a format


@dataclass(frozen=True)
class Format:
    """A format by name: which rows look like it, how to read one, how to write an example.

    `columns` are those that reading uses; `carries` names what besides the pair it can hold
    ("id", "kinds" for named response kinds, "responses" for any). Exactly one of `parse` and
    `parse_unpaired` is given; `write` is None for formats that are only read.
    """

    name: str
    title: str
    matches: Callable[[Row], bool]
    columns: frozenset[str]
    parse: Callable[[Row], PreferenceExample] | None = None
    parse_unpaired: Callable[[Row], Unpaired] | None = None
    write: Callable[[PreferenceExample], list[Row]] | None = None
    carries: frozenset[str] = frozenset()


def _has(row: Row, **kinds: type | tuple[type, ...]) -> bool:
    return all(isinstance(row.get(name), kind) for name, kind in kinds.items())


def _messages(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and "role" in value[0]
    )


# Columns that hold a prompt of their own, or tell of the paper's sets: the texts have none then.
_OTHERS = {"instruction", "conversations", "messages", "system", "history", *PAPER_KINDS}
_OTHERS |= {*layouts.QUESTIONS}


def _is_trl(row: Row) -> bool:
    if not _has(row, chosen=str, rejected=str) or row.keys() & PAPER_KINDS.keys():
        return False
    if row.get("prompt") is not None:
        return isinstance(row["prompt"], str) and not is_dialogue(row["prompt"])
    return not is_dialogue(row["chosen"]) and not row.keys() & _OTHERS


def _is_hh(row: Row) -> bool:
    if not _has(row, chosen=str, rejected=str) or row.keys() & _OTHERS:
        return False
    return is_dialogue(row["chosen"] if row.get("prompt") is None else row["prompt"])


def _is_paper(row: Row) -> bool:
    return _has(row, prompt=str, chosen=str, rejected=str) and bool(row.keys() & PAPER_KINDS.keys())


def _is_trl_conversational(row: Row) -> bool:
    pair = _messages(row.get("chosen")) and _messages(row.get("rejected"))
    return pair and (row.get("prompt") is None or _messages(row["prompt"]))


def _is_ultrafeedback(row: Row) -> bool:
    return _messages(row.get("chosen")) and _messages(row.get("rejected")) and _has(row, prompt=str)


def _is_squeeze(row: Row) -> bool:
    return _messages(row.get("prompt")) and _has(row, chosen=str, rejected=str)


def _is_openai(row: Row) -> bool:
    return _has(row, input=dict, preferred_output=list, non_preferred_output=list)


def _is_question(row: Row) -> bool:
    asked = any(isinstance(row.get(name), str) for name in layouts.QUESTIONS)
    elsewhere = row.keys() & {"instruction", "conversations", "prompt"}
    return asked and not elsewhere and _has(row, chosen=str, rejected=str)


def _is_labelled(row: Row) -> bool:
    return any(isinstance(row.get(name), (bool, int, float, str)) for name in pairing.LABELS)


_PAIR = frozenset({"id", "chosen", "rejected"})
_NAMED = frozenset({"id", "kinds"})
_LABELLED = frozenset({"id", *pairing.LABELS})
_ANY = (str, list)
_ANSWER = (dict, list, str)

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            "squeeze",
            "lossless: prompt messages, chosen, rejected, responses by kind",
            _is_squeeze,
            _PAIR | {"prompt", "responses"},
            layouts.parse_squeeze,
            write=layouts.write_squeeze,
            carries=frozenset({"id", "responses"}),
        ),
        Format(
            "trl",
            "TRL standard: texts, with or without a prompt column",
            _is_trl,
            _PAIR | {"prompt", *EXTRA_KINDS},
            layouts.parse_trl,
            write=layouts.write_trl,
            carries=_NAMED,
        ),
        Format(
            "trl-conversational",
            "TRL conversational: message lists, with or without a prompt column",
            _is_trl_conversational,
            _PAIR | {"prompt", *EXTRA_KINDS},
            layouts.parse_trl_conversational,
            write=layouts.write_trl_conversational,
            carries=_NAMED,
        ),
        Format(
            "ultrafeedback",
            "UltraFeedback: a prompt text and message lists",
            _is_ultrafeedback,
            _PAIR | {"prompt", *EXTRA_KINDS},
            layouts.parse_trl_conversational,
        ),
        Format(
            "alpaca",
            "Alpaca ranking: instruction, input, chosen, rejected",
            lambda row: _has(row, instruction=str, chosen=str, rejected=str),
            _PAIR | {"instruction", "input", "system", "history"},
            layouts.parse_alpaca,
            write=layouts.write_alpaca,
        ),
        Format(
            "comparison",
            "comparison_gpt4_data: instruction, input, output list, best first",
            lambda row: _has(row, instruction=str, output=list),
            frozenset({"id", "instruction", "input", "output", "system", "history"}),
            layouts.parse_comparison,
            write=layouts.write_comparison,
            carries=frozenset({"ranks"}),
        ),
        Format(
            "sharegpt",
            "ShareGPT ranking: conversations, chosen, rejected with from/value",
            lambda row: _has(row, conversations=list, chosen=_ANSWER, rejected=_ANSWER),
            _PAIR | {"conversations", "system"},
            layouts.parse_sharegpt,
            write=layouts.write_sharegpt,
        ),
        Format(
            "question",
            "Orca pairs: question (or query, or input) and system, chosen, rejected",
            _is_question,
            _PAIR | {"system", *layouts.QUESTIONS},
            layouts.parse_question,
        ),
        Format(
            "openai",
            "OpenAI preference: input.messages, preferred_output, non_preferred_output",
            _is_openai,
            frozenset({"id", "input", "preferred_output", "non_preferred_output"}),
            layouts.parse_openai,
            write=layouts.write_openai,
        ),
        Format(
            "hh",
            "Anthropic-HH: dialogue texts with \\n\\nHuman: and \\n\\nAssistant:",
            _is_hh,
            _PAIR | {"prompt"},
            dialogues.parse_hh,
            write=dialogues.write_hh,
        ),
        Format(
            "paper",
            "the paper's probing sets, all response kinds",
            _is_paper,
            _PAIR | {"prompt"},
            dialogues.parse_paper,
        ),
        Format(
            "kto",
            "unpaired: prompt, completion, label; paired where a prompt has both labels",
            lambda row: _is_labelled(row) and _has(row, prompt=_ANY, completion=_ANY),
            _LABELLED | {"prompt", "completion"},
            parse_unpaired=pairing.parse_unpaired,
            write=pairing.write_unpaired,
            carries=frozenset({"id"}),
        ),
        Format(
            "kto-sharegpt",
            "unpaired conversations with from/value and a label",
            lambda row: _is_labelled(row) and _has(row, conversations=list),
            _LABELLED | {"conversations", "system"},
            parse_unpaired=pairing.parse_unpaired_messages,
        ),
        Format(
            "kto-messages",
            "unpaired message lists with a label",
            lambda row: _is_labelled(row) and _messages(row.get("messages")),
            _LABELLED | {"messages", "system"},
            parse_unpaired=lambda row: pairing.parse_unpaired_messages(
                row, layouts.CHAT, "messages"
            ),
        ),
        Format(
            "kto-alpaca",
            "unpaired: instruction, input, output and a label",
            lambda row: _is_labelled(row) and _has(row, instruction=str, output=str),
            _LABELLED | {"instruction", "input", "output", "system", "history"},
            parse_unpaired=pairing.parse_unpaired_alpaca,
        ),
    )
}
LLAMA_FACTORY = "llamafactory"  # read only: a dataset_info.json that describes other files
READABLE = (*FORMATS, LLAMA_FACTORY)
WRITABLE = tuple(name for name, f in FORMATS.items() if f.write is not None)


def named(name: str, choices: tuple[str, ...], flag: str) -> str:
    """The name if it is one of the choices; raises `InputError` suggesting the nearest."""
    if name in choices:
        return name
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"{flag}: unknown format {name!r}{hint} Choose from {', '.join(choices)}")


def recognise(path: Path) -> str:
    """The name of the file's format, from its first rows.

    Raises `InputError` when no format or more than one fits, listing the candidates.
    """
    if path.is_file() and dataset_info.is_dataset_info(path):
        return LLAMA_FACTORY
    fits: set[str] | None = None
    first: Row = {}
    unreadable = ""
    for number, row in islice(RowReader(path), _SAMPLE):
        if isinstance(row, RowError):
            unreadable = unreadable or f"{path}, row {number} {row}"
            continue
        first = first or row
        fitting = {name for name, f in FORMATS.items() if f.matches(row)}
        if fitting:  # a row that fits nothing is a bad row, not another format
            fits = fitting if fits is None else fits & fitting
    if not first and unreadable:
        raise InputError(f"{unreadable}; a JSON file holds one array of objects, or one a line")
    columns = ", ".join(first) or "none"
    if fits is not None and len(fits) == 1:
        return fits.pop()
    lacking = {"chosen", "rejected"} - first.keys()
    if not fits and len(lacking) == 1:
        raise InputError(
            f"{path} lacks the column {lacking.pop()!r} (columns: {columns}); a preference pair "
            "needs a chosen and a rejected answer"
        )
    if fits:
        what = f"could be {' or '.join(sorted(fits))}"
    else:
        what = "mixes formats" if fits is not None else "has no format that is known here"
    way_out = "" if fits else ", or map its columns in a dataset_info.json"
    raise InputError(
        f"{path} {what} (columns: {columns}); name its format with --from (one of "
        f"{', '.join(sorted(fits or READABLE))}){way_out}"
    )


@dataclass(frozen=True)
class Source:
    """A file whose format is known; iterates (row number, example or `RowError`)."""

    reader: RowReader
    format: str
    columns: frozenset[str] | None  # those that reading uses; None: any may be used
    parse: Callable[[Row], PreferenceExample] | None
    parse_unpaired: Callable[[Row], Unpaired] | None
    limit: int | None = None  # rows to read; None: all

    @property
    def rows_per_example(self) -> int:
        """How many of the file's rows make an example."""
        return 1 if self.parse_unpaired is None else 2

    def rows(self) -> Iterator[tuple[int, Row | RowError]]:
        """The file's rows with their numbers, up to the limit."""
        return islice(self.reader, self.limit)

    def examples(
        self, rows: Iterator[tuple[int, Row | RowError]] | None = None
    ) -> Iterator[tuple[int, PreferenceExample | RowError]]:
        """Stream the examples of `rows` (by default the file's), errors in place, ids distinct."""
        rows = self.rows() if rows is None else rows
        with closing(pairing.SeenIds()) as seen:
            for number, item in self._parsed(rows):
                try:
                    yield (
                        number,
                        item if isinstance(item, RowError) else seen.distinct(item, number),
                    )
                except RowError as error:
                    error.row = layouts.write_squeeze(cast(PreferenceExample, item))[0]
                    error.rows = self.rows_per_example
                    yield number, error

    def _parsed(
        self, rows: Iterator[tuple[int, Row | RowError]]
    ) -> Iterator[tuple[int, PreferenceExample | RowError]]:
        if self.parse_unpaired is not None:
            yield from pairing.pair_rows(rows, self.parse_unpaired)
            return
        assert self.parse is not None
        for number, row in rows:
            try:
                if isinstance(row, RowError):
                    raise row
                yield number, self.parse(row)
            except RowError as error:
                error.row = row if error.row is None and isinstance(row, dict) else error.row
                yield number, error


def open_source(path: Path, format: str | None = None, name: str | None = None) -> Source:
    """Open a data file, recognising its format unless it is named.

    `name` chooses the data set of a dataset_info.json. Raises `InputError` as `recognise` does.
    """
    format = recognise(path) if format is None else named(format, READABLE, "--from")
    if format != LLAMA_FACTORY:
        if name is not None:
            raise InputError(f"--name goes with a dataset_info.json, and {path} is {format}")
        known = FORMATS[format]
        columns = None if format == "paper" else known.columns
        return Source(RowReader(path), format, columns, known.parse, known.parse_unpaired)
    dataset = dataset_info.choose(path, name)
    assert dataset.file is not None
    parse, parse_unpaired = dataset_info.parsers(dataset)
    described = f"{LLAMA_FACTORY}:{dataset.name}"
    columns = dataset_info.used_columns(dataset)
    reader = RowReader(dataset.file)
    return Source(reader, described, columns, parse, parse_unpaired, dataset.num_samples)
