"""Logs that would wait, calculate or grow for ever, and pages that would replace what is there."""

import json
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from squeeze.cli import app
from squeeze.diagnosis import diagnose, load
from squeeze.diagnosis.growing import watch
from squeeze.diagnosis.page import report
from squeeze.diagnosis.readers import tensorboard
from squeeze.errors import InputError
from tests.diagnosis.logs import jsonl, trainer_state, trl_records
from tests.report import synthetic

pytestmark = pytest.mark.cpu
DEEP = "[" * 100_000


@pytest.mark.parametrize("name", ["events.out.tfevents.1", "run-1.wandb", "chart.csv"])
def test_a_pipe_in_a_directory_is_passed_by(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    jsonl(tmp_path / "log.jsonl", trl_records())
    assert len(load(tmp_path)) == 1


def test_a_file_of_no_size_is_not_waited_for(tmp_path: Path) -> None:
    """As those of /proc are, whatever reading them gives."""
    (tmp_path / "log.txt").touch()
    with pytest.raises(InputError, match="is empty"):
        load(tmp_path / "log.txt")


def _sqlite(path: Path, *commands: str, row: tuple[object, ...] = ()) -> None:
    with sqlite3.connect(path) as opened:
        for command in commands:
            opened.execute(command, row if "?" in command else ())


def _endless_view(path: Path) -> None:
    counting = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM t)"
    _sqlite(
        path,
        f"CREATE VIEW metrics AS {counting} SELECT 'r' AS run_name, n AS step, '' AS metrics "
        "FROM t",
    )


def _deep_metrics(path: Path) -> None:
    table = "CREATE TABLE metrics(run_name, step, metrics)"
    _sqlite(path, table, "INSERT INTO metrics VALUES('r', 1, ?)", row=(DEEP,))


def _varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _parts(*parts: tuple[int, bytes]) -> bytes:
    """A W&B file of parts of records, none of which crosses a block."""
    data = b":W&B\xe1\xbe\0"
    for kind, part in parts:
        left = 2**15 - len(data) % 2**15
        data += b"\0" * (left if left < 7 + len(part) else 0)
        data += struct.pack("<IHB", 0, len(part), kind) + part
    return data


def _deep_item(path: Path) -> None:
    item = _message(1, b"x") + _message(16, b"[" * 20_000)
    path.write_bytes(_parts((1, _message(2, _message(1, item)))))


def _zeros(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _many_events(path: Path) -> None:
    event = bytes([9]) + b"\0" * 8  # a wall time
    record = struct.pack("<QI", len(event), 0) + event + b"\0" * 4
    path.write_bytes(record * 101)


def _cells(cells: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({"cells": cells}))


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("a.db", _endless_view, "without a table of metrics"),
        ("a.db", _deep_metrics, "nested too deeply"),
        ("run-a.wandb", _deep_item, "no column that a diagnosis can use|holds no history"),
        ("events.out.tfevents.1", _zeros, "no sensible length"),
        ("events.out.tfevents.1", _many_events, "more than 100 events"),
        ("a.ipynb", _cells(5), "lists no cells"),
        ("a.ipynb", _cells([{"outputs": 5}, {"outputs": None}, 3]), "no cell's output"),
        ("a.ipynb", _cells([{"outputs": [{"text": [1, None]}]}]), "no cell's output"),
        ("a.ipynb", _cells([{"outputs": [{"data": {"text/html": [{}]}}]}]), "no cell's output"),
    ],
)
def test_a_hostile_file_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, write: Callable, said: str
) -> None:
    monkeypatch.setattr(tensorboard, "MOST_EVENTS", 100)
    write(tmp_path / name)
    with pytest.raises(InputError, match=said):
        load(tmp_path / name)


def test_a_directory_of_too_many_files_is_not_searched_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "MOST_FILES", 3)
    for n in range(4):
        (tmp_path / f"{n}.bin").touch()
    with pytest.raises(InputError, match="more than 3 files below it"):
        load(tmp_path)


def test_what_no_float32_holds_is_infinite(tmp_path: Path) -> None:
    """Sums of such numbers are NaN, from which no verdict may come."""
    records = trl_records(n=20)
    for sign, record in zip([1, -1] * 5, records[10:], strict=True):
        record |= {"rewards/chosen": sign * 1e308, "logps/chosen": -1e308}
    (run,) = load(jsonl(tmp_path / "a.jsonl", records))
    assert diagnose(run).verdict == "collapse"


@pytest.mark.parametrize("beta", ["nan", "inf", "0", "-1", "1e308", "1e-300"])
def test_a_beta_that_no_training_has_is_refused(tmp_path: Path, beta: str) -> None:
    log = jsonl(tmp_path / "a.jsonl", trl_records())
    result = CliRunner().invoke(app, ["diagnose", str(log), "--beta", beta])
    assert "--beta must be between" in str(result.exception)


@pytest.mark.parametrize("verdicts", ["", " , "])
def test_an_alarm_on_nothing_is_refused(tmp_path: Path, verdicts: str) -> None:
    log = jsonl(tmp_path / "a.jsonl", trl_records())
    result = CliRunner().invoke(app, ["diagnose", str(log), "--fail-on", verdicts])
    assert "--fail-on names no verdict" in str(result.exception)


def test_a_link_to_nothing_does_not_end_the_watching(tmp_path: Path) -> None:
    jsonl(tmp_path / "log.jsonl", trl_records())
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert not isinstance(next(watch([tmp_path], 1)), str)


# ---- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.json", "diagnosis.json", "index.html", "report.md"])
def test_a_page_replaces_no_strangers_file(tmp_path: Path, name: str) -> None:
    log = trainer_state(tmp_path / "trainer_state.json", trl_records())
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text('{"mine": 1}')
    with pytest.raises(InputError, match="would be overwritten"):
        report([log], out)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == '{"mine": 1}'


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_a_page_that_is_built_again_replaces_no_strangers_file(tmp_path: Path, name: str) -> None:
    log = trainer_state(tmp_path / "trainer_state.json", trl_records())
    out = tmp_path / "out"
    report([log], out)
    report([out])  # ours
    (out / name).write_text("mine")
    with pytest.raises(InputError, match="would be overwritten"):
        report([out])
    assert (out / name).read_text() == "mine"


def test_a_page_replaces_no_scores_of_another_run(tmp_path: Path) -> None:
    one, other, out = (tmp_path / name for name in ("one", "other", "out"))
    for n, run in enumerate((one, other), 5):
        run.mkdir()
        synthetic.trajectory(("run",), ("chosen", "rejected"), 4, 0, n).write(
            run / "trajectory.parquet"
        )
    kept = (other / "trajectory.parquet").read_bytes()
    with pytest.raises(InputError, match="another run"):
        report([one], other)
    assert (other / "trajectory.parquet").read_bytes() == kept
    report([one], out)
    shutil.copy(other / "trajectory.parquet", one)  # it went on
    report([one], out)
    assert (out / "trajectory.parquet").read_bytes() == kept
