"""Whatever a format can hold comes back from it unchanged; what it cannot hold it refuses."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from squeeze.data.convert import _lost
from squeeze.data.examples import PreferenceExample, content_id
from squeeze.data.formats import FORMATS
from squeeze.data.pairing import pair_rows
from squeeze.data.rows import RowError
from squeeze.data.sources import open_source
from squeeze.data.writing import WRITABLE, lossless, open_writer, rows_of
from tests.data.strategies import Parts, examples

pytestmark = pytest.mark.cpu

PAIRED = [name for name in WRITABLE if not FORMATS[name].unpaired]


def held(example: PreferenceExample, format: str) -> PreferenceExample:
    """What the format holds of the example."""
    carries = FORMATS[format].carries
    lost = {entry.removeprefix("response ") for entry in _lost(example, carries)}
    responses = {k: v for k, v in example.responses.items() if k not in lost}
    if format == "comparison":
        ranked = sorted(k for k in responses if k.startswith("rank_"))
        responses = {f"rank_{n}": responses[k] for n, k in enumerate(ranked, start=2)}
    if "id" in carries:
        return replace(example, responses=responses)
    identity = content_id(example.prompt, example.chosen, example.rejected)
    return replace(example, id=identity, responses=responses)


@pytest.mark.parametrize("format", PAIRED)
@given(parts=examples)
@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much])
def test_an_example_comes_back_from_the_row_it_was_written_as(format: str, parts: Parts) -> None:
    example = parts.build()
    try:
        (row,) = rows_of(example, format)
    except RowError:
        assume(False)
    (read,) = FORMATS[format].layout.examples(json.loads(json.dumps(row, ensure_ascii=False)))
    assert read == held(example, format)


@pytest.mark.parametrize("format", PAIRED)
@given(parts=examples)
@settings(max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])
def test_a_written_row_is_recognised_as_its_format_alone(format: str, parts: Parts) -> None:
    example = parts.build()
    try:
        (row,) = rows_of(example, format)
    except RowError:
        assume(False)
    fitting = {name for name, other in FORMATS.items() if other.matches(row)}
    if format == "trl" and row["prompt"].startswith(("\n\nHuman:", "\n\nAssistant:")):
        assert fitting == {"hh"}  # such a text is a dialogue in any other program's file
    else:
        assert fitting == {format}


@given(parts=examples)
@settings(max_examples=40)
def test_unpaired_rows_come_back_as_the_pair_they_were(parts: Parts) -> None:
    example = parts.build()
    rows = rows_of(example, "kto")
    parse = FORMATS["kto"].layout.unpaired
    for order in (rows, rows[::-1]):
        ((number, pair),) = pair_rows(iter(enumerate(order, start=1)), parse)
        assert number == 2
        assert pair == replace(example, responses={})


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@given(several=st.lists(examples, min_size=1, max_size=5))
@settings(max_examples=6)
def test_files_of_every_kind_bring_examples_back_unchanged(
    suffix: str, several: list[Parts]
) -> None:
    batch = list({e.id: e for e in (parts.build() for parts in several)}.values())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data{suffix}"
        with open_writer(path, suffix, "squeeze") as write:
            for example in batch:
                write(lossless(example))
        assert [item for _, item in open_source(path).examples()] == batch
