"""What the callback scores: pairs from whatever the user gives, or from the trainer's own data.

Everything ends as token ids. Rows that a trainer has already tokenized are taken as they are, so
that what is scored is what is trained on, template, truncation and end-of-text included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeeze.data.encoding import EncodedItem, encode_item
from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.loading import load_examples
from squeeze.data.probe_set import CHOSEN, REJECTED, ProbeItem, ProbeSet
from squeeze.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Probe = ProbeSet | Sequence[PreferenceExample] | Sequence[EncodedItem] | str | Path
SPLIT = "probe"  # of pairs that the user gives: whether they are trained on is not known
_TOKENIZED = ("prompt_ids", "chosen_ids", "rejected_ids")
_LABELLED = {"prompt_ids", "completion_ids", "label"}
_READ = 5_000  # rows of labelled answers, among which pairs are looked for
_IMAGES = {"image", "images", "pixel_values", "videos"}


def given_items(
    probe: Any, tokenizer: PreTrainedTokenizerBase, limit: int, max_length: int | None
) -> list[EncodedItem]:
    """Token ids of what the user passed as `probe`.

    A `ProbeSet` is scored on all its response kinds and encoded items as they are; a list of
    examples on chosen and rejected; of a data file (or embedded name), `limit` examples evenly
    spaced. Raises `InputError` for anything else, an empty probe, repeated ids, or an example that
    does not fit into `max_length` tokens.
    """
    if isinstance(probe, str | Path):
        probe = spaced(load_examples(str(probe)), limit)
    items: Sequence[Any] = probe.items if isinstance(probe, ProbeSet) else list(probe)
    if not items:
        raise InputError("the probe holds no examples; give at least one, better 8 or more")
    encoded = [_encoded(item, tokenizer, max_length) for item in items]
    if not all(CHOSEN in item.response_ids for item in encoded):
        raise InputError("every item of the probe needs a response of the kind 'chosen'")
    repeated = [i for i, n in Counter((e.example, e.split) for e in encoded).items() if n > 1]
    if repeated:
        raise InputError(f"the probe holds the id {repeated[0][0]!r} twice; give each its own id")
    return encoded


def trainer_items(
    train: Any, evaluation: Any, tokenizer: PreTrainedTokenizerBase, limit: int, args: Any
) -> list[EncodedItem]:
    """`limit` pairs each of a trainer's training and evaluation data, evenly spaced.

    `evaluation` may be None or a dict of data sets (the first is taken). Streamed data give their
    first rows. Raises `InputError` if the rows are no preference pairs of text.
    """
    if isinstance(evaluation, Mapping):
        evaluation = next(iter(evaluation.values()), None)
    max_length = getattr(args, "max_length", None)
    items = []
    for split, data in (("train", train), ("held_out", evaluation)):
        if _columns(data) >= _LABELLED:
            items += _kto_pairs(data, split, limit, max_length)
            continue
        rows = [] if data is None else _rows(data, limit)
        found = [_from_row(row, i, split, tokenizer, max_length) for i, row in enumerate(rows)]
        items += [item for item in found if all(map(len, item.response_ids.values()))]
    if not items and train is not None and _columns(train) >= _LABELLED:
        raise InputError(
            "the trainer's data hold single answers with labels and no prompt that has both a "
            "desirable and an undesirable one; pass probe= with pairs to watch"
        )
    if not items:
        raise InputError("the trainer has no data to take a probe from; pass probe=")
    return items


def spaced(values: Sequence[Any], limit: int) -> list[Any]:
    """At most `limit` of the values, evenly spaced, in their order."""
    count = min(limit, len(values))
    return [values[i * len(values) // count] for i in range(count)]


def _encoded(item: Any, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> EncodedItem:
    if isinstance(item, EncodedItem):
        return item
    if isinstance(item, PreferenceExample):
        pair = {CHOSEN: item.chosen, REJECTED: item.rejected}
        item = ProbeItem(item.id, SPLIT, item.prompt, pair)
    if not isinstance(item, ProbeItem):
        raise InputError(
            f"probe holds a {type(item).__name__}; give PreferenceExamples, EncodedItems, a "
            "ProbeSet, a data file or the name of embedded data"
        )
    if not tokenizer.chat_template:
        raise InputError(
            "the tokenizer has no chat template to write the probe's prompts with; set "
            "tokenizer.chat_template, or pass the probe as EncodedItems (token ids)"
        )
    return encode_item(tokenizer, item, max_length)


# --- rows of a trainer's data ---------------------------------------------------------------------


def _rows(data: Any, limit: int) -> list[Mapping[str, Any]]:
    if not hasattr(data, "__len__"):
        return list(islice(data, limit))
    return [data[i] for i in spaced(range(len(data)), limit)] if len(data) else []


def _columns(data: Any) -> set[str]:
    return set(getattr(data, "column_names", None) or ())


def _kto_pairs(data: Any, split: str, limit: int, max_length: int | None) -> list[EncodedItem]:
    """Pairs of KTO's tokenized rows: prompts that have a desirable and an undesirable answer."""
    answers: dict[tuple[int, ...], dict[str, list[int]]] = {}
    for row in islice(data, _READ):
        kind = CHOSEN if row["label"] else REJECTED
        answers.setdefault(tuple(row["prompt_ids"]), {}).setdefault(kind, row["completion_ids"])
    pairs = [(prompt, found) for prompt, found in answers.items() if len(found) == 2]
    items = []
    for number, (prompt, found) in enumerate(spaced(pairs, limit)):
        room = None if max_length is None else max(max_length - len(prompt), 0)
        ids = {kind: list(found[kind][:room]) for kind in (CHOSEN, REJECTED)}
        if all(ids.values()):
            items.append(EncodedItem(f"{split}-{number}", split, list(prompt), ids))
    return items


