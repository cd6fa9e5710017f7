"""Data for a run: an embedded name or a file → examples, their checksum, and the fixed split.

Loading is strict: one bad row stops it with the row's number. To set bad rows aside instead,
convert the file first (`squeeze convert`).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from squeeze.data.dataset_info import choose, is_dataset_info
from squeeze.data.demonstrations import open_demonstrations
from squeeze.data.examples import PreferenceExample
from squeeze.data.formats import FORMATS
from squeeze.data.sources import Source, open_source
from squeeze.errors import InputError, did_you_mean
from squeeze.files import file_sha256

BUILTIN = Path(__file__).parent / "builtin"
_NUMBERED = re.compile(r"(?:en|zh)-(\d+)")


def builtin_names() -> list[str]:
    """Names of the embedded data sets."""
    return sorted(path.stem for path in BUILTIN.glob("*.jsonl"))


def resolve(name_or_path: str) -> tuple[Path, str | None]:
    """The file behind an embedded name, a path, or dataset_info.json:NAME; and that NAME.

    Raises `InputError` suggesting the nearest embedded name.
    """
    names = builtin_names()
    if name_or_path in names:
        return BUILTIN / f"{name_or_path}.jsonl", None
    path = Path(name_or_path).expanduser()
    if path.exists() and not path.is_dir():
        return path, None
    described, _, entry = name_or_path.rpartition(":")
    if entry and described and Path(described).expanduser().is_file():
        return Path(described).expanduser(), entry
    if path.suffix or path.parent != Path("."):
        raise InputError(f"the data file {path} does not exist")
    hint = did_you_mean(name_or_path, names, cutoff=0.3)
    raise InputError(
        f"unknown data {name_or_path!r}{hint} Give an embedded name ({', '.join(names)}) or a file"
    )


def open_data(name_or_path: str, format: str | None = None) -> Source:
    """The rows behind an embedded name or a path, with their format; `InputError` as `resolve`."""
    path, entry = resolve(name_or_path)
    return open_source(path, format, entry)


def trained_template(name_or_path: str, format: str | None = None) -> str:
    """The template by which a trainer reads the data's rows, for `encoding.apply_template`.

    TRL takes rows of texts as they are ("text", and "hh" for Anthropic-HH's dialogues); message
    lists, the formats of other trainers and the embedded data go through the model's template.
    """
    known = FORMATS.get(open_data(name_or_path, format).format)
    embedded = name_or_path in builtin_names()
    return known.text if known and known.text and not embedded else "model"


def data_files(name_or_path: str) -> list[Path]:
    """The files that hold the rows; `InputError` as `resolve`."""
    path, entry = resolve(name_or_path)
    if not is_dataset_info(path):
        return [path]
    names = [*entry.split(",")] if entry else [None]
    return [choose(path, name, preference=False).file or path for name in names]


def data_sha256(name_or_path: str) -> str:
    """Checksum of the file that holds the rows, as lowercase hex; `InputError` as `resolve`."""
    digests = [file_sha256(file) for file in data_files(name_or_path)]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def load_examples(
    name_or_path: str,
    format: str | None = None,
    *,
    max_samples: int | None = None,
    demonstrations: bool = False,
) -> list[PreferenceExample]:
    """All examples of an embedded data set or a file, in the file's order.

    `format` names the file's format; without it, it is recognised. dataset_info.json:A,B reads
    several data sets one after the other, each at most `max_samples` rows; `demonstrations` lets
    them lack rejected answers. Responses of other kinds than chosen and rejected that are empty
    are left out, as there is nothing to score. Raises `InputError` naming the row and the field
    for a file that is missing, empty or not what it should be, and for duplicate ids.
    """
    path, entry = resolve(name_or_path)
    names: list[str | None] = [*entry.split(",")] if entry else [None]
    examples = []
    for name in names:
        if demonstrations and name:
            source = open_demonstrations(path, name)
        else:
            source = open_source(path, format, name)
        part = _load(source, name_or_path, max_samples)
        several = len(names) > 1  # ids are distinct within one data set only
        examples += [replace(e, id=f"{name}/{e.id}") for e in part] if several else part
    return examples


def _load(
    source: Source, name_or_path: str, max_samples: int | None = None
) -> list[PreferenceExample]:
    file = source.reader.path
    examples: list[PreferenceExample] = []
    for number, item in islice(source.examples(), max_samples):
        if isinstance(item, InputError):
            raise InputError(
                f"{file}, row {number} {item}; correct it, or set bad rows aside with: "
                f"squeeze convert {name_or_path} clean.jsonl --to squeeze"
            )
        if item.rejected_prompt is not None:
            raise InputError(
                f"{file}, row {number} has another conversation before its rejected answer than "
                "before its chosen one; pairs are trained on and scored behind one prompt, so "
                "leave it out (--divergent refuse, squeeze convert's default)"
            )
        filled = {kind: text for kind, text in item.responses.items() if text.strip()}
        examples.append(replace(item, responses=filled))
    return examples


def _prompt_text(example: PreferenceExample) -> str:
    return json.dumps([(m.role, m.content) for m in example.prompt])


def _is_held_out(example: PreferenceExample) -> bool:
    """Embedded data: every third number; other files: a third of all prompts, by their hash."""
    numbered = _NUMBERED.fullmatch(example.id)
    if numbered:
        return int(numbered[1]) % 3 == 0
    prompt = _prompt_text(example)
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") % 3 == 0


def _take(
    examples: Sequence[PreferenceExample], count: int, seed: int, flag: str, part: str
) -> list[PreferenceExample]:
    if count < 0:
        raise InputError(f"{flag} must not be negative, got {count}")
    if len(examples) < count:
        raise InputError(
            f"the data has {len(examples)} {part} pairs, fewer than the {count} asked for; "
            f"lower {flag} to at most {len(examples)}, or give more data"
        )
    ordered = sorted(examples, key=lambda e: e.id)
    random.Random(f"split/{seed}").shuffle(ordered)
    return ordered[:count]


def split_validation(
    examples: Sequence[PreferenceExample], val_size: float, n_probed: int, seed: int
) -> tuple[list[PreferenceExample], list[PreferenceExample]]:
    """All rows but `val_size` of them (a share below 1, or a count), and `n_probed` of the others.

    Whole prompts are held out, in an order drawn by `seed`. Raises `InputError` naming val_size
    when nothing is left to train on.
    """
    count = round(val_size * len(examples)) if val_size < 1 else int(val_size)

    def drawn(example: PreferenceExample) -> bytes:
        return hashlib.sha256(f"{seed}/{_prompt_text(example)}".encode()).digest()

    ordered = sorted(examples, key=drawn)
    held_out = ordered[:count]
    prompts = {e.prompt for e in held_out}
    train = [e for e in examples if e.prompt not in prompts]
    if not train:
        raise InputError(
            f"val_size {val_size:g} holds out all {len(examples)} rows; lower it, or give more data"
        )
    return train, held_out[:n_probed]


def split(
    examples: Sequence[PreferenceExample], n_train: int, n_held_out: int, seed: int
) -> tuple[list[PreferenceExample], list[PreferenceExample]]:
    """The first `n_train` training and `n_held_out` held-out examples, in the order of `seed`.

    Which part an example belongs to depends on its id (embedded data) or its prompt alone, never
    on the seed or on the file's order, so no held-out prompt is trained on. Raises `InputError`
    naming --pairs or --held-out when there are too few.
    """
    train = [e for e in examples if not _is_held_out(e)]
    held_out = [e for e in examples if _is_held_out(e)]
    return (
        _take(train, n_train, seed, "--pairs", "training"),
        _take(held_out, n_held_out, seed, "--held-out", "held-out"),
    )
