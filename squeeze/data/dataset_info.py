"""LLaMA-Factory's `dataset_info.json`: data set names → files, column maps, tags, ranking."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squeeze import jsonc
from squeeze.data import layouts, pairing
from squeeze.data.examples import PreferenceExample
from squeeze.data.layouts import Tags
from squeeze.data.pairing import Unpaired
from squeeze.data.rows import Row
from squeeze.errors import InputError

_ALPACA = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "system": "system",
    "history": "history",
    "chosen": "chosen",
    "rejected": "rejected",
}
_SHAREGPT = {
    "messages": "conversations",
    "system": "system",
    "chosen": "chosen",
    "rejected": "rejected",
}
_MAPPED_ONLY = ("system", "history")
_NEVER_EMPTY = ("messages", "kto_tag")
_HUB = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


@dataclass(frozen=True)
class Dataset:
    """One entry of dataset_info.json.

    `num_samples` are read from the file's beginning (LLaMA-Factory draws as many at random).
    """

    name: str
    file: Path | None
    hub: str | None
    formatting: str
    ranking: bool
    columns: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    num_samples: int | None = None

    @property
    def usable(self) -> bool:
        """Whether the entry is preference data in a file that is there."""
        preference = self.ranking or "kto_tag" in self.columns
        return preference and self.file is not None and self.file.is_file()


def is_dataset_info(path: Path) -> bool:
    """Whether the file is a dataset_info.json, by its name or its shape."""
    if path.name == "dataset_info.json":
        return True
    if path.suffix != ".json" or path.stat().st_size > 4 << 20:
        return False
    with path.open("rb") as stream:
        head = stream.read(1 << 12)
    return any(f'"{key}"'.encode() in head for key in ("file_name", *_HUB)) and (
        head.lstrip().startswith(b"{")
    )


def read_dataset_info(path: Path) -> dict[str, Dataset]:
    """The entries by name; raises `InputError` naming the entry and the key that is wrong."""
    entries = jsonc.read(path)
    if not isinstance(entries, dict):
        raise InputError(f"{path} must hold one JSON object: data set names and their descriptions")
    return {name: _entry(path, name, value) for name, value in entries.items()}


def _entry(path: Path, name: str, value: Any) -> Dataset:
    where = f"{path}, data set {name!r}"
    if not isinstance(value, dict):
        raise InputError(f"{where} must be an object")
    for key in ("columns", "tags"):
        named = value.get(key) or {}
        if not isinstance(value.get(key, {}), dict | None) or not all(
            isinstance(name, str | None) for name in named.values()
        ):
            raise InputError(f"{where}: {key!r} must be an object of names")
    number = value.get("num_samples")
    whole = isinstance(number, int) and not isinstance(number, bool)
    if number is not None and not (whole and number > 0):
        raise InputError(f"{where}: num_samples must be a whole number, not {number!r}")
    if not isinstance(value.get("ranking", False), bool):
        raise InputError(f"{where}: ranking must be true or false, not {value['ranking']!r}")
    formatting = value.get("formatting", "alpaca")
    if formatting not in ("alpaca", "sharegpt", "openai"):
        raise InputError(f"{where}: unknown formatting {formatting!r}; use alpaca or sharegpt")
    file = value.get("file_name")
    return Dataset(
        name=name,
        file=path.parent / file if isinstance(file, str) else None,
        hub=next((str(value[key]) for key in _HUB if value.get(key)), None),
        formatting=formatting,
        ranking=bool(value.get("ranking", False)),
        columns=_names(value.get("columns")),
        tags=_names(value.get("tags")),
        num_samples=number,
    )


def _names(value: Mapping[str, str | None] | None) -> dict[str, str]:
    """The names; "" for one that is empty or null, which says that there is no such column."""
    named = {key: name or "" for key, name in (value or {}).items()}
    return {key: name for key, name in named.items() if name or key not in _NEVER_EMPTY}


def choose(path: Path, name: str | None, *, preference: bool = True) -> Dataset:
    """The data set of that name, or the only usable one.

    Raises `InputError` when the name is unknown, several are usable, or the one asked for is not
    preference data (if it must be) or not in a local file.
    """
    entries = read_dataset_info(path)
    if name is None:
        usable = [e for e in entries.values() if e.usable]
        if len(usable) == 1:
            return usable[0]
        listed = ", ".join(e.name for e in usable) or "none"
        raise InputError(
            f"{path} describes {len(entries)} data sets; usable preference data: {listed}; "
            f"name one with --name, or write {path.name}:NAME"
        )
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{path} has no data set {name!r}{hint} It has: {', '.join(entries)}")
    chosen = entries[name]
    if preference and not chosen.ranking and "kto_tag" not in chosen.columns:
        raise InputError(
            f'{path}: {name!r} is not preference data; add "ranking": true (or a kto_tag column)'
        )
    if chosen.file is None:
        raise InputError(
            f"{path}: {name!r} lies on a hub ({chosen.hub}); download it and give its file_name"
        )
    if chosen.file.is_dir():
        raise InputError(f"{path}: {chosen.file} of {name!r} is a directory; name one of its files")
    if not chosen.file.is_file():
        raise InputError(f"{path}: the file {chosen.file} of {name!r} does not exist")
    return chosen


def _tags(dataset: Dataset) -> Tags:
    if dataset.formatting == "openai":
        return layouts.CHAT
    given = dataset.tags
    roles = [
        (given.get("user_tag", "human"), "user"),
        (given.get("assistant_tag", "gpt"), "assistant"),
        (given.get("observation_tag", "observation"), "tool"),
        (given.get("system_tag", "system"), "system"),
    ]
    return Tags(given.get("role_tag", "from"), given.get("content_tag", "value"), tuple(roles))


def _renamed(row: Row, columns: Mapping[str, str], canonical: Mapping[str, str]) -> Row:
    """The row with canonical column names; the id is taken over unmapped.

    As in LLaMA-Factory, system and history count only when they are mapped.
    """
    renamed = {
        standard: row[columns.get(key, standard)]
        for key, standard in canonical.items()
        if columns.get(key, standard) in row and (key in columns or key not in _MAPPED_ONLY)
    }
    return renamed | ({"id": row["id"]} if "id" in row else {})


Parse = Callable[[Row], PreferenceExample]
ParseUnpaired = Callable[[Row], Unpaired]


def parsers(dataset: Dataset) -> tuple[Parse | None, ParseUnpaired | None]:
    """How to read the data set's rows: paired, or unpaired when it has a `kto_tag`."""
    columns, tags = dataset.columns, _tags(dataset)
    label = columns.get("kto_tag")
    if dataset.formatting == "alpaca":
        if label is None:
            return lambda row: _parse_alpaca(_renamed(row, columns, _ALPACA)), None
        return None, lambda row: pairing.parse_unpaired_alpaca(
            _renamed(row, columns, _ALPACA) | {label: row.get(label)}, label
        )
    messages = columns.get("messages", "conversations")
    names = _SHAREGPT | {"messages": messages}
    if label is not None:
        return None, lambda row: pairing.parse_unpaired_messages(
            _renamed(row, columns, names) | {label: row.get(label)}, tags, messages, label
        )
    return lambda row: layouts.parse_sharegpt(_renamed(row, columns, names), tags, messages), None


def used_columns(dataset: Dataset) -> frozenset[str]:
    """The columns that `parsers` read."""
    names = _ALPACA if dataset.formatting == "alpaca" else _SHAREGPT
    used = {
        dataset.columns.get(key, standard)
        for key, standard in names.items()
        if key in dataset.columns or key not in _MAPPED_ONLY
    }
    return frozenset(used | {"id"} | {dataset.columns.get("kto_tag", "id")})


def _parse_alpaca(row: Row) -> PreferenceExample:
    """Newer files have chosen and rejected columns, older ones a list of two outputs."""
    if "chosen" not in row and isinstance(row.get("output"), list):
        return layouts.parse_comparison(row)
    return layouts.parse_alpaca(row)
