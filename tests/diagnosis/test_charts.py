"""Charts of a metric each, of TensorBoard and of trackers: joined by step, kept apart by run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from squeeze.diagnosis import diagnose, load
from squeeze.errors import InputError
from tests.diagnosis.test_exports import GOOD, SAMPLED, STEPS, assert_is_the_falling_run, xy
from tests.diagnosis.test_pasted_logs import NAMES, RECORDS, judged

pytestmark = pytest.mark.cpu


Write = Callable[[list[dict[str, float]], str], tuple[str, str]]


def as_json(run: list[dict[str, float]], name: str) -> tuple[str, str]:
    return "json", json.dumps([[1.7e9 + r["step"], r["step"], r[name]] for r in run])


def as_csv(run: list[dict[str, float]], name: str) -> tuple[str, str]:
    lines = [f"1700000000.5,{r['step']:.0f},{r[name]}" for r in run]
    return "csv", "\n".join(["Wall time,Step,Value", *lines])


def by_run(run: list[dict[str, float]], name: str) -> tuple[str, str]:
    return "json", json.dumps({"dpo-1": [[1.7e9, r["step"], r[name]] for r in run]})


def of_neptune(run: list[dict[str, float]], name: str) -> tuple[str, str]:
    lines = [f"{r['step']},{r[name]},2026-01-02 03:04:05" for r in run]
    return "csv", "\n".join(["step,value,timestamp", *lines])


def of_dvclive(run: list[dict[str, float]], name: str) -> tuple[str, str]:
    lines = [f"1700000000\t{r['step']:.0f}\t{r[name]}" for r in run]
    return "tsv", "\n".join([f"timestamp\tstep\ttrain/{name}", *lines])


def write_charts(
    directory: Path, write: Write, run: list[dict[str, float]], before: str = "train_"
) -> None:
    for name in NAMES:
        suffix, text = write(run, name)
        (directory / f"{before}{name.replace('/', '_')}.{suffix}").write_text(text)


@pytest.mark.parametrize("write", [as_json, as_csv, by_run, of_neptune, of_dvclive])
def test_single_charts_of_a_run_are_joined(write: Write, tmp_path: Path) -> None:
    write_charts(tmp_path, write, RECORDS)
    (tmp_path / "notes.txt").write_text("rewards/chosen fell")
    (run,) = load(tmp_path)
    assert {s.quantity for s in run.series} >= {"chosen_reward", "rejected_reward", "loss"}
    assert_is_the_falling_run(diagnose(run))


@pytest.mark.parametrize("write", [as_json, as_csv])
def test_charts_of_two_runs_are_kept_apart(write: Write, tmp_path: Path) -> None:
    write_charts(tmp_path, write, RECORDS, "run-bad-tag-train_")
    write_charts(tmp_path, write, GOOD, "run-good-tag-train_")
    found = {run.name: diagnose(run).verdict for run in load(tmp_path)}
    assert found == {"bad": "displacement", "good": "healthy"}


def test_writers_of_a_run_named_for_their_splits_are_one_run(tmp_path: Path) -> None:
    write_charts(tmp_path, as_json, GOOD, "run-dpo_train-tag-")
    write_charts(tmp_path, as_json, RECORDS, "run-dpo_val-tag-")
    (run,) = load(tmp_path)
    assert (run.name, sorted(run.splits())) == ("dpo", ["eval", "train"])
    document = {
        name: {
            f"dpo/{split}": [[r["step"], r[name]] for r in of_split]
            for split, of_split in (("train", GOOD), ("eval", RECORDS))
        }
        for name in NAMES
    }
    (path := tmp_path / "a.json").write_text(json.dumps(document))
    (of_document,) = load(path)
    assert (of_document.name, sorted(of_document.splits())) == ("dpo", ["eval", "train"])
    assert {diagnose(r).verdict for r in (run, of_document)} == {"displacement"}


def test_charts_in_both_forms_are_joined(tmp_path: Path) -> None:
    write_charts(tmp_path, as_json, RECORDS)
    for name in NAMES[:2]:
        path = tmp_path / f"train_{name.replace('/', '_')}"
        path.with_suffix(".json").unlink()
        path.with_suffix(".csv").write_text(as_csv(RECORDS, name)[1])
    (run,) = load(tmp_path)
    assert_is_the_falling_run(diagnose(run))


def test_tables_of_the_same_metric_are_no_charts_of_one_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        text = of_dvclive(RECORDS, "rewards/chosen")[1]
        (tmp_path / f"{name}.tsv").write_text(text)
    with pytest.raises(InputError, match=r"give one of a\.tsv, b\.tsv"):
        load(tmp_path)


def test_charts_of_a_run_named_for_its_split_are_of_that_split(tmp_path: Path) -> None:
    write_charts(tmp_path, as_json, RECORDS, "run-eval-tag-")
    (run,) = load(tmp_path)
    assert run.splits() == ["eval"]


def test_charts_of_a_document_that_names_two_runs_are_kept_apart(tmp_path: Path) -> None:
    runs = [("bad", RECORDS), ("good", GOOD)]
    charts = [
        {"name": run, "metric": n, "x": STEPS, "y": [r[n] for r in of_run]}
        for run, of_run in runs
        for n in NAMES
    ]
    (path := tmp_path / "a.json").write_text(json.dumps(charts))
    found = {run.name: diagnose(run).verdict for run in load(path)}
    assert found == {"bad": "displacement", "good": "healthy"}


def test_chart_whose_steps_and_values_differ_in_number_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "a.json").write_text(
        json.dumps({n: xy(n) | {"x": STEPS[:-1]} for n in NAMES})
    )
    with pytest.raises(InputError, match="lists of 59 and 60 numbers"):
        load(path)


@pytest.mark.parametrize("above", ["# exported\n", "sep=;\n"])
def test_charts_with_lines_above_are_joined(above: str, tmp_path: Path) -> None:
    for name in NAMES:
        text = above + of_neptune(RECORDS, name)[1].replace(",", ";")
        (tmp_path / f"train_{name.replace('/', '_')}.csv").write_text(text)
    (run,) = load(tmp_path)
    assert_is_the_falling_run(diagnose(run))


def test_chart_by_itself_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "run-.-tag-train_rewards_chosen (1).json"
    (run,) = [judged(path, as_json(RECORDS, "rewards/chosen")[1]).run]
    assert [(s.quantity, s.split, len(s)) for s in run.series] == [("chosen_reward", "train", 60)]


@pytest.mark.parametrize("write", [as_json, as_csv])
def test_chart_that_nothing_names_asks_for_its_name(write: Write, tmp_path: Path) -> None:
    suffix, text = write(RECORDS, "rewards/chosen")
    (path := tmp_path / f"download.{suffix}").write_text(text)
    with pytest.raises(InputError, match="run-NAME-tag-train_rewards_chosen"):
        load(path)


def test_document_that_is_nested_deeply_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "a.json").write_text('{"data": ' * 900 + "1" + "}" * 900)
    with pytest.raises(InputError, match=r"no series|nested too deeply"):
        load(path)


def test_per_example_values_are_no_chart(tmp_path: Path) -> None:
    """Two numbers a row are steps and values only where the first of them counts."""
    document = {"rewards/chosen": [[-1.0, -2.0]] * 8, "rewards/rejected": [[-3.0, -4.0]] * 8}
    (path := tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="no series"):
        load(path)


def test_training_that_samples_is_named_from_a_directory_of_charts(tmp_path: Path) -> None:
    for name in SAMPLED[0]:
        points = [[1.7e9, r["step"], r[name]] for r in SAMPLED]
        file = f"run-.-tag-train_{name.replace('/', '_')}.json"
        (tmp_path / file).write_text(json.dumps(points))
    (run,) = load(tmp_path)
    assert (diagnose(run).verdict, run.method) == ("entropy collapse", "grpo")
