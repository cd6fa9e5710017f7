"""Every observation of Section 4 on the tiny LM, as pre-registered, on the evaluation seeds.

A claim that does not hold is a result: it goes into the ledger as such. What fails here is a claim
that held when the evaluation was committed (reference.json) and holds no longer, or a row that is
not judged as registered.
"""

import json
from pathlib import Path

import pytest

from squeeze.study.observations import claims_at, judge
from squeeze.study.registration import plan, stands_apart, unregistered
from squeeze.study.study import Observatory
from tests.lm.regressions import regressions

pytestmark = pytest.mark.cpu

REFERENCE = Path(__file__).with_name("reference.json")
RECORDS = Path(__file__).parents[2] / "reports/reference/observations/tiny"


@pytest.mark.parametrize(
    "claim",
    [pytest.param(claim, marks=pytest.mark.claim(claim, "tiny")) for claim in claims_at("tiny")],
)
def test_observation(claim, observatory, ledger):
    if stands_apart(claim):  # judged from what is recorded: minutes of training a seed
        observatory = Observatory("tiny", records=RECORDS, recorded=True)
    verdicts = judge(observatory, claim)
    ledger.record(*verdicts)
    assert verdicts
    assert not unregistered(verdicts)
    own = plan("tiny", claim)
    assert {v.seeds for v in verdicts if v.ran} == {own.seeds_of(claim, own.evaluation)}
    assert not regressions(verdicts, json.loads(REFERENCE.read_text()))
