"""One run in the print formats of real trainers and trackers: read alike, and judged alike."""

import json
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeeze.diagnosis import RunSeries, diagnose, load
from squeeze.diagnosis.readers.registry import readers
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu

Record = dict[str, Any]


def records(n: int = 30, seed: int = 0) -> list[Record]:
    """Chosen rises to 2 and falls back to 0.8 at its end; rejected falls all the time."""
    rng = np.random.default_rng(seed)
    t = np.linspace(1 / n, 1, n)
    chosen = np.interp(t, [0, 0.3, 1], [0, 2.0, 0.8]) + rng.normal(0, 0.03, n)
    rejected = -4 * t + rng.normal(0, 0.03, n)
    return [
        {
            "step": 2 * (i + 1),
            "loss": float(np.logaddexp(0, -(c - r))) + 0.001,
            "rewards/chosen": round(float(c), 4),
            "rewards/rejected": round(float(r), 4),
            "rewards/margins": round(float(c - r), 4),
        }
        for i, (c, r) in enumerate(zip(chosen, rejected, strict=True))
    ]


RECORDS = records()


def _lines(show: Callable[[Record], str]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_text("loading weights: 100%\n" + "".join(show(r) + "\n" for r in RECORDS))
        return path

    return write


def _step(r: Record) -> str:
    return f"{r['step']}/60 [00:12<01:02,  1.02s/it"


def _swift(r: Record) -> str:
    shown = {k: v for k, v in r.items() if k != "step"}
    shown["global_step/max_steps"] = f"{r['step']}/60"
    return f"Train: {_step(r)}]{shown}"


def _axolotl(r: Record) -> str:
    shown = {k: str(v) for k, v in r.items() if k != "step"}
    return f" 3%|██  | {_step(r)}]\x1b[A\n{shown}"


def _factory(r: Record) -> str:
    shown = {k: v for k, v in r.items() if k != "step"} | {"epoch": round(r["step"] / 30, 2)}
    return f"[INFO|2026-11-25 10:00:01] llamafactory.train.callbacks:143 >> {shown}"


def _openrlhf(r: Record) -> str:
    return (
        f"Train step of epoch 0:  3%|█▎  | {_step(r)}, loss={r['loss']:.3g}, acc=1, "
        f"chosen_reward={r['rewards/chosen']:.3g}, reject_reward={r['rewards/rejected']:.3g}]"
    )


def _verl(r: Record) -> str:
    return (
        f"step:{r['step']} - actor/dpo_loss:{r['loss']:.3f} - actor/loss:{r['loss']:.3f} - "
        f"actor/rewards_chosen:{r['rewards/chosen']:.3f} - "
        f"actor/rewards_rejected:{r['rewards/rejected']:.3f} - actor/grad_norm:1.2"
    )


def _torchtune(r: Record) -> str:
    return (
        f"Step {r['step']} | loss:{r['loss']:.5f} lr:2e-05 tokens_per_second_per_gpu:512.1 "
        f"rewards/chosen:{r['rewards/chosen']} rewards/rejected:{r['rewards/rejected']} "
    )


def _nemo(r: Record) -> str:
    return (
        f"\n========================= Step {r['step']}/60 =========================\n"
        f"📊 Training Results:\n  • Loss: {r['loss']:.4f}\n  • SFT Loss: 0.0\n"
        f"  • Rewards chosen mean: {r['rewards/chosen']}\n"
        f"  • Rewards rejected mean: {r['rewards/rejected']}"
    )


def _mlx(r: Record) -> str:
    return (
        f"Iter {r['step']}: Train loss {r['loss']:.3f}, Chosen reward {r['rewards/chosen']:.3f}, "
        f"Rejected reward {r['rewards/rejected']:.3f}, Accuracy 1.000, Margin "
        f"{r['rewards/margins']:.3f}, Learning Rate 1.000e-05, It/sec 0.103, Peak mem 9.1 GB"
    )


def _wrapped(path: Path) -> Path:
    """As copied from a terminal of 70 columns."""
    lines: list[str] = []
    for r in RECORDS:
        text = str({k: v for k, v in r.items() if k != "step"})
        lines += [text[i : i + 70] for i in range(0, len(text), 70)]
    path.write_text("\n".join(lines) + "\n")
    return path


def _table(separator: str, head: str = "", tail: str = "") -> Callable[[Path], Path]:
    names = [n for n in RECORDS[0] if n != "loss"]

    def write(path: Path) -> Path:
        rows = [names, *([f"{r[n]}" for n in names] for r in RECORDS)]
        if separator == "|":
            rows.insert(1, ["---"] * len(names))
            rows[3] = [f"**{cell}**" if not cell.startswith("-") else cell for cell in rows[3]]
            rows.append(["mean", *("0.1",) * (len(names) - 1)])
        body = "\n".join(separator.join(row) for row in rows)
        text = head + body.replace("-0.", "\N{MINUS SIGN}0.") + "\n" + tail
        path.write_text(text)
        return path

    return write


def _html(path: Path) -> Path:
    names = [n for n in RECORDS[0] if n != "loss"]
    head = "".join(f"<th>{n}</th>" for n in names)
    body = "".join(f"<tr>{''.join(f'<td>{r[n]}</td>' for n in names)}</tr>" for r in RECORDS)
    path.write_text(f"<html><p>my run</p><table><tr>{head}</tr>{body}</table></html>")
    return path


def notebook(path: Path, *outputs: dict[str, Any]) -> Path:
    cells = [{"cell_type": "code", "source": ["train()"], "outputs": [o]} for o in outputs]
    path.write_text(json.dumps({"cells": cells, "nbformat": 4, "metadata": {}}))
    return path


def _notebook(path: Path) -> Path:
    html = _html(path.with_suffix(".tmp")).read_text()
    shown = {"text/html": [html], "text/plain": ["<IPython.core.display.HTML object>"]}
    return notebook(path, {"output_type": "display_data", "data": shown})


def _streamed(path: Path) -> Path:
    return notebook(path, {"output_type": "stream", "text": [f"{r}\n" for r in RECORDS]})


def _chunk(number: int, value: bytes | int) -> bytes:
    """A field in protocol buffers' wire format."""

    def varint(n: int) -> bytes:
        return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def _events(path: Path) -> Path:
    """TFRecords of tensorflow.Event, with simple values and with a tensor."""
    path.mkdir()
    with (path / "events.out.tfevents.1700000000.host").open("wb") as file:
        for r in RECORDS:
            for name in ("rewards/chosen", "rewards/rejected"):
                number = struct.pack("<f", r[name])
                tensor = _chunk(1, 1) + _chunk(4, number)
                scalar = bytes([2 << 3 | 5]) + number if r["step"] % 4 else _chunk(8, tensor)
                value = _chunk(1, f"train/{name}".encode()) + scalar
                event = struct.pack("<Bd", 1 << 3 | 1, 1.7e9) + _chunk(2, r["step"])
                event += _chunk(5, _chunk(1, value))
                file.write(struct.pack("<QI", len(event), 0) + event + b"\0\0\0\0")
    return path


def _wandb_offline(path: Path) -> Path:
    """LevelDB's log of wandb_internal.Record; records that cross a block come in parts."""
    run = path / "wandb" / "offline-run-20261125_100000-abc"
    run.mkdir(parents=True)
    messages = [_chunk(17, _chunk(8, b"brave-fox"))]
    for r in RECORDS:
        items = [
            _chunk(1, _chunk(2, k.encode()) + _chunk(16, json.dumps(v).encode()))
            for k, v in ({f"train/{k}": v for k, v in r.items()} | {"pad": "x" * 3000}).items()
        ]
        messages.append(_chunk(2, b"".join(items)))
    data = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
    for message in messages:
        first = True
        while True:
            left = 32768 - len(data) % 32768
            if left < 7:
                data += b"\0" * left
                continue
            part, message = message[: left - 7], message[left - 7 :]
            kind = (1 if not message else 2) if first else (4 if not message else 3)
            data += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
            if not message:
                break
    (run / "run-abc.wandb").write_bytes(data)
    return path


def _trackio(path: Path) -> Path:
    with sqlite3.connect(path) as opened:
        opened.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, "
            "step INTEGER, metrics TEXT)"
        )
        for i, r in enumerate(RECORDS):
            shown = {f"train/{k}": v for k, v in r.items() if k != "step"}
            row = ("", "run-1", i, json.dumps(shown | {"train/global_step": r["step"]}))
            opened.execute(
                "INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?,?,?,?)", row
            )
    return path


