"""The simulated runs: false alarms stay rare, and the figure and the table can be made again."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.diagnosis_calibration import (
    ALARMS,
    FAMILIES,
    MISSING,
    Case,
    draw,
    roc,
    simulate,
    table,
)
from benchmarks.watching import acted, alarms
from benchmarks.watching import simulate as simulate_watched
from squeeze.diagnosis import diagnose

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_family_gets_its_verdict_at_low_noise(family) -> None:  # type: ignore[no-untyped-def]
    assert diagnose(simulate(family, 40, 0.0025, "nothing", 0)).verdict in family.right


def test_false_alarms_on_good_runs_are_rare_at_high_noise() -> None:
    """Of 100 runs with a false-alarm rate of 3%, 8 or more would be accused once in 100 times."""
    good = [f for f in FAMILIES if not f.right & ALARMS]
    alarms = [
        diagnose(simulate(family, 24, 0.03, "argmax", seed)).verdict in ALARMS
        for family in good
        for seed in range(20)
    ]
    assert sum(alarms) < 8


def test_figure_and_table_are_written_from_cases(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [
        Case(f, n, noise, missing, next(iter(f.right)), float(rng.uniform()))
        for f in FAMILIES
        for n in (5, 12, 40, 400)
        for noise in (0.0025, 0.01, 0.03)
        for missing in MISSING
    ]
    draw(cases, tmp_path / "roc.png")
    assert (tmp_path / "roc.png").stat().st_size > 5000
    assert "| squeezes after a rise | 100% |" in table(cases, 1)
    false, hits = roc(cases)
    assert (false[-1], hits[-1]) == (1.0, 1.0)


@pytest.mark.parametrize(("family", "expected"), [("rising", 0), ("level", 0), ("squeezing", 3)])
def test_watching_probe_by_probe_finds_squeezing_and_leaves_good_trainings_alone(
    family: str, expected: int
) -> None:
    rng = np.random.default_rng(1)
    runs = [simulate_watched(family, 16, 8, rng) for _ in range(3)]
    assert sum(acted(alarms(run), patience=2) for run in runs) == expected
