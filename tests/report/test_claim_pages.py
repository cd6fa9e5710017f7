"""The results table and the claims' pages, from a ledger made by hand."""

import pytest

from squeeze.claims.ledger import Entry
from squeeze.claims.model import Claim, Verdict
from squeeze.claims.table import overview, results_markdown

pytestmark = pytest.mark.cpu

SPLIT = "change of chosen, nats"
CLAIMS = {
    claim.id: claim
    for claim in (
        Claim("T-1", "water is wet", "§1", "theorem", ("toy",), "a desert", print, math="w > <0>"),
        Claim("T-2", "fire is hot", "§2", "observation", ("tiny", "pretrained"), "ice", print,
              run="squeeze observe tiny"),
        Claim("T-3", "ice | floats", "§3", "observation", ("tiny", "gpu"), "lead", print),
    )
}  # fmt: skip


def entry(verdict):
    claim = CLAIMS[verdict.claim]
    return Entry(
        verdict, claim.sentence, claim.source, claim.kind, 1.5, "2026-11-21T07:00:00+00:00",
        "a CPU", {"torch": "2.13"}, "squeeze observe tiny",
    )  # fmt: skip


VERDICTS = [
    Verdict("T-1", "toy", "supported", "wetness", 2.0, (1.9, 2.1), bound=0.0, n=7, seeds=(100,)),
    Verdict("T-2", "tiny", "supported", SPLIT, 3.0, (1.0, 5.0), 0.0, 8, (100, 101), "dpo, train"),
    Verdict("T-2", "tiny", "not supported", SPLIT, -1.0, (-2.5, 0.5), 0.0, 8, (100, 101),
            "dpo, held_out", evidence={"side": "above", "effects": {"<b>": 1.25}}),
    Verdict("T-2", "tiny", "not run", SPLIT, comparison="dpo, few", reason="needs 2 examples"),
    Verdict("T-3", "tiny", "not supported", SPLIT, -1.0, (-2.5, 0.5), 0.0, 8, (100,)),
]  # fmt: skip


@pytest.fixture
def rows():
    made = [entry(verdict) for verdict in VERDICTS]
    return overview(CLAIMS, {row.key: row for row in made})


def test_the_results_table_has_a_row_a_claim_and_a_column_a_level(rows):
    lines = results_markdown(rows).splitlines()
    assert lines == [
        "| claim | sentence | toy | tiny | pretrained | gpu |",
        "|---|---|---|---|---|---|",
        "| T-1 | water is wet | supported 2 [1.9, 2.1] |  |  |  |",
        "| T-2 | fire is hot |  | not reproduced (1 of 3 rows, 1 not run) | not run |  |",
        "| T-3 | ice \\| floats |  | not reproduced -1 [-2.5, 0.5] |  | not run |",
    ]


def test_with_rows_every_comparison_has_its_effect(rows):
    lines = results_markdown(rows, each_comparison=True).splitlines()[2:]
    assert [line for line in lines if "T-2" in line] == [
        "| T-2 | fire is hot (dpo, few) |  | not run | not run |  |",
        "| T-2 | fire is hot (dpo, held_out) |  | not reproduced -1 [-2.5, 0.5] | not run |  |",
        "| T-2 | fire is hot (dpo, train) |  | supported 3 [1, 5] | not run |  |",
    ]
    assert [line for line in lines if "T-3" in line] == [
        "| T-3 | ice \\| floats |  | not reproduced -1 [-2.5, 0.5] |  | not run |"
    ]
