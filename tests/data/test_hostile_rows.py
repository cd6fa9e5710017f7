"""Rows that other programs get wrong: whatever JSON stands there, an example or a refusal comes."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squeeze.data.convert import convert, side_path
from squeeze.data.examples import PreferenceExample
from squeeze.data.formats import FORMATS
from squeeze.data.rows import RowError, RowReader
from squeeze.data.sources import open_source
from squeeze.data.writing import lossless
from squeeze.errors import InputError
from tests.data.test_formats import ROWS

pytestmark = pytest.mark.cpu

_LEAVES = st.sampled_from(
    [
        None,
        True,
        0,
        5,
        1.5,
        float("nan"),
        "",
        " ",
        "x",
        "\ud83d",
        "👩‍👩‍👧",
        "a\0b",
        [],
        {},
        [[]],
        [5],
        {"a": 1},
    ]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to every value within a row."""
    inner: list[tuple[Any, ...]] = []
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            inner += [(*path, key), *places(part, (*path, key))]
    return inner


@pytest.mark.parametrize("shape", ROWS)
@given(data=st.data())
@settings(max_examples=12)
def test_any_json_in_any_place_gives_an_example_or_a_refusal(
    shape: str, data: st.DataObject
) -> None:
    row = copy.deepcopy(data.draw(st.sampled_from(ROWS[shape])))
    for _ in range(data.draw(st.integers(1, 3))):
        *outer, last = data.draw(st.sampled_from(places(row)))
        holder = row
        for key in outer:
            holder = holder[key]
        holder[last] = copy.deepcopy(data.draw(_LEAVES))  # a later one may change it
        if not places(row):
            break
    known = FORMATS[shape.split()[0]]
    for other in FORMATS.values():
        other.matches(row)
    try:
        read = [known.layout.unpaired(row)] if known.unpaired else known.layout.examples(row)
    except RowError as error:
        str(error).encode("utf-8")  # can be printed, whatever the row holds
        return
    for example in read:
        if isinstance(example, PreferenceExample):
            json.dumps(lossless(example), ensure_ascii=False).encode("utf-8")


def test_what_is_refused_of_a_wild_file_adds_up_and_can_be_told(tmp_path: Path) -> None:
    good = {"prompt": "Q?", "chosen": "yes", "rejected": "no"}
    wild = [good, [1], "x", None, 3, good | {"prompt": 5}, good | {"chosen": "\ud800"}]
    wild += [{"\ud800": 1, **good}, good | {"rejected": "yes"}, good | {"prompt": "مرحبا 👩‍👩‍👧\0"}]
    source = tmp_path / "in.jsonl"
    text = "\ufeff" + "\r\n\r\n".join(json.dumps(row) for row in wild) + "\r\n{broken"
    source.write_text(text, encoding="utf-8", newline="")
    out = tmp_path / "out.jsonl"
    summary = convert(source, out, "trl")
    assert (summary.rows_in, summary.examples) == (11, 2)
    assert sum(summary.refused.values()) == 9
    refused = [json.loads(line) for line in side_path(out).read_text().splitlines()]
    # Blank lines are lines, so that a row's number is what an editor shows.
    assert [r["row"] for r in refused] == [3, 5, 7, 9, 11, 13, 15, 17, 20]
    assert json.loads(out.read_text(encoding="utf-8").splitlines()[1])["prompt"] == "مرحبا 👩‍👩‍👧\0"


def test_unpaired_parquet_rows_with_dates_and_bytes_pair(tmp_path: Path) -> None:
    import datetime

    import pyarrow as pa
    import pyarrow.parquet as pq

    day = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    rows = [
        {"prompt": "Q?", "completion": c, "label": c == "yes", "when": day, "raw": b"\xff"}
        for c in ("yes", "no", "maybe")
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    (_, pair), (number, alone) = open_source(tmp_path / "in.parquet").examples()
    assert isinstance(pair, PreferenceExample)
    assert isinstance(alone, RowError)
    assert (number, pair.chosen, alone.row["completion"]) == (3, "yes", "maybe")


GOOD = b'{"prompt": "Q?", "chosen": "yes", "rejected": "no"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.csv", b"prompt,chosen,rejected\n", "is empty"),
        ("d.csv", b"prompt,chosen,chosen\nQ?,yes,no\n", "no header of distinct names"),
        ("d.csv", b"\x00\xff\n1,2\n", "cannot be read"),
        ("d.arrow", GOOD, "is not a file of Arrow"),
        ("d.txt", GOOD, "data files end in"),
        ("d.jsonl", GOOD.decode().encode("utf-16"), "not UTF-8 but UTF-16"),
        (
            "d.json",
            json.dumps(json.loads(GOOD), indent=1).encode()[:-2],
            "one array of objects, or",
        ),
        (
            "d.json",
            b'{"train": [' + GOOD.strip() + b'], "test": [{"x": 1}]}',
            "several lists of rows",
        ),
        ("d.jsonl.gz", GOOD, "Not a gzipped file"),
        ("d.jsonl.gz", gzip.compress(GOOD * 1000)[:-9], "cannot be read"),
        ("d.parquet", GOOD, "is not a file of Parquet"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_one_sentence(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(open_source(tmp_path / name).examples())


def test_a_directory_lists_its_files_and_capitals_in_the_extension_do_not_matter(
    tmp_path: Path,
) -> None:
    (tmp_path / "DATA.JSONL").write_bytes(GOOD)
    with pytest.raises(InputError, match=r"is a directory; give one of its files \(DATA\.JSONL\)"):
        RowReader(tmp_path)
    assert len(list(RowReader(tmp_path / "DATA.JSONL"))) == 1


@pytest.mark.parametrize("messages", [{"-1": {"candidates": [{}, {}]}}, {"a": 1}])
def test_a_mapping_in_the_place_of_messages_is_refused(messages: Any) -> None:
    layout = next(f for f in FORMATS.values() if ".-1." in f.layout.columns.answers).layout
    with pytest.raises(RowError, match="no list of messages"):
        layout.examples({"messages": messages})
