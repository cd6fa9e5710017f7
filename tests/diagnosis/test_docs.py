"""What the documentation says of thresholds, rates and remedies is what the code does."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.diagnosis_calibration import FAMILIES, simulate, table
from benchmarks.diagnosis_calibration import Case as Simulated
from squeeze.claims import catalogue
from squeeze.claims.ledger import merge, new_entry
from squeeze.claims.types import Verdict
from squeeze.diagnosis import movements, trend, verdict, view
from squeeze.diagnosis.remedies import remedies
from squeeze.diagnosis.verdict import diagnose

pytestmark = pytest.mark.cpu

DOCS = Path(__file__).parents[2] / "docs"
WORDS = {1 / 3: "a third", 0.1: "a tenth", 5: "five"}


def words(page: str) -> str:
    return " ".join((DOCS / page).read_text().split())


@pytest.mark.parametrize(
    "sentence",
    [
        f"at least {view.MATERIAL_SHARE:.0%} of the level, and {view.MATERIAL_NATS} nats",
        f"levels nearer to 0 than {view.PER_TOKEN_BELOW:g} may be means over tokens",
        f"at least {view.MATERIAL_REWARD} and {view.MATERIAL_OF_MOVEMENT:.0%} of the run's largest",
        f"A margin must grow by {view.MARGIN_REWARD} in reward units",
        f"DPO's loss is still above {math.log1p(math.exp(-view.MARGIN_REWARD)):.3f}",
        f"p ≤ {movements.FALL_P:g} for chosen's fall",
        f"({movements.FALL_P_SHORT:g} below {movements.SHORT} evaluations)",
        f"p ≤ {movements.MOVE_P:g}, two-sided",
        f"between {WORDS[verdict.LEVEL_SHARE]} and {WORDS[verdict.EARLY_SHARE]} of what it gained",
        f"argmax falls by more than {verdict.COLLAPSE_SHARE:.0%} of its level",
        f"repeated n-grams rises by more than {verdict.REPETITION_RISE}",
        f"fewer than {WORDS[trend.FEWEST]} evaluations and no per-example values",
        f"at most {trend.MAX_POINTS} points (10%-trimmed means)",
        f"Intervals are {trend.CONFIDENCE:.0%}",
    ],
)
def test_documented_threshold_is_the_one_in_the_code(sentence: str) -> None:
    assert sentence in words("diagnosis.md")


def test_every_verdict_is_defined() -> None:
    for name in verdict.VERDICTS:
        assert f"| **{name}** |" in (DOCS / "diagnosis.md").read_text()


def test_a_row_of_the_calibration_table_is_made_again() -> None:
    """100 of the 4800 simulated runs, with their seeds."""
    cell = (12, 0.01, "log-probs")
    cases = [
        Simulated(f, *cell, diagnose(simulate(f, *cell, seed)).verdict, 1.0)
        for f in FAMILIES
        for seed in range(10)
    ]
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning, match="empty slice"):
        made = table(cases, 10)  # the other cells are empty
    (row,) = [line for line in made.splitlines() if line.startswith("| 12 | 1.00% | log-probs |")]
    published = (DOCS / "diagnosis-calibration.md").read_text()
    assert row in published
    assert made.splitlines()[2].partition("; ")[2].partition("runs, ")[2] in published


def test_remedies_come_in_the_order_of_what_the_ledger_supports(tmp_path: Path) -> None:
    def entry(claim: str, outcome: str) -> object:
        found = Verdict(claim, "tiny", outcome, effect=1.0, interval=(0.5, 1.5), n=3)  # type: ignore[arg-type]
        return new_entry(found, catalogue.get(claim), seconds=0.0, test=f"test_{claim}")

    judged = [entry("EX-1", "contradicted"), entry("CP-2", "supported")]
    merge(tmp_path, judged, [], set())  # type: ignore[arg-type]
    claims = [r.claim for r in remedies("squeezing", tmp_path)]
    assert (claims[0], claims[1], claims[-1]) == ("DO-1", "CP-2", "EX-1")


def test_a_verdict_whose_remedies_no_claim_supports_says_so_first(tmp_path: Path) -> None:
    first, tried = remedies("lazy displacement")
    assert first.action == "no remedy is supported here"
    assert tried.status.startswith("contradicted (pretrained)")
    said = [r.action for name in verdict.VERDICTS for r in remedies(name) if r == first]
    assert len(said) == 1  # every other verdict has a supported remedy, or one that needs none


def test_every_remedy_names_a_claim_of_the_registry(tmp_path: Path) -> None:
    named = {r.claim for name in verdict.VERDICTS for r in remedies(name, tmp_path) if r.claim}
    assert named <= set(catalogue.load())
