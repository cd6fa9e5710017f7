"""Small logs of the kinds that people have, beside this checkout: each gets its right answer."""

from pathlib import Path

import pytest

from squeeze.diagnosis import Diagnosis, diagnose, load

LOGS = Path(__file__).parents[3] / "shared" / "cases" / "logs"
FORMATS = LOGS / "one_run_many_formats"

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(not LOGS.is_dir(), reason="the cases are not beside this checkout"),
]


def judged(name: str) -> Diagnosis:
    (run,) = load(LOGS / name)
    return diagnose(run)


@pytest.mark.parametrize(
    ("name", "verdicts", "split", "said"),
    [
        ("table_first_loss_0.027.md", "undetermined displacement", "train", "the reference is not"),
        ("first_reward_9.8.txt", "undetermined displacement", "train", "the reference is not"),
        ("syn_no0.jsonl", "undetermined displacement", "eval", "the reference is not"),
        ("syn_ref_mismatch_pos.jsonl", "undetermined displacement", "train", "the reference is"),
        ("syn_train_plateau.jsonl", "undetermined displacement", "train", "chosen falls by 1.1"),
        ("slow_but_learning.jsonl", "healthy", "train", "no fall that these training batches"),
        ("nan_from_the_second_line.txt", "collapse", "train", "diverged at epoch 0.02, line 2"),
        ("four_lines_trainer_state.json", "undetermined", "train", "saturated since"),
        ("table_with_validation_loss.tsv", "undetermined", "eval", "4 evaluations"),
        ("two_evaluations.ipynb", "undetermined", "eval", "2 evaluations"),
        ("wrapped_by_terminal.txt", "undetermined", "train", "3 evaluations"),
        ("orpo_console.txt", "undetermined healthy", "train", "chosen is"),
        ("loss_only_console.txt", "undetermined", "", "the log holds loss only"),
        ("decimal_commas.md", "undetermined", "eval", "4 evaluations"),
        ("fall_at_the_first_evaluation.csv", "displacement", "eval", "argmax does not rise"),
        ("false_healthy.jsonl", "displacement collapse", "probe", "chosen falls by 21 nats"),
        ("false_healthy_rewards.jsonl", "displacement collapse", "eval", "chosen falls by 2.1"),
    ],
)
def test_case_gets_its_right_answer(name: str, verdicts: str, split: str, said: str) -> None:
    d = judged(name)
    assert d.verdict in verdicts.split()
    assert d.split == split
    assert said in d.reason


def test_only_logged_values_are_shown() -> None:
    for name in ("four_lines_trainer_state.json", "first_reward_9.8.txt"):
        d = judged(name)
        for row in d.splits[0].evidence:
            series = next(s for s in d.run.series if s.column == row.column)
            assert {row.start, row.peak, row.end} <= set(series.values.tolist())


def test_slow_run_is_told_to_raise_the_learning_rate() -> None:
    d = judged("slow_but_learning.jsonl")
    assert any("learns slowly" in c for c in d.cautions)
    assert d.advice == "stronger"


def test_decimal_commas_are_noted() -> None:
    assert any("decimal commas" in n for n in judged("decimal_commas.md").run.notes)


def test_orpo_is_named_and_its_val_lines_are_evaluations() -> None:
    d = judged("orpo_console.txt")
    assert d.run.method == "orpo"
    assert set(d.run.splits()) == {"train", "eval"}


def test_one_run_in_many_formats_gets_one_verdict() -> None:
    found = {
        (path.name, run.name): diagnose(run).verdict
        for path in sorted(FORMATS.iterdir())
        for run in load(path)
    }
    assert len(found) >= 10  # nine formats, one of them with two runs
    assert set(found.values()) == {"early"}


def test_single_charts_of_a_run_are_joined_and_two_runs_kept_apart() -> None:
    runs = load(FORMATS / "wandb_single_charts")
    assert [r.name for r in runs] == ["run-a", "run-b"]
    assert {s.column for s in runs[0].series} == {"train/rewards/chosen", "train/rewards/rejected"}
