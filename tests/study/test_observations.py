"""Every observation of Section 4 on the tiny LM, as pre-registered, on the evaluation seeds.

A claim that does not hold is a result: it goes into the ledger as such. What fails here is a claim
that is supported in the shipped results and holds no longer, or a row that is not judged as
registered.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from squeeze.claims.results import shipped
from squeeze.claims.types import Verdict
from squeeze.study.observations import claims_at, judge
from squeeze.study.registration import plan, stands_apart
from squeeze.study.study import Study
from tests.study.rows import regressions, unregistered

pytestmark = pytest.mark.cpu

RECORDS = Path(__file__).parents[2] / "reports/reference/observations/tiny"


@pytest.fixture(scope="module")
def study():
    return Study("tiny")


@pytest.mark.parametrize(
    "claim",
    [pytest.param(claim, marks=pytest.mark.claim(claim, "tiny")) for claim in claims_at("tiny")],
)
def test_observation(claim, study, ledger):
    if stands_apart(claim):  # judged from what is recorded: minutes of training a seed
        study = Study("tiny", records=RECORDS, recorded=True)
    verdicts = judge(study, claim)
    ledger.record(*verdicts)
    assert verdicts
    assert not unregistered(verdicts)
    own = plan("tiny", claim)
    assert {v.seeds for v in verdicts if v.ran} == {own.seeds_of(claim, own.evaluation)}
    assert not regressions(verdicts)


def test_a_claim_that_held_and_holds_no_longer_is_a_regression():
    held = shipped()["SF-1"]["tiny"]
    now = Verdict("SF-1", "tiny", held.outcome, held.statistic, held.effect, held.interval)
    assert held.outcome == "supported"
    assert not regressions([now])
    assert regressions([replace(now, outcome="inconclusive")])
    assert not regressions([replace(now, outcome="inconclusive", bound=held.interval[0])])
