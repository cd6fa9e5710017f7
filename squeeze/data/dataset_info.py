"""LLaMA-Factory's `dataset_info.json`: data set names → files, column maps, tags, ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squeeze import jsonc
from squeeze.data.columns import Columns
from squeeze.data.layouts import Layout
from squeeze.data.turns import Tags
from squeeze.errors import InputError, did_you_mean

# LLaMA-Factory's name of a part → ours, and the column that holds it unless another is named.
_ALPACA = {
    "prompt": ("prompt", "instruction"),
    "query": ("query", "input"),
    "response": ("output", "output"),
    "system": ("system", ""),
    "history": ("history", ""),
    "chosen": ("chosen", "chosen"),
    "rejected": ("rejected", "rejected"),
}
_SHAREGPT = {
    "messages": ("prompt", "conversations"),
    "system": ("system", ""),
    "chosen": ("chosen", "chosen"),
    "rejected": ("rejected", "rejected"),
}
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


def read_dataset_info(path: Path) -> dict[str, Any]:
    """The entries by name, not checked yet: one that is wrong does not stand in others' way."""
    entries = jsonc.read(path)
    if not isinstance(entries, dict):
        raise InputError(f"{path} must hold one JSON object: data set names and their descriptions")
    return entries


def describe(path: Path, name: str, value: Any) -> Dataset:
    """The checked entry; raises `InputError` naming it and the key that is wrong."""
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


def _usable(path: Path, entries: Mapping[str, Any]) -> list[Dataset]:
    """The entries that are right and usable."""
    usable = []
    for name, value in entries.items():
        try:
            entry = describe(path, name, value)
        except InputError:
            continue
        usable += [entry] if entry.usable else []
    return usable


def choose(path: Path, name: str | None, *, preference: bool = True) -> Dataset:
    """The data set of that name, or the only usable one.

    Raises `InputError` when the name is unknown, several are usable, or the one asked for is not
    preference data (if it must be) or not in a local file.
    """
    entries = read_dataset_info(path)
    if name is None:
        usable = _usable(path, entries)
        if len(usable) == 1:
            return usable[0]
        listed = ", ".join(e.name for e in usable) or "none"
        raise InputError(
            f"{path} describes {len(entries)} data sets; usable preference data: {listed}; "
            f"name one with --name, or write {path.name}:NAME"
        )
    if name not in entries:
        hint = did_you_mean(name, entries, cutoff=0.3)
        raise InputError(f"{path} has no data set {name!r}{hint} It has: {', '.join(entries)}")
    chosen = describe(path, name, entries[name])
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
        return Tags()
    given = dataset.tags
    roles = {
        given.get("user_tag", "human"): "user",
        given.get("assistant_tag", "gpt"): "assistant",
        given.get("observation_tag", "observation"): "tool",
        given.get("system_tag", "system"): "system",
    }
    return Tags((given.get("role_tag", "from"),), (given.get("content_tag", "value"),), roles)


def layout(dataset: Dataset) -> Layout:
    """How the data set's rows are read: paired, or unpaired when it has a `kto_tag`.

    As in LLaMA-Factory, system and history count only when they are mapped, and a list of two
    outputs stands for chosen and rejected where those columns are missing.
    """
    alpaca = dataset.formatting == "alpaca"
    at = {
        ours: dataset.columns.get(theirs, default)
        for theirs, (ours, default) in (_ALPACA if alpaca else _SHAREGPT).items()
    }
    output, label = at.pop("output", ""), dataset.columns.get("kto_tag", "")
    if label:
        at = at | {"chosen": "", "rejected": "", "completion": output, "label": label}
    else:
        at["answers"] = output
    return Layout(Columns(**at), tags=_tags(dataset))
