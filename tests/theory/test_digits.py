"""LD-5 on real images: an update on one 4 moves other images by how the eNTK ties them to it."""

from __future__ import annotations

import pytest

from squeeze.claims.decomposition import check_similarity
from tests.theory.assertions import Ledger
from tests.theory.digits import EVALUATION_SEEDS, EXPECTED, measure

pytestmark = pytest.mark.cpu


@pytest.mark.claim("LD-5", "toy")
def test_an_update_on_a_4_helps_other_4s_most_and_follows_the_kernel_but_9s_not_above_0s(
    ledger: Ledger,
) -> None:
    """Three of LD-5's parts hold; that 9s come before 0s is inconclusive (see `digits`)."""
    verdicts = check_similarity(measure(EVALUATION_SEEDS))
    ledger.record(*verdicts)
    assert {verdict.comparison: verdict.outcome for verdict in verdicts} == EXPECTED
