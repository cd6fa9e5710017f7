"""Every log family is read, and the run inside gets the same verdict whatever it is written in."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeeze.diagnosis import diagnose, load
from squeeze.diagnosis.names import recognise
from squeeze.diagnosis.readers import text
from squeeze.diagnosis.series import CHOSEN, CHOSEN_REWARD
from squeeze.trajectory import Trajectory
from tests.diagnosis.logs import jsonl, noisy, trainer_state, trl_records

pytestmark = pytest.mark.cpu

AUTHORS = Path(__file__).parents[3] / "shared" / "data" / "authors"


@pytest.mark.parametrize(
    ("column", "quantity", "split"),
    [
        ("rewards/chosen", "chosen_reward", ""),
        ("eval_rewards/rejected", "rejected_reward", "eval"),
        ("eval_ultrafeedback_logps/chosen", "chosen_logp", "eval ultrafeedback"),
        ("train/chosen_reward", "chosen_reward", "train"),
        ("rewards_eval/margins", "reward_margin", "eval"),
        ("logps_eval_prob_train/chosen", "chosen_logp", "train"),
        ("logps_eval_prob_train/reject_gptformat", "other:reject_gptformat", "train"),
        ("argmax_prob_logits", "argmax_logp", ""),
        ("mean_rejected_logprob", "rejected_logp", ""),
        ("chosenLogProb", "chosen_logp", ""),
        ("argmax", "argmax_logp", ""),
    ],
)
def test_column_is_recognised(column: str, quantity: str, split: str) -> None:
    meaning = recognise(column)
    assert meaning is not None
    assert (meaning.quantity, meaning.split) == (quantity, split)


@pytest.mark.parametrize(
    "column",
    [
        *("logits/chosen", "logps/chosen_ref", "reference_chosen_logps", "chosen_logp_std"),
        *("except_argmax_prob_logits", "log_odds_chosen", "kl", "reward_std", "grad_norm"),
        *("eval_runtime", "rewards/chosen__MAX", "sft_loss/chosen"),
    ],
)
def test_other_columns_are_left_alone(column: str) -> None:
    assert recognise(column) is None


def _wandb(path: Path, records: list[dict[str, Any]]) -> Path:
    names = ["rewards/chosen", "rewards/rejected", "rewards/margins"]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        header = [f"brave-fox-7 - train/{n}{s}" for n in names for s in ("", "__MIN", "__MAX")]
        out.writerow(["train/global_step", *header])
        for r in records:
            out.writerow([r["step"], *(r[n] for n in names for _ in range(3))])
    return path


def _console(path: Path, records: list[dict[str, Any]]) -> Path:
    lines = []
    for i, r in enumerate(records):
        shown = {k: v for k, v in r.items() if k != "step"} | {"epoch": round(r["epoch"], 1)}
        lines.append(f" {i}%|███   | {i}/60 [00:0{i % 10}<01:02, 3.1s/it]{shown}\n")
    path.write_text("loading weights\n" + "".join(lines))
    return path


def _openrlhf(path: Path, records: list[dict[str, Any]]) -> Path:
    text = "".join(
        f"Train step of epoch 0:  {i}%| | {i}/60 [0:12<, loss={r['loss']:.3g}, acc=0.6, "
        f"chosen_reward={r['rewards/chosen']:.4g}, reject_reward={r['rewards/rejected']:.4g}]\r"
        for i, r in enumerate(records)
    )
    path.write_text(text)
    return path


def _seed(path: Path, records: list[dict[str, Any]]) -> Path:
    """The published replication's file: config and series; log-probs without batch noise here."""
    n = len(records)
    document = {
        "config": {"beta": 0.1, "learning_rate": 5e-6},
        "epochs": [4 * i for i in range(n)],
        "chosen": list(noisy(-150, -170, n=n)),
        "rejected": list(noisy(-150, -210, n=n)),
    }
    path.write_text(json.dumps(document))
    return path


def _plain_csv(path: Path, records: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, fieldnames=list(records[0]))
        out.writeheader()
        out.writerows(records)
    return path


@pytest.mark.parametrize(
    ("name", "write", "kind"),
    [
        ("trainer_state.json", trainer_state, "transformers trainer_state.json"),
        ("log.jsonl", jsonl, "JSON Lines"),
        ("export.csv", _wandb, "W&B CSV export"),
        ("plain.csv", _plain_csv, "CSV"),
        ("train.log", _console, "console output of a transformers trainer"),
        ("openrlhf.log", _openrlhf, "console output with name=value pairs"),
        ("results.json", _seed, "JSON with series"),
    ],
)
def test_the_same_run_is_displacement_in_every_format(
    name: str, write: Any, kind: str, tmp_path: Path
) -> None:
    (run,) = load(write(tmp_path / name, trl_records()))
    assert run.format == kind
    assert diagnose(run).verdict == "displacement"


