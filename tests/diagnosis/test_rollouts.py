"""Verdicts on trainings that sample their answers: rollouts, probe, logs of TRL and verl."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.rollouts_calibration import FAMILIES, Family, run, simulate, table
from squeeze.diagnosis import diagnose, load
from squeeze.diagnosis import series as q
from squeeze.diagnosis.rollouts import OF_ROLLOUTS, judge_rollouts
from squeeze.diagnosis.series import RunSeries, Series

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_family_gets_its_verdict_at_low_noise(family: Family) -> None:
    assert judge_rollouts(simulate(family, 40, 0.03, 0)).verdict == family.right


def test_false_alarms_are_rare_at_high_noise() -> None:
    """Of 36 good logs with a false-alarm rate of 3%, 5 or more would be accused once in 200."""
    good = [f for f in FAMILIES if f.right == "healthy"]
    found = [judge_rollouts(simulate(f, 24, 0.2, seed)).verdict for f in good for seed in range(6)]
    assert sum(verdict in OF_ROLLOUTS for verdict in found) < 5


def test_the_table_has_a_row_for_each_length_noise_and_family() -> None:
    rows = list(table(run(1, [12])))
    assert sum(row.startswith("| 12 |") for row in rows) == 3
    assert any(row.startswith("| answers repeat |") for row in rows)


def test_length_that_the_reward_pays_for_is_told_and_no_collapse() -> None:
    judged = judge_rollouts(simulate(FAMILIES[3], 40, 0.03, 0))
    assert judged.verdict == "healthy"
    assert any("the reward rises with it" in caution for caution in judged.cautions)


# --- with a probe ---------------------------------------------------------------------------------


def probed(
    chosen: tuple[float, float], rejected: tuple[float, float], family: int = 0
) -> RunSeries:
    """A simulated log, and a probe of eight examples that go linearly from start to end."""
    rng = np.random.default_rng(0)
    log, steps = simulate(FAMILIES[family], 40, 0.03, 0), np.linspace(0, 40, 9)
    series = []
    for quantity, (start, end) in ((q.CHOSEN, chosen), (q.REJECTED, rejected)):
        rate = rng.normal(1, 0.1, (8, 1))
        examples = start + rng.normal(0, 2, (8, 1)) + rate * np.linspace(0, end - start, 9)
        series.append(Series(quantity, "probe", steps, examples.mean(0), quantity, examples))
    parts = vars(log) | {"series": (*series, *log.series), "phase": "dpo"}
    return RunSeries(**parts)


@pytest.mark.parametrize(
    ("chosen", "rejected", "family", "verdict"),
    [
        ((-20, -12), (-20, -30), 0, "healthy"),
        ((-20, -26), (-20, -40), 0, "lazy displacement"),
        ((-20, -20), (-20, -40), 0, "lazy displacement"),
        ((-20, -20), (-20, -20), 0, "no learning"),
        ((-20, -12), (-20, -30), 6, "entropy collapse"),
        ((-20, -26), (-20, -40), 6, "entropy collapse"),
    ],
)
def test_the_worse_of_probe_and_rollouts_decides(
    chosen: tuple[float, float], rejected: tuple[float, float], family: int, verdict: str
) -> None:
    d = diagnose(probed(chosen, rejected, family))
    assert d.verdict == verdict
    if verdict == "entropy collapse":
        assert any(c.startswith("on the probe: ") for c in d.cautions)


def test_a_log_without_a_probe_is_never_healthy() -> None:
    d = diagnose(simulate(FAMILIES[0], 40, 0.03, 0))
    assert d.verdict == "undetermined"
    assert "entropy goes from" in d.reason
    assert "fixed right answers" in d.reason


# --- logs as trainers write them ------------------------------------------------------------------

TRL = {
    q.ENTROPY: "entropy",
    q.REWARD: "reward",
    q.LENGTH: "completions/mean_length",
    q.CUT: "completions/clipped_ratio",
}
VERL = {
    q.ENTROPY: "actor/entropy",
    q.REWARD: "critic/score/mean",
    q.LENGTH: "response_length/mean",
    q.CUT: "response_length/clip_ratio",
}


def lines(family: Family, names: dict[str, str]) -> list[dict[str, float]]:
    """The simulated log under a trainer's names, a dict a step."""
    made = simulate(family, 40, 0.03, 0)
    by_name = {names[s.quantity]: s.values for s in made.series}
    return [{name: float(v[i]) for name, v in by_name.items()} for i in range(40)]


@pytest.mark.parametrize("family", [6, 8, 9])
def test_trls_trainer_state_is_judged(family: int, tmp_path: Path) -> None:
    history = [
        {"step": i + 1, "epoch": i / 40, "loss": 0.0, "reward_std": 0.4, **line}
        for i, line in enumerate(lines(FAMILIES[family], TRL))
    ]
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": history}))
    (run,) = load(path)
    assert diagnose(run).verdict == FAMILIES[family].right


@pytest.mark.parametrize("family", [6, 8, 9])
def test_verls_json_lines_are_judged(family: int, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [
        json.dumps({"step": i + 1, "data": {"actor/pg_loss": -0.01, **line}})
        for i, line in enumerate(lines(FAMILIES[family], VERL))
    ]
    path.write_text("\n".join(rows))
    (run,) = load(path)
    assert diagnose(run).verdict == FAMILIES[family].right
