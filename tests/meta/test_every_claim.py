"""Every claim has a counterfactual test, its words, and its id where a reader would look for it."""

import re
from pathlib import Path

import pytest

from squeeze.claims import catalogue
from squeeze.study.observations import COUNTERFACTUALS, OBSERVATIONS
from squeeze.study.registration import registered_rows

pytestmark = pytest.mark.cpu

ROOT = Path(__file__).parents[2]
CLAIMS = catalogue.load()
# Observed without a study: LD-5 on digits, QW on a GPU's replication.
ELSEWHERE = {"LD-5", "QW-1", "QW-2"}


def sources(folder):
    return {p: p.read_text(encoding="utf-8") for p in sorted((ROOT / folder).rglob("*.py"))}


def named_in(pattern, folder):
    return {m for text in sources(folder).values() for m in re.findall(pattern, text)}


def test_every_claim_has_a_counterfactual_test():
    """A mark with its id; `conftest` fails the test if it does not call that claim's check."""
    marked = named_in(r'counterfactual\("([A-Z]{2}-\d+)"\)', "tests/meta")
    # The softmax and policy-gradient claims stand in lists, whose cases are marked one by one.
    listed = named_in(r'\n    \("([A-Z]{2}-\d+)", \{', "tests/meta")
    assert set(CLAIMS) - marked - listed == set()


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda claim: claim.id)
def test_a_claim_says_what_decides_it_and_what_refutes_it(claim):
    for words in (claim.sentence, claim.source, claim.counterfactual, claim.primary, claim.math):
        assert words.strip()
    assert claim.judge.__doc__
    assert claim.judge.__doc__.startswith(claim.id)


@pytest.mark.parametrize("claim", [c for c in CLAIMS.values() if c.kind == "observation"])
def test_an_observation_is_registered_with_the_statistic_that_decides_it(claim):
    if claim.id in ELSEWHERE:
        pytest.skip("not part of a registered study")
    assert claim.id in OBSERVATIONS
    assert claim.id in COUNTERFACTUALS
    primary, *secondary = registered_rows(claim.id)
    assert primary["role"] == "primary"
    assert {row["role"] for row in secondary} <= {"secondary"}


def test_a_claims_id_stands_literally_in_its_check_its_test_and_its_counterfactual():
    """One `grep -rn ID squeeze tests` finds sentence, mathematics, check and counterfactual."""
    for id in CLAIMS:
        assert any(f'"{id}"' in text for text in sources("squeeze/claims").values()), id
        assert any(f'"{id}"' in text for text in sources("tests").values()), id
