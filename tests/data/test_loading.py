"""Data for a run: one clear sentence for every kind of bad input, and the fixed split."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.loading import data_sha256, load_examples, split
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu

GOOD = {"prompt": "Q?", "chosen": "yes", "rejected": "no"}


def pairs(count: int) -> list[PreferenceExample]:
    """Two pairs to every prompt."""
    prompts = [(Message("user", f"Q{n // 2}?"),) for n in range(count)]
    return [PreferenceExample(f"id{n}", prompt, "yes", "no") for n, prompt in enumerate(prompts)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (json.dumps(GOOD) + "\n{oops", "row 2 is not JSON"),
        (json.dumps(GOOD) + '\n{"prompt": "Q", "chosen": "a"}', "row 2 has no 'rejected'"),
        (json.dumps(GOOD | {"chosen": ""}), "row 1 has an empty 'chosen' response"),
        (
            json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"rejected": 3}),
            "row 2 has a int in 'rejected'",
        ),
        (
            json.dumps(GOOD | {"rejected": "yes"}),
            "row 1 has the same text as 'chosen' and 'rejected'",
        ),
        (
            "\n".join(json.dumps(GOOD | {"id": 7, "chosen": c}) for c in "ab"),
            "row 2 has the id '7', which row 1",
        ),
        ('{"text": "a"}', "has no format that is known here"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_the_row_and_the_field(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_examples(str(path))


def test_a_missing_file_and_an_unknown_name_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.jsonl does not exist"):
        load_examples(str(tmp_path / "gone.jsonl"))
    with pytest.raises(InputError, match="did you mean 'enthusiastic_zh'"):
        load_examples("enthusiastic-zh")
    (tmp_path / "data.txt").write_text("x")
    with pytest.raises(InputError, match="data files end in"):
        load_examples(str(tmp_path / "data.txt"))


def test_a_broken_parquet_file_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(InputError, match="is not a file of Parquet"):
        load_examples(str(path))


def test_empty_extra_responses_are_left_out_because_nothing_can_be_scored(tmp_path: Path) -> None:
    row: dict[str, Any] = GOOD | {"human": "a sentence", "initial": " "}
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row))
    (example,) = load_examples(str(path))
    assert dict(example.responses) == {"human": "a sentence"}


def test_the_checksum_is_that_of_the_rows_behind_a_dataset_info(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"instruction": "Q?", "chosen": "yes", "rejected": "no"}))
    info = tmp_path / "dataset_info.json"
    info.write_text(json.dumps({"mine": {"file_name": "rows.jsonl", "ranking": True}}))
    assert data_sha256(f"{info}:mine") == data_sha256(str(rows))
    assert len(load_examples(f"{info}:mine")) == 1


def test_the_split_ignores_the_files_order_and_only_orders_by_the_seed() -> None:
    examples = pairs(60)
    shuffled = random.Random(1).sample(examples, len(examples))
    assert split(examples, 10, 5, seed=3) == split(shuffled, 10, 5, seed=3)
    first, second = split(examples, 10, 5, seed=3), split(examples, 10, 5, seed=4)
    assert first != second
    assert split(examples, 5, 5, seed=3)[0] == first[0][:5]


def test_no_held_out_prompt_is_trained_on_and_about_a_third_is_held_out() -> None:
    examples = pairs(600)
    with pytest.raises(InputError, match=r"has \d+ held-out pairs") as caught:
        split(examples, 0, 601, seed=0)
    n_held_out = int(str(caught.value).split("has ")[1].split()[0])
    train, held_out = split(examples, 600 - n_held_out, n_held_out, seed=0)
    assert 150 < n_held_out < 250
    assert not {e.prompt for e in train} & {e.prompt for e in held_out}


@pytest.mark.parametrize(
    ("n_train", "n_held_out", "message"),
    [
        (65, 32, "has 64 training pairs, fewer than the 65 asked for; lower --pairs"),
        (64, 33, "has 32 held-out pairs, fewer than the 33 asked for; lower --held-out"),
        (-1, 0, "--pairs must not be negative"),
    ],
)
def test_too_few_pairs_name_the_flag_to_lower(n_train: int, n_held_out: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split(load_examples("enthusiastic_en"), n_train, n_held_out, seed=0)


def test_a_parquet_file_without_rows_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    rows = pa.Table.from_pylist([{"prompt": "Q?", "chosen": "yes", "rejected": "no"}])
    pq.write_table(rows.slice(0, 0), path)
    with pytest.raises(InputError, match=r"d\.parquet (is empty|cannot be read)"):
        load_examples(str(path))