def _mlflow(path: Path) -> Path:
    run = path / "mlruns" / "0" / "f00d"
    for name in ("rewards/chosen", "rewards/rejected"):
        file = run / "metrics" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"1700000000000 {r[name]} {r['step']}\n" for r in RECORDS))
    (run / "meta.yaml").write_text("run_id: f00d\nrun_name: calm-owl-1\n")
    return path / "mlruns"


def _mlflow_database(path: Path) -> Path:
    with sqlite3.connect(path) as opened:
        opened.execute("CREATE TABLE runs (run_uuid TEXT, name TEXT)")
        opened.execute("INSERT INTO runs VALUES ('f00d', 'calm-owl-1')")
        opened.execute(
            "CREATE TABLE metrics (key TEXT, value DOUBLE, timestamp BIGINT, run_uuid TEXT, "
            "step BIGINT, is_nan BOOLEAN)"
        )
        for r in RECORDS:
            for name in ("rewards/chosen", "rewards/rejected"):
                row = (name, r[name], 0, "f00d", r["step"], False)
                opened.execute("INSERT INTO metrics VALUES (?,?,?,?,?,?)", row)
    return path


FORMATS: list[tuple[str, str, Callable[[Path], Path]]] = [
    ("ms-swift", "a.log", _lines(_swift)),
    ("ms-swift's logging.jsonl", "logging.jsonl", _lines(json.dumps)),
    ("axolotl", "a.log", _lines(_axolotl)),
    ("LLaMA-Factory", "a.log", _lines(_factory)),
    ("OpenRLHF", "a.log", _lines(_openrlhf)),
    ("verl", "a.log", _lines(_verl)),
    ("torchtune", "a.log", _lines(_torchtune)),
    ("NeMo-RL", "a.log", _lines(_nemo)),
    ("mlx-lm", "a.log", _lines(_mlx)),
    ("wrapped by a terminal", "a.txt", _wrapped),
    ("Markdown in an issue", "a.md", _table("|", "I see this:\n\n", "\nIs it a bug?\n")),
    ("columns of blanks", "a.txt", _table("    ", "my log\n", "done.\n")),
    ("web page", "a.html", _html),
    ("notebook's table", "a.ipynb", _notebook),
    ("notebook's lines", "a.ipynb", _streamed),
    ("TensorBoard", "runs", _events),
    ("W&B offline", "out", _wandb_offline),
    ("trackio", "project.db", _trackio),
    ("MLflow's files", "out", _mlflow),
    ("MLflow's database", "mlflow.db", _mlflow_database),
]


