"""LLaMA-Factory's instruction data (no rejected answer) for SFT: one answer a prompt.

An example made here has an empty `rejected`; it can be trained on by SFT and probed, not by DPO.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from squeeze.data import dataset_info
from squeeze.data.examples import PreferenceExample, content_id
from squeeze.data.layouts import Layout
from squeeze.data.rows import Row, RowError, RowReader
from squeeze.data.sources import LLAMA_FACTORY, Source, open_source


@dataclass(frozen=True)
class Demonstrations(Layout):
    """The layout of rows whose answers are all wanted."""

    def examples(self, row: Row) -> list[PreferenceExample]:
        """The row's answer as chosen; raises `RowError` for an empty prompt or answer."""
        one = self.demonstration(row)
        if not one.prompt or not one.prompt[-1].content.strip():
            raise RowError("empty prompt", "has an empty prompt")
        if not one.completion.strip():
            raise RowError("empty answer", "has an empty answer")
        identity = one.id or content_id(one.prompt, one.completion, "")
        return [PreferenceExample(identity, one.prompt, one.completion, rejected="")]


def open_demonstrations(info: Path, name: str) -> Source:
    """The data set `name` of a dataset_info.json, with or without rejected answers.

    Raises `InputError` as `dataset_info.choose` does.
    """
    dataset = dataset_info.choose(info, name, preference=False)
    if dataset.ranking or "kto_tag" in dataset.columns:
        return open_source(info, None, name)
    assert dataset.file is not None  # `choose` sees to it
    pairs = dataset_info.layout(dataset)
    columns = replace(pairs.columns, completion=pairs.columns.answers, answers="")
    return Source(
        RowReader(dataset.file),
        f"{LLAMA_FACTORY}:{dataset.name}",
        Demonstrations(columns, tags=pairs.tags),
        None,
    )
