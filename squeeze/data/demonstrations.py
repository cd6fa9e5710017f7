"""LLaMA-Factory's instruction data (no rejected answer) for SFT: one answer a prompt.

An example made here has an empty `rejected`; it can be trained on by SFT and probed, not by DPO.
"""

from __future__ import annotations

from pathlib import Path

from squeeze.data import dataset_info, layouts
from squeeze.data.dataset_info import Dataset, Parse
from squeeze.data.examples import PreferenceExample
from squeeze.data.formats import LLAMA_FACTORY, Source, open_source
from squeeze.data.layouts import Turns
from squeeze.data.rows import Row, RowError, RowReader

_LABEL = " wanted"  # no column's name


def _example(identity: str | None, prompt: Turns, answer: str) -> PreferenceExample:
    """Check a demonstration; raises `RowError` for an empty prompt or answer."""
    if not prompt or not prompt[-1].content.strip():
        raise RowError("empty prompt", "has an empty prompt")
    if not answer.strip():
        raise RowError("empty answer", "has an empty answer")
    return PreferenceExample(
        identity or layouts.content_id(prompt, answer, ""), prompt, answer, rejected=""
    )


def _parser(dataset: Dataset) -> Parse:
    """Read rows as wanted answers: what the KTO reader does, were every row labelled so."""
    columns = dict(dataset.columns) | {"kto_tag": _LABEL}
    _, unpaired = dataset_info.parsers(
        Dataset(dataset.name, dataset.file, None, dataset.formatting, False, columns, dataset.tags)
    )

    def parse(row: Row) -> PreferenceExample:
        assert unpaired is not None  # there is a kto_tag
        one = unpaired(row | {_LABEL: True})
        return _example(one.id, one.prompt, one.completion)

    return parse


def open_demonstrations(info: Path, name: str) -> Source:
    """The data set `name` of a dataset_info.json, with or without rejected answers.

    Raises `InputError` as `dataset_info.choose` does.
    """
    entry = dataset_info.read_dataset_info(info).get(name)
    if entry is None or entry.ranking or "kto_tag" in entry.columns:
        return open_source(info, None, name)
    dataset = dataset_info.choose(info, name, preference=False)
    assert dataset.file is not None  # `choose` sees to it
    described = f"{LLAMA_FACTORY}:{dataset.name}"
    return Source(RowReader(dataset.file), described, None, _parser(dataset), None)