def _read(name: str, write: Callable[[Path], Path], directory: Path) -> RunSeries:
    if name == "logging.jsonl":
        path = directory / name
        path.write_text("".join(json.dumps(r) + "\n" for r in RECORDS))
    else:
        path = write(directory / name)
    (run,) = load(path)
    return run


@pytest.mark.parametrize(("name", "write"), [f[1:] for f in FORMATS], ids=[f[0] for f in FORMATS])
def test_one_run_is_read_and_judged_alike_in_every_format(
    name: str, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    run = _read(name, write, tmp_path)
    d = diagnose(run)
    assert (d.verdict, d.split or "train") == ("displacement", "train")
    chosen = next(s for s in run.series if s.quantity == "chosen_reward")
    expected = [r["rewards/chosen"] for r in RECORDS]
    np.testing.assert_allclose(chosen.values, expected, rtol=0.01, atol=0.001)
    rejected = next(s for s in run.series if s.quantity == "rejected_reward")
    np.testing.assert_allclose(
        rejected.values, [r["rewards/rejected"] for r in RECORDS], rtol=0.01, atol=0.001
    )


def test_every_module_of_readers_that_registers_is_listed_once() -> None:
    names = [r.name for r in readers()]
    assert len(names) == len(set(names)) >= 15


def test_summary_rows_are_left_out_with_a_note(tmp_path: Path) -> None:
    (run,) = load(_table("|")(tmp_path / "a.md"))
    assert any("summary rows" in n for n in run.notes)


def test_two_tables_are_a_question(tmp_path: Path) -> None:
    one = _table("|")(tmp_path / "a.md").read_text()
    (tmp_path / "b.md").write_text(one + "\nand with lr 1e-6:\n\n" + one.replace("0.1", "0.2"))
    with pytest.raises(InputError, match="holds 2 tables"):
        load(tmp_path / "b.md")


def test_a_notebook_with_two_runs_asks_which(tmp_path: Path) -> None:
    texts = [[f"{r}\n" for r in records(seed=s)] for s in (0, 1)]
    path = notebook(tmp_path / "a.ipynb", *({"output_type": "stream", "text": t} for t in texts))
    with pytest.raises(InputError, match="shows 2 runs: cell 1"):
        load(path)


def test_two_writers_of_events_are_two_runs(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("Nov25_10-00-00_host", "Nov25_11-00-00_host"):
        _events(tmp_path / "runs" / name)
    assert len(load(tmp_path / "runs")) == 2


def test_cut_event_file_is_read_to_its_end(tmp_path: Path) -> None:
    directory = _events(tmp_path / "runs")
    (file,) = directory.iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    (run,) = load(directory)
    assert any("mid-record" in n for n in run.notes)


def test_table_without_validation_loss_is_training_and_with_it_an_evaluation(
    tmp_path: Path,
) -> None:
    for extra, split in ((None, "train"), ("Validation Loss", "eval")):
        rows = [["Step", "Training Loss", "Rewards/chosen", *([extra] if extra else [])]]
        rows += [[str(i), "0.5", str(0.1 * i), *(["0.6"] if extra else [])] for i in range(9)]
        for separator, name in (("\t", "a.tsv"), (",", "a.csv"), ("|", "a.md")):
            path = tmp_path / name
            path.write_text("\n".join(separator.join(row) for row in rows))
            (run,) = load(path)
            assert run.splits() == [split]


def test_a_run_without_steps_that_starts_again_is_not_merged(tmp_path: Path) -> None:
    values = [{"chosen": -100 - i / 7, "argmax": -50 + i / 9} for i in range(20)]
    again = [*values[:9], values[0], *values[9:]]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in again))
    (run,) = load(path)
    assert len(run.series[0]) == 20
    assert any("line 1 and those after it" in n for n in run.notes)


