"""Logs as other tools, shells and people leave them: each gets the verdict that a reader would."""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeeze.diagnosis import diagnose, load
from squeeze.errors import InputError
from tests.diagnosis.logs import jsonl, noisy, trainer_state, trl_records

pytestmark = pytest.mark.cpu

Write = Callable[[Path], object]
RECORDS = trl_records()
NAMES = ("rewards/chosen", "rewards/rejected")


def lines(**changes: Callable[[str], bytes]) -> Write:
    text = "".join(json.dumps(r) + "\n" for r in RECORDS)
    (encode,) = changes.values()
    return lambda path: path.write_bytes(encode(text))


def table(separator: str, decimal: str = ".", **more: str) -> Write:
    """Step and rewards between separators, and columns that hold the same word everywhere."""
    rows = [("Step", *NAMES, *more)]
    for r in RECORDS:
        values = [f"{r[name]:.4f}".replace(".", decimal) for name in NAMES]
        rows.append((str(r["step"]), *values, *more.values()))
    return lambda path: path.write_text("".join(separator.join(row) + "\n" for row in rows))


def printed(prefix: str, show: Callable[[Any], str]) -> Write:
    return lambda path: path.write_text("".join(f"{prefix}{show(r)}\n" for r in RECORDS))


def long_form(path: Path) -> None:
    rows = [f"r,train/{n},{r['step']},{r[n]},1.0\n" for r in RECORDS for n in NAMES]
    path.write_text("run,tag,step,value,wall_time\n" + "".join(rows))


def model_card(path: Path) -> None:
    rows = [
        f"| 0.5 | {r['epoch']} | {r['step']} | 0.4 | {r[NAMES[0]]:.4f} | {r[NAMES[1]]:.4f} |\n"
        for r in RECORDS[::4]
    ]
    head = (
        "| Training Loss | Epoch | Step | Validation Loss | Rewards/chosen | Rewards/rejected |\n"
    )
    path.write_text("# Model\n\n" + head + "|:---:" * 6 + "|\n" + "".join(rows) + "\nThanks.\n")


def without_reference(path: Path) -> None:
    """What ORPO logs: rewards are β times the log-probs per token."""
    chosen, rejected = noisy(-1.2, -1.5, n=60, noise=0.03), noisy(-1.3, -2.2, n=60, noise=0.03)
    pairs = zip(chosen, rejected, strict=True)
    records = [
        {"logps/chosen": c, "logps/rejected": r, "rewards/chosen": 0.1 * c, "step": i}
        | {"rewards/rejected": 0.1 * r, "nll_loss": -c, "log_odds_chosen": 0.3}
        for i, (c, r) in enumerate(pairs)
    ]
    trainer_state(path, records)


FALLING: list[tuple[str, str, Write]] = [
    ("carriage returns", "a.csv", lambda p: (table(",")(p), _returned(p))),
    ("semicolons, decimal commas", "a.csv", table(";", ",")),
    ("a notebook's table", "a.txt", table("\t")),
    ("percents", "a.csv", table(",", **{"rewards/accuracies": "55.5%"})),
    ("an accompanying word", "a.csv", table(",", **{"rewards/accuracies": "n/a?"})),
    ("rows of tags", "tb.csv", long_form),
    ("a model card", "README.md", model_card),
    ("UTF-16 of PowerShell", "a.jsonl", lines(encode=lambda t: t.encode("utf-16"))),
    ("Latin-1 before", "a.log", lambda p: p.write_bytes(b"f\xfcr DPO\n" + _shown().encode())),
    ("gzip", "a.jsonl.gz", lines(encode=lambda t: gzip.compress(t.encode()))),
    ("strings for numbers", "a.jsonl", printed("", lambda r: json.dumps(_strings(r)))),
    ("a logger's brackets", "a.log", printed("[2026-05-01 12:00] [INFO] ", str)),
    ("JSON after a prefix", "a.log", printed("2026 INFO ", json.dumps)),
    ("a list as Python prints it", "a.txt", lambda p: p.write_text(str(RECORDS))),
    ("a number beyond floats", "a.jsonl", lambda p: jsonl(p, [_huge(), *RECORDS])),
    ("no reference", "trainer_state.json", without_reference),
]


