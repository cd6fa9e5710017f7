"""Each observation's counterfactual, trained on the tiny LM: the very same check does not hold.

The experiments are those of tests/study with the cause removed, on the registered seeds. Beside it
stands the contrast, the effect less the counterfactual's with its interval: rows of tests/study.
"""

from pathlib import Path

import pytest

from squeeze.study.observations import judge_counterfactual
from squeeze.study.study import Study

pytestmark = pytest.mark.cpu

RECORDS = Path(__file__).parents[2] / "reports/reference/observations"


@pytest.fixture(scope="session")
def study():
    return Study("tiny")


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param("SF-1", marks=pytest.mark.counterfactual("SF-1")),
        pytest.param("SF-2", marks=pytest.mark.counterfactual("SF-2")),
        pytest.param("SF-3", marks=pytest.mark.counterfactual("SF-3")),
        pytest.param("SF-4", marks=pytest.mark.counterfactual("SF-4")),
        pytest.param("SF-5", marks=pytest.mark.counterfactual("SF-5")),
        pytest.param("DO-1", marks=pytest.mark.counterfactual("DO-1")),
        pytest.param("DO-2", marks=pytest.mark.counterfactual("DO-2")),
        pytest.param("DO-3", marks=pytest.mark.counterfactual("DO-3")),
        pytest.param("DO-4", marks=pytest.mark.counterfactual("DO-4")),
        pytest.param("DO-5", marks=pytest.mark.counterfactual("DO-5")),
        pytest.param("EX-1", marks=pytest.mark.counterfactual("EX-1")),
        pytest.param("RP-1", marks=pytest.mark.counterfactual("RP-1")),
        pytest.param("ON-1", marks=pytest.mark.counterfactual("ON-1")),
        pytest.param("CP-1", marks=pytest.mark.counterfactual("CP-1")),
        pytest.param("CP-2", marks=pytest.mark.counterfactual("CP-2")),
        pytest.param("VA-1", marks=pytest.mark.counterfactual("VA-1")),
        pytest.param("CH-1", marks=pytest.mark.counterfactual("CH-1")),
    ],
)
def test_without_its_cause_the_claim_is_not_supported(claim, study):
    rows = [row for row in judge_counterfactual(study, claim) if row.role == "primary"]
    assert rows
    assert not any(row.supported for row in rows), rows


@pytest.mark.parametrize(
    ("claim", "level"),
    [
        pytest.param("GR-1", "tiny", marks=pytest.mark.counterfactual("GR-1")),
        pytest.param("GR-1", "pretrained", marks=pytest.mark.counterfactual("GR-1")),
        pytest.param("GR-2", "tiny", marks=pytest.mark.counterfactual("GR-2")),
        pytest.param("GR-2", "pretrained", marks=pytest.mark.counterfactual("GR-2")),
        pytest.param("NS-1", "tiny", marks=pytest.mark.counterfactual("NS-1")),
        pytest.param("DP-4", "tiny", marks=pytest.mark.counterfactual("DP-4")),
    ],
)
def test_of_what_is_recorded_too(claim, level):
    recorded = Study(level, records=RECORDS / level, recorded=True)
    rows = [row for row in judge_counterfactual(recorded, claim) if row.role == "primary"]
    assert rows
    assert not any(row.supported for row in rows), rows
