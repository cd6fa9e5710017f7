"""Boundaries of data files: strangers stay, pipes and bombs are refused, damage stays local."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from squeeze.data import rating, rows
from squeeze.data.convert import convert, side_path
from squeeze.data.loading import load_examples
from squeeze.data.rows import RowError, RowReader
from squeeze.data.sources import open_source
from squeeze.data.turns import DIALOGUES
from squeeze.errors import InputError
from squeeze.jsonc import strip_comments
from squeeze.scan.files import _kept, check_target
from squeeze.trajectory import Trajectory

pytestmark = pytest.mark.cpu

GOOD = json.dumps({"prompt": "Q?", "chosen": "yes", "rejected": "no"}) + "\n"


def test_the_input_is_never_the_file_of_refused_rows(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl.refused.jsonl"
    source.write_text(GOOD)
    with pytest.raises(InputError, match="is the input"):
        convert(source, tmp_path / "a.jsonl", "alpaca")
    assert source.read_text() == GOOD


def test_the_input_is_never_the_output_by_whatever_name(tmp_path: Path) -> None:
    source, linked, hard = (tmp_path / f"{name}.jsonl" for name in ("a", "linked", "hard"))
    source.write_text(GOOD)
    linked.symlink_to(source)
    hard.hardlink_to(source)
    for target in (source, linked, hard):
        with pytest.raises(InputError, match="is the input; choose another"):
            convert(source, target, "alpaca", force=True)
        assert source.read_text() == linked.read_text() == hard.read_text() == GOOD


def test_a_strangers_file_is_not_taken_for_refused_rows_or_a_stopped_scan(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(GOOD)
    out = tmp_path / "out.jsonl"
    side_path(out).write_text("mine\n")
    with pytest.raises(InputError, match="no file of refused rows"):
        convert(source, out, "alpaca")
    assert side_path(out).read_text() == "mine\n"
    partial = tmp_path / "scan.csv.partial.jsonl"
    partial.write_text("mine\n")
    with pytest.raises(InputError, match="no stopped scan"), _kept(tmp_path / "scan.csv", {}):
        pass
    assert partial.read_text() == "mine\n"


def test_a_pipe_or_device_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(InputError, match="is a pipe or a device"):
            load_examples(str(path))


def test_a_gzip_bomb_and_an_endless_line_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_UNPACKED", 1 << 20)
    monkeypatch.setattr(rows, "_MAX_ROW", 1 << 19)
    bomb = tmp_path / "bomb.jsonl.gz"
    bomb.write_bytes(gzip.compress((b" " * 99 + b"\n") * (80 << 10)))
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        list(RowReader(bomb))
    monkeypatch.setattr(rows, "_BLANK", 1000)
    with pytest.raises(InputError, match="1,000 blank lines"):
        list(RowReader(_written(tmp_path / "blank.jsonl", GOOD + "\n" * 2000)))
    endless = tmp_path / "endless.jsonl"
    endless.write_bytes(b'{"prompt": "' + b"a" * (1 << 20))
    with pytest.raises(InputError, match="row 1 is longer than"):
        list(RowReader(endless))


def test_a_gzip_file_that_is_damaged_inside_is_one_sentence(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"".join(GOOD.encode() + bytes([i % 250]) for i in range(4000))))
    for place in range(200, len(data) - 8, 3):
        data[place] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        list(RowReader(tmp_path / "a.jsonl.gz"))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_one_broken_entry_of_a_dataset_info_leaves_the_others_usable(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({**json.loads(GOOD), "instruction": "Q?"}))
    info = tmp_path / "dataset_info.json"
    entry = {"file_name": "rows.jsonl", "ranking": True}
    info.write_text(json.dumps({"broken": [1], "odd": entry | {"ranking": 3}, "mine": entry}))
    assert len(list(open_source(info).examples())) == 1
    with pytest.raises(InputError, match="'broken' must be an object"):
        open_source(info, name="broken")


@pytest.mark.parametrize("piece", ["/*", '"\\', '"a', ", ", "// a\n"])
def test_comments_are_stripped_in_time_that_grows_with_the_length(piece: str) -> None:
    """Eight times the text in far less than 64 times the time; the square is what it once was."""

    def seconds(n: int) -> float:
        start = time.process_time()
        strip_comments(piece * n)
        return time.process_time() - start

    assert seconds(80_000) < 24 * max(seconds(10_000), 0.01)


def _repeated_rows(path: Path) -> None:
    rows = pa.table({name: [name] * 600_000 for name in ("prompt", "chosen", "rejected")})
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for _ in range(2):
            writer.write_table(rows)


def _repeated_cells(path: Path) -> None:
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * 2000), pa.array(["x" * 10**6]))
    texts = pa.array(["no"] * 2000)
    pq.write_table(pa.table({"prompt": cells, "chosen": texts, "rejected": texts}), path)


def _repeated_messages(path: Path) -> None:
    cells = pa.DictionaryArray.from_arrays(
        pa.array([0] * 2000, pa.int32()), pa.array(["x" * 10**6])
    )
    turns = pa.StructArray.from_arrays([cells], ["content"])
    lists = pa.ListArray.from_arrays(pa.array(range(2001), pa.int32()), turns)
    pq.write_table(pa.table({"prompt": lists}), path)


@pytest.mark.parametrize("write", [_repeated_rows, _repeated_cells, _repeated_messages])
def test_parquet_that_unpacks_to_far_more_than_it_is_is_refused(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "bomb.parquet"
    write(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match=r"rows in|unpack to more"):
        next(iter(RowReader(path)))
    with pytest.raises(InputError, match=r"rows in|unpack to more"):
        Trajectory.read(path)


def test_a_type_that_no_row_has_is_one_sentence(tmp_path: Path) -> None:
    maps = pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32()))
    pq.write_table(pa.table({"prompt": ["q"], "more": maps}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="cannot be read"):
        list(RowReader(tmp_path / "a.parquet"))


def test_rows_behind_a_dataset_info_are_never_the_output(tmp_path: Path) -> None:
    rows, info = tmp_path / "rows.jsonl", tmp_path / "dataset_info.json"
    rows.write_text(json.dumps({**json.loads(GOOD), "instruction": "Q?"}) + "\n")
    kept = rows.read_text()
    info.write_text(json.dumps({"mine": {"file_name": "rows.jsonl", "ranking": True}}))
    with pytest.raises(InputError, match="holds the rows"):
        convert(info, rows, "trl", name="mine", force=True)
    with pytest.raises(InputError, match="is the data itself"):
        check_target(rows, "--out", f"{info}:mine", True, (".jsonl", ".csv"))
    assert rows.read_text() == kept


def test_an_end_of_many_blanks_is_read_at_once() -> None:
    """A pattern that tried the end from each of them would take minutes."""
    said = DIALOGUES[-1].said("yes" + " " * 200_000 + "x")
    assert said.endswith("x")
    assert DIALOGUES[-1].said("yes </s> \n") == "yes "
    assert DIALOGUES[-1].said("yes \n ") == "yes"


def test_pairs_of_all_with_all_are_bounded() -> None:
    rated = [(float(n), (str(n), {})) for n in range(rating.MOST_ANSWERS + 1)]
    with pytest.raises(RowError, match="take --pairs-by best-worst"):
        rating.pairs(rated, "all")
    assert len(rating.pairs(rated, "first-rest")[0]) == rating.MOST_ANSWERS