def _returned(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))


def _shown() -> str:
    return "".join(f"{r}\n" for r in RECORDS)


def _strings(record: dict[str, Any]) -> dict[str, str]:
    return {k: str(v) for k, v in record.items()}


def _huge() -> dict[str, Any]:
    return RECORDS[0] | {"step": 5, "rewards/chosen": 10**400}


@pytest.mark.parametrize(("name", "write"), [c[1:] for c in FALLING], ids=[c[0] for c in FALLING])
def test_falling_run_is_displacement_however_it_is_written(
    name: str, write: Write, tmp_path: Path
) -> None:
    write(tmp_path / name)
    (run,) = load(tmp_path / name)
    assert diagnose(run).verdict == "displacement"


def test_scalars_that_tensorboard_exports_are_one_run(tmp_path: Path) -> None:
    for name in NAMES:
        rows = "".join(f"1.7e9,{r['step']},{r[name]}\n" for r in RECORDS)
        tag = name.replace("/", "_")
        (tmp_path / f"run-.-tag-train_{tag}.csv").write_text("Wall time,Step,Value\n" + rows)
    (run,) = load(tmp_path)
    assert run.splits() == ["train"]
    d = diagnose(run)
    assert (d.verdict, d.reason.split()[-4:]) == (
        "displacement",
        ["while", "the", "margin", "grows"],
    )


@pytest.mark.parametrize("token", ["NaN", "nan", "-inf", "Infinity"])
@pytest.mark.parametrize("document", [True, False], ids=["list", "lines"])
def test_bare_tokens_that_are_no_numbers_are_left_out(
    token: str, document: bool, tmp_path: Path
) -> None:
    values = zip(noisy(-150, -142, -152), noisy(-100, -70), strict=True)
    rows = [f'{{"step": {i}, "chosen": {c}, "argmax": {a}}}' for i, (c, a) in enumerate(values)]
    rows[3] = f'{{"step": 3, "chosen": {token}, "argmax": -90, "note": "nan, inf"}}'
    path = tmp_path / "a.json"
    path.write_text("[" + ",\n".join(rows) + "]" if document else "\n".join(rows))
    (run,) = load(path)
    assert len(run.series[0]) == len(rows) - 1
    assert diagnose(run).verdict == "squeezing"


def test_evaluations_of_unequal_fields_get_the_verdict_of_what_they_hold(tmp_path: Path) -> None:
    chosen, argmax = noisy(-150, -142, -152), noisy(-100, -70)
    records = [
        {"step": i, "chosen": c} if i % 2 else {"step": i, "argmax": a}
        for i, (c, a) in enumerate(zip(chosen, argmax, strict=True))
    ]
    (run,) = load(jsonl(tmp_path / "a.jsonl", records))
    assert diagnose(run).verdict == "squeezing"


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_few_evaluations_give_neither_verdict_nor_interval(n: int, tmp_path: Path) -> None:
    records = [{"step": i, "chosen": -150.0 - 20 * i, "argmax": -100.0 + 9 * i} for i in range(n)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records[0] if n == 1 else records, indent=1))
    (run,) = load(path)
    d = diagnose(run)
    assert d.verdict == "undetermined"
    assert [e.change.interval for e in d.splits[0].evidence] == [None, None]


def sft(path: Path, losses: np.ndarray, evaluations: np.ndarray) -> Path:
    """What TRL's SFTTrainer logs."""
    train = [{"loss": v, "mean_token_accuracy": 0.6, "step": i} for i, v in enumerate(losses)]
    held_out = [
        {"eval_loss": v, "eval_mean_token_accuracy": 0.5, "step": 5 * i}
        for i, v in enumerate(evaluations)
    ]
    return trainer_state(path, [*train, *held_out])


