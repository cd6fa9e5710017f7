"""Boundaries of data files: strangers stay, pipes and bombs are refused, damage stays local."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path

import pytest

from squeeze.data import rows
from squeeze.data.convert import convert, side_path
from squeeze.data.loading import load_examples
from squeeze.data.rows import RowReader
from squeeze.data.sources import open_source
from squeeze.errors import InputError
from squeeze.jsonc import strip_comments
from squeeze.scan.files import _kept

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