def _from_row(
    row: Mapping[str, Any],
    index: int,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
) -> EncodedItem:
    """One row, tokenized as TRL's DPOTrainer does; responses are cut at `max_length` as it does."""
    if _IMAGES & set(row):
        raise InputError("the trainer's data hold images, which are not scored; pass a text probe=")
    name = str(row["id"]) if row.get("id") is not None else f"{split}-{index}"
    if all(row.get(column) is not None for column in _TOKENIZED):
        prompt, chosen, rejected = (list(row[column]) for column in _TOKENIZED)
    elif CHOSEN in row and REJECTED in row:
        prompt, chosen, rejected = _tokenize(row, tokenizer)
    else:
        raise InputError(
            f"the trainer's {split.replace('_', '-')} data hold no preference pairs (columns "
            f"{', '.join(map(repr, row))}); pass probe= with pairs to watch"
        )
    room = None if max_length is None else max(max_length - len(prompt), 0)
    return EncodedItem(name, split, prompt, {CHOSEN: chosen[:room], REJECTED: rejected[:room]})


def _tokenize(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[int], list[int]]:
    """Ids of prompt, chosen and rejected of a row in one of TRL's preference formats."""
    from trl import extract_prompt

    row = row if "prompt" in row else extract_prompt(dict(row))
    if isinstance(row["prompt"], str):
        return _tokenize_text(row, tokenizer)
    prompt = tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"])
    pair = {kind: row[kind][-1]["content"] for kind in (CHOSEN, REJECTED)}
    item = _encoded(ProbeItem("", "", prompt, pair), tokenizer, None)
    return item.prompt_ids, item.response_ids[CHOSEN], item.response_ids[REJECTED]


def _tokenize_text(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[int], list[int]]:
    end = str(tokenizer.eos_token or "")
    prompt: list[int] = tokenizer(row["prompt"])["input_ids"]
    full: list[list[int]] = []
    for kind in (CHOSEN, REJECTED):
        text = row["prompt"] + row[kind].removesuffix(end) + end
        full.append(tokenizer(text)["input_ids"])
    boundary = min(_common([prompt, ids]) for ids in full)
    return prompt[:boundary], full[0][boundary:], full[1][boundary:]


def _common(sequences: Iterable[Sequence[int]]) -> int:
    """How many leading tokens all sequences share."""
    length = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        length += 1
    return length