def test_series_keyed_by_epoch_are_read(tmp_path: Path) -> None:
    values = zip(noisy(-150, -170), noisy(-110, -90), strict=True)
    document = {
        "config": {"epochs": 100},
        "metrics": {
            str(4 * i): {"chosen_mean": c, "argmax_mean": a} for i, (c, a) in enumerate(values)
        },
    }
    path = tmp_path / "dpo.json"
    path.write_text(json.dumps(document))
    (run,) = load(path)
    assert run.series[0].steps[:3].tolist() == [0, 4, 8]
    assert diagnose(run).verdict == "squeezing"


def test_training_batches_noise_is_taken_out_by_rewards(tmp_path: Path) -> None:
    """Log-probs of batches vary by 30 nats; the rewards show the fall of 20 nats all the same."""
    (run,) = load(trainer_state(tmp_path / "trainer_state.json", trl_records(batch_noise=30)))
    row = diagnose(run).splits[0].evidence[0]
    assert (row.column, row.unit) == ("rewards/chosen", "reward")
    assert row.change.interval[0] < -2.0 < row.change.interval[1] + 0.2


def test_train_and_eval_series_are_told_apart(tmp_path: Path) -> None:
    records = trl_records()
    evaluations = [
        {"step": r["step"], "eval_rewards/chosen": 0.1 * i, "eval_loss": 0.5}
        for i, r in enumerate(records[::5])
    ]
    (run,) = load(trainer_state(tmp_path / "trainer_state.json", [*records, *evaluations]))
    assert run.splits() == ["train", "eval"]
    assert len(run.get(CHOSEN_REWARD, "eval") or []) == 12


def test_several_runs_in_one_wandb_export_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    rows = ["Step,a - rewards/chosen,b - rewards/chosen"]
    rows += [f"{i},{0.1 * i},{-0.1 * i}" for i in range(20)]
    path.write_text("\n".join(rows))
    assert {r.name: diagnose(r).verdict for r in load(path)} == {
        "a": "healthy",
        "b": "displacement",
    }


def test_a_run_column_separates_runs(tmp_path: Path) -> None:
    records = [
        {"run": name, "step": i, "logps/chosen": -100 + sign * i}
        for name, sign in (("up", 1), ("down", -1))
        for i in range(20)
    ]
    assert [r.name for r in load(jsonl(tmp_path / "runs.jsonl", records))] == ["up", "down"]


