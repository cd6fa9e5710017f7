"""Deliberately broken logs: clear words, and no verdict that their numbers do not support."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from squeeze.diagnosis import diagnose, load
from squeeze.errors import InputError
from tests.diagnosis.logs import jsonl, trainer_state, trl_records

pytestmark = pytest.mark.cpu

Write = Callable[[Path], object]


def text(content: str) -> Write:
    return lambda path: path.write_text(content)


def lines(*records: dict[str, object]) -> Write:
    return lambda path: jsonl(path, list(records))


def truncated(path: Path) -> None:
    trainer_state(path, trl_records())
    path.write_text(path.read_text()[:3000])


def two_runs(path: Path) -> None:
    jsonl(path, [*trl_records(seed=0), *trl_records(seed=1)])


LOGP = {"logps/chosen": -100.0}
UNUSABLE: list[tuple[str, str, Write, str]] = [
    ("empty", "a.jsonl", text("  \n"), "is empty"),
    ("binary", "a.json", lambda p: p.write_bytes(b"\x80\x03}q\x00"), "not UTF-8"),
    ("truncated JSON", "trainer_state.json", truncated, "cut off or not JSON"),
    ("broken line inside", "a.jsonl", text('{"a": 1}\n{"loss": \n{"a": 2}\n'), "line 2"),
    ("a list a line", "a.jsonl", text('{"loss": 1}\n[1, 2]\n{"loss": 1}\n'), "line 2 holds list"),
    ("empty history", "trainer_state.json", text('{"log_history": []}'), "log_history is empty"),
    ("history of numbers", "t.json", text('{"log_history": [1, 2]}'), "not a list of objects"),
    ("no known column", "a.jsonl", lines({"lr": 1.0}, {"lr": 2.0}), "no column"),
    ("config only", "a.json", text('{"config": {"beta": 0.1}}'), "holds no series"),
    ("unequal lengths", "a.json", text('{"chosen": [-1, -2], "argmax": [-1]}'), "unequal lengths"),
    ("PPO log", "a.jsonl", lines({"objective/kl": 1.0, "loss": 0.1}), "PPO"),
    (
        "reward model",
        "a.jsonl",
        lines({"min_reward": 0, "max_reward": 1}),
        "reward model",
    ),
    ("preference data", "a.jsonl", lines({"chosen": "yes", "rejected": "no"}), "not a number"),
    ("a word for a number", "a.jsonl", lines(LOGP, {"logps/chosen": "oops"}), "line 2.*'oops'"),
    ("a dict for a number", "a.jsonl", lines(LOGP, {"logps/chosen": {"x": 1}}), "line 2"),
    ("positive NLL", "a.jsonl", lines(*[{"logps/chosen": 150.0}] * 9), "negative log-likelihoods"),
    ("probabilities", "a.jsonl", lines(*[{"logps/chosen": 0.3}] * 9), "probabilities"),
    ("one positive", "a.jsonl", lines(LOGP, LOGP, {"logps/chosen": 3.0}), "line 3.*never positive"),
    ("negative NLL", "a.jsonl", lines(*[{"nll/chosen": -1.5}] * 9), "never negative"),
    ("only NaN", "a.jsonl", lines(*[{"logps/chosen": math.nan}] * 9), "no finite number"),
    ("two runs", "a.jsonl", two_runs, "several runs in one file"),
    ("CSV without header", "a.csv", text("1,2\n3,4\n"), "no header"),
    ("CSV with a short row", "a.csv", text("Step,rewards/chosen\n1\n2,0.1\n"), "line 2 has 1"),
    ("CSV without rows", "a.csv", text("Step,rewards/chosen\n"), "no values"),
    ("TensorBoard", "events.out.tfevents.1", text("x"), "no TensorBoard event file"),
    ("W&B", "run-1.wandb", text("x"), "no W&B run file"),
    (
        "columns that differ by case",
        "a.jsonl",
        lines({"rewards/chosen": 0.0, "Rewards/chosen": 1.0}),
        "differ by case only",
    ),
    ("prose", "notes.txt", text("it went well\n"), "no log that is known"),
    ("false parquet", "trajectory.parquet", text("no"), "not a readable trajectory"),
]


@pytest.mark.parametrize(
    ("name", "write", "message"), [c[1:] for c in UNUSABLE], ids=[c[0] for c in UNUSABLE]
)
def test_unusable_log_is_refused_in_clear_words(
    name: str, write: Write, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError, match=message) as refused:
        load(path)
    assert name in str(refused.value) or "series have unequal" in str(refused.value)


def test_missing_file_and_empty_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no trajectory\.parquet"):
        load(tmp_path)


def shuffled(path: Path) -> None:
    records = trl_records()
    jsonl(path, records[1::2] + records[::2])


def resumed(path: Path) -> None:
    records = trl_records()
    again = [r | {"rewards/chosen": r["rewards/chosen"] - 0.001} for r in records[30:40]]
    jsonl(path, records[:40] + again + records[40:])


def cut_line(path: Path) -> None:
    jsonl(path, trl_records())
    path.write_text(path.read_text()[:-200])


def nan_tail(path: Path) -> None:
    records = trl_records()
    broken = {"rewards/chosen": math.nan, "logps/chosen": math.nan}
    jsonl(path, records[:50] + [r | broken for r in records[50:]])


def unequal_fields(path: Path) -> None:
    records = trl_records()
    some = [{k: v for k, v in r.items() if k != "rewards/rejected"} for r in records[::3]]
    jsonl(path, sorted(records[1::3] + records[2::3] + some, key=lambda r: r["step"]))


@pytest.mark.parametrize(
    ("write", "note"),
    [
        (shuffled, "have been sorted"),
        (resumed, "resumed or re-logged"),
        (cut_line, "cut off"),
        (unequal_fields, ""),
    ],
)
def test_mendable_log_is_judged_and_the_mending_is_told(
    write: Write, note: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.jsonl"
    write(path)
    (run,) = load(path)
    assert any(note in n for n in (*run.notes, ""))
    assert diagnose(run).verdict == "displacement"


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([{"loss": 0.6, "step": i} for i in range(20)], "loss only"),
        ([{"rewards/chosen": -1.0, "rewards/rejected": -3.0}], "1 evaluation"),
        ([{"rewards/margins": 0.1 * i} for i in range(20)], "not where the chosen"),
        ([{"reward": 1.0, "reward_std": 0.1, "loss": 0.0}], "GRPO"),
    ],
)
def test_log_that_cannot_tell_is_undetermined_and_says_why(
    records: list[dict[str, float]], reason: str, tmp_path: Path
) -> None:
    (run,) = load(jsonl(tmp_path / "log.jsonl", records))
    d = diagnose(run)
    assert d.verdict == "undetermined"
    assert reason in d.reason
    assert d.missing


def test_log_that_ends_in_nan_has_diverged_whatever_came_before(tmp_path: Path) -> None:
    nan_tail(tmp_path / "log.jsonl")
    (run,) = load(tmp_path / "log.jsonl")
    d = diagnose(run)
    assert d.verdict == "collapse"
    assert d.reason.startswith("diverged at step 510, line 51")


def test_infinity_written_as_json_does_is_left_out(tmp_path: Path) -> None:
    records = [
        json.loads('{"logps/chosen": -Infinity}'),
        *({"logps/chosen": -9.0 - i} for i in range(9)),
    ]
    (run,) = load(jsonl(tmp_path / "log.jsonl", records))
    assert len(run.series[0]) == 9
    assert any("NaN or infinite" in n for n in run.notes)