def test_an_aborted_start_is_left_out_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [*records(n=4, seed=3), *RECORDS]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    (run,) = load(path)
    assert len(run.series[0]) == len(RECORDS)
    assert any("aborted start" in n for n in run.notes)


# --- bounds -------------------------------------------------------------------------------------


def test_long_log_is_thinned_with_a_note_and_keeps_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squeeze.diagnosis.readers.text.KEPT", 20_000)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records(n=2000)))
    (run,) = load(path)
    assert len(run.series[0]) < 200
    assert run.series[0].steps[0] == 2
    assert any("th was read" in n for n in run.notes)


@pytest.mark.parametrize("unit", ["a/", "x y ", "{'", "loss: ", "- ", "|", "1,", '{"a'])
def test_very_long_lines_of_anything_end_soon(unit: str, tmp_path: Path) -> None:
    import time

    path = tmp_path / "a.log"
    path.write_text((unit * (200_000 // len(unit)) + "\n") * 2)
    begun = time.perf_counter()
    with pytest.raises(InputError):
        load(path)
    assert time.perf_counter() - begun < 10


def test_a_pipe_and_too_many_columns_are_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.log")
    with pytest.raises(InputError, match="is a pipe"):
        load(tmp_path / "a.log")
    path = tmp_path / "a.csv"
    path.write_text(",".join(f"c{i}" for i in range(30_000)) + "\n")
    with pytest.raises(InputError, match="30000 columns"):
        load(path)


def test_a_bomb_of_gzip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr("squeeze.diagnosis.readers.text.LARGEST", 2**22)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"loss": 1}\n' * 2**20))
    with pytest.raises(InputError, match="unpacked"):
        load(path)