def test_the_newest_checkpoint_of_a_directory_is_read(tmp_path: Path) -> None:
    for step in (20, 100):
        directory = tmp_path / f"checkpoint-{step}"
        directory.mkdir()
        trainer_state(directory / "trainer_state.json", trl_records(n=step // 10))
    (run,) = load(tmp_path)
    assert len(run.series[0]) == 10


def test_llamafactory_log_says_where_the_rewards_are(tmp_path: Path) -> None:
    records = [
        {"current_steps": i, "total_steps": 90, "loss": 0.69 - i / 200, "accuracy": 0.6, "lr": 1e-5}
        for i in range(1, 60)
    ]
    (run,) = load(jsonl(tmp_path / "trainer_log.jsonl", records))
    d = diagnose(run)
    assert d.verdict == "undetermined"
    assert any("trainer_state.json" in note for note in run.notes)


def test_sft_log_is_calm(tmp_path: Path) -> None:
    losses = noisy(2.5, 1.4, n=100, noise=0.1)
    records = [
        {
            "step": i + 1,
            "loss": v,
            "mean_token_accuracy": 0.6,
            "entropy": 1.0,
            "learning_rate": 1e-4,
        }
        for i, v in enumerate(losses)
    ]
    (run,) = load(trainer_state(tmp_path / "trainer_state.json", records))
    assert diagnose(run).verdict == "healthy"


def test_each_arm_of_a_run_directory_is_diagnosed_with_its_examples(tmp_path: Path) -> None:
    import pandas as pd

    rng = np.random.default_rng(0)
    rows = [
        {
            **{"arm": arm, "phase": "dpo" if probe else "base", "step": probe, "epoch": probe / 4},
            **{"probe": probe, "example": str(e), "split": "held_out", "kind": kind},
            **{"logp": rng.normal(-150 + slope * probe, 3), "entropy": 2.0, "peakiness": 0.3},
            **{"argmax_logp": rng.normal(-100 + 2 * probe, 2), "n_tokens": 60},
        }
        for arm, falls in (("squeezed", -4), ("calm", 2))
        for probe in range(7)
        for kind, slope in (("chosen", falls), ("rejected", -9))
        for e in range(12)
    ]
    Trajectory(pd.DataFrame(rows)).write(tmp_path / "trajectory.parquet")
    runs = load(tmp_path)
    assert {r.name: diagnose(r).verdict for r in runs} == {
        "squeezed": "squeezing",
        "calm": "healthy",
    }
    chosen = runs[0].get(CHOSEN, "held_out")
    assert chosen is not None
    assert chosen.examples is not None
    assert chosen.examples.shape == (12, 7)


@pytest.mark.skipif(not AUTHORS.is_dir(), reason="the paper's logs are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("prob_pythia410m_dpo", "displacement"),  # its argmax is of another text
        ("extend_sft_qwen18_observe", "healthy"),
        ("pythia410m_baseline_dpo_checkbug_5e7", "squeezing"),
        ("pythia410_baseline_dpo_checkbug", "displacement"),
        ("pythia410_baseline_dpo_checkbug_5e7", "healthy"),
    ],
)
def test_published_log_gets_its_verdict(name: str, verdict: str) -> None:
    (run,) = load(AUTHORS / f"{name}.jsonl")
    assert diagnose(run).verdict == verdict


@pytest.mark.skipif(not AUTHORS.is_dir(), reason="the paper's logs are not beside this checkout")
@pytest.mark.parametrize("keep", [("chosen", "argmax"), ("chosen", "rejected"), ("chosen",)])
def test_published_dpo_log_with_series_left_out_is_not_called_healthy(
    keep: tuple[str, ...], tmp_path: Path
) -> None:
    lines = (AUTHORS / "prob_pythia410m_dpo.jsonl").read_text().splitlines()
    names = {"chosen": "logps_eval_prob_train/chosen", "argmax": "argmax_prob_logits"}
    names["rejected"] = "logps_eval_prob_train/rejected"
    records = [{names[k]: json.loads(line)[names[k]] for k in keep} for line in lines]
    (run,) = load(jsonl(tmp_path / "part.jsonl", records))
    d = diagnose(run)
    assert d.verdict == "displacement"
    # The early code took the argmax along random words: it is named, and not used.
    assert [f.kind for f in d.findings] == (["argmax"] if "argmax" in keep else [])


def test_arms_of_the_reference_run_are_told_apart() -> None:
    reference = Path(__file__).parents[2] / "reports" / "reference" / "smollm2-cpu"
    verdicts = {run.name: diagnose(run).verdict for run in load(reference)}
    assert verdicts["sft-dpo"] == "squeezing"
    assert "squeezing" not in {verdicts["dpo"], verdicts["extend-dpo"]}


@pytest.mark.parametrize("shape", ["progress bars between", "a value a line"])
def test_long_console_log_is_thinned_in_blocks_that_hold_whole_records(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every k-th line alone would be a progress bar each time, or half of a record."""
    monkeypatch.setattr(text, "KEPT", 2**16)
    path = tmp_path / "a.log"
    with path.open("w") as file:
        for i in range(2000):
            chosen, rejected = -0.001 * i, -0.003 * i
            if shape == "a value a line":
                file.write(f"== Step {i}/2000 ==\nResults:\n  rewards_chosen_mean: {chosen:.4f}\n")
                file.write(f"  rewards_rejected_mean: {rejected:.4f}\n")
            else:
                file.write(
                    f"  3%|##   | {i}/2000 [00:10<01:30]\n{{'rewards/chosen': {chosen:.4f}, "
                )
                file.write(f"'rewards/rejected': {rejected:.4f}, 'epoch': {i / 2000:.4f}}}\n")
    (run,) = load(path)
    assert "block" in run.notes[0]
    assert run.axis in ("step", "epoch")
    chosen, rejected = (run.get(f"{side}_reward", "train") for side in ("chosen", "rejected"))
    assert chosen is not None
    assert rejected is not None
    assert 100 < len(rejected) < 1000
    whole = np.isin(chosen.steps, rejected.steps)
    np.testing.assert_allclose(rejected.values, 3 * chosen.values[whole], atol=1e-6)