@pytest.mark.parametrize("ends", [(2.5, 0.6), (2.5, 5.5)], ids=["overfits", "diverges"])
def test_sft_run_that_overfits_or_diverges_is_not_accused(
    ends: tuple[float, float], tmp_path: Path
) -> None:
    losses = noisy(*ends, n=60, noise=0.1)
    held_out = noisy(2.4, 1.8, 2.4, n=12, noise=0.01)
    (run,) = load(sft(tmp_path / "trainer_state.json", losses, held_out))
    d = diagnose(run)
    assert d.verdict in ("undetermined", "healthy")
    assert any("overfitting" in s.reason for s in d.splits)


def test_loss_of_a_preference_run_is_not_read_as_likelihood(tmp_path: Path) -> None:
    """TRL's DPOTrainer logs mean_token_accuracy too."""
    records = [
        {"step": i, "loss": 0.69 - i / 100, "mean_token_accuracy": 0.6, "rewards/margins": i / 20}
        for i in range(40)
    ]
    (run,) = load(jsonl(tmp_path / "a.jsonl", records))
    assert diagnose(run).verdict == "undetermined"


def test_output_directory_without_checkpoints_gives_the_callbacks_record(tmp_path: Path) -> None:
    reference = Path(__file__).parents[2] / "reports" / "reference" / "smollm2-cpu"
    (tmp_path / "squeeze").mkdir()
    (tmp_path / "squeeze" / "trajectory.parquet").symlink_to(reference / "trajectory.parquet")
    assert {run.format for run in load(tmp_path)} == {"squeeze trajectory"}


def _runs(n: int) -> str:
    rows = [f"r{i},{j},{-j}\n" for i in range(n) for j in range(2)]
    return "".join(["run,step,rewards/chosen\n", *rows])


REFUSED: list[tuple[str, str, Write, str]] = [
    ("deep nesting", "a.json", lambda p: p.write_text("[" * 10**5), "nested too deeply"),
    (
        "a column twice",
        "a.csv",
        table(",", **{"rewards/chosen": "0"}),
        "column 'rewards/chosen' twice",
    ),
    ("a picture", "a.png", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n\0\0"), "not UTF-8 text"),
    ("cut gzip", "a.gz", lambda p: p.write_bytes(gzip.compress(b"x" * 99)[:-9]), "cannot be read"),
    ("many runs", "a.csv", lambda p: p.write_text(_runs(1001)), "1,001 runs, and at most 1,000"),
    ("blank lines", "a.log", lambda p: p.write_text("x" + "\n" * 1_100_000), "blank lines"),
    (
        "a bomb of blanks",
        "a.gz",
        lambda p: p.write_bytes(gzip.compress(b"loss 1\n" + b" " * (70 << 20))),
        "200 times its size",
    ),
    ("a web page", "a.html", lambda p: p.write_text("<html>loss, chosen</html>"), "no log"),
    (
        "prose",
        "a.txt",
        lambda p: p.write_text("It went down, and chosen was -1.0, a bug?"),
        "no log",
    ),
]


@pytest.mark.parametrize(
    ("name", "write", "message"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_what_is_no_log_is_refused_in_one_sentence(
    name: str, write: Write, message: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        load(tmp_path / name)


def test_constant_step_column_is_not_taken_for_several_runs(tmp_path: Path) -> None:
    records = [{"step": 0, "chosen": float(v)} for v in noisy(-150, -170)]
    (run,) = load(jsonl(tmp_path / "a.jsonl", records))
    assert run.axis == "line"
    assert diagnose(run).verdict == "displacement"


def test_closing_summary_line_is_no_evaluation(tmp_path: Path) -> None:
    (run,) = load(trainer_state(tmp_path / "trainer_state.json", RECORDS))
    assert not [s for s in run.series if s.column == "train_loss"]
    assert not math.isnan(run.series[0].values[-1])
