"""The results table and the claims' pages, from a ledger made by hand."""

import pytest

from squeeze.claims.catalogue import Claim
from squeeze.claims.table import overview, results_markdown
from squeeze.claims.types import Entry, Verdict
from squeeze.report.claim_pages import write_claim_pages
from squeeze.study.registration import registered_by_claim, registration_sha256
from tests.report.page_text import Page

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
    Verdict("T-2", "tiny", "inconclusive", SPLIT, -1.0, (-2.5, 0.5), 0.0, 8, (100, 101),
            "dpo, held_out", evidence={"effects": {"<b>": 1.25}}, role="secondary",
            seed_means=(-1.5, -0.5), detectable=2.25),
    Verdict("T-2", "tiny", "not run", SPLIT, comparison="dpo, few", reason="needs 2 examples",
            role="secondary"),
    Verdict("T-3", "tiny", "inconclusive", SPLIT, -1.0, (-2.5, 0.5), 0.0, 8, (100,)),
]  # fmt: skip


@pytest.fixture
def rows():
    made = [entry(verdict) for verdict in VERDICTS]
    return overview(CLAIMS, {row.key: row for row in made})


def test_the_results_table_has_a_row_a_claim_and_a_column_a_level(rows):
    lines = results_markdown(rows).splitlines()
    assert lines == [
        "| claim | sentence | toy | tiny | published | pretrained | gpu |",
        "|---|---|---|---|---|---|---|",
        "| T-1 | water is wet | supported 2 [1.9, 2.1] (n=7, 1 seed) |  |  |  |  |",
        "| T-2 | fire is hot |  | supported 3 [1, 5] (n=8, 2 seeds) |  | not run |  |",
        "| T-3 | ice \\| floats |  | inconclusive -1 [-2.5, 0.5] (n=8, 1 seed) |  |  | not run |",
    ]


def test_with_rows_every_comparison_has_its_effect(rows):
    lines = results_markdown(rows, each_comparison=True).splitlines()[2:]
    assert [line for line in lines if "T-2" in line] == [
        "| T-2 | fire is hot (dpo, few) |  | not run |  | not run |  |",
        "| T-2 | fire is hot (dpo, held_out) |  | inconclusive -1 [-2.5, 0.5] |  | not run |  |",
        "| T-2 | fire is hot (dpo, train) |  | supported 3 [1, 5] |  | not run |  |",
    ]
    assert [line for line in lines if "T-3" in line] == [
        "| T-3 | ice \\| floats |  | inconclusive -1 [-2.5, 0.5] |  |  | not run |"
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = {row.key: row for row in map(entry, VERDICTS)}
    directory = tmp_path_factory.mktemp("site")
    write_claim_pages(directory, CLAIMS, overview(CLAIMS, made), {})
    return directory


def words(page):
    return " ".join(page.text.split())


def test_the_index_links_every_claim_and_says_how_it_stands_in_words(site):
    page = Page(site / "index.html")
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == ["T-1.html", "T-2.html", "T-3.html"]
    assert all((site / link).is_file() for link in links)
    assert "tiny ✓ supported 3 [1, 5] (n=8, 2 seeds) pretrained – not run" in words(page)
    assert "toy ✓ supported 2 [1.9, 2.1]" in words(page)


def test_a_claims_page_shows_its_words_its_rows_and_why_a_row_was_not_run(site):
    page = Page(site / "T-2.html")
    wanted = ["fire is hot", "ice", "dpo, held_out", "-1 [-2.5, 0.5]", "100, 101", "2026-11-21"]
    wanted += ["-1.5, -0.5", "2.25", "secondary"]
    wanted += ["needs 2 examples", "never run here", "a CPU", "torch 2.13", "effects.<b>"]
    for text in wanted:
        assert text in words(page)
    assert "w > <0>" in Page(site / "T-1.html").text


def test_intervals_of_one_statistic_share_an_axis_with_the_bound_on_it(site):
    page = Page(site / "T-2.html")
    bars = [attributes for tag, attributes in page.tags if tag == "line"]
    bounds = [float(bar["x1"]) for bar in bars if "stroke-dasharray" in bar]
    intervals = [(float(b["x1"]), float(b["x2"])) for b in bars if "stroke-width" in b]
    # The axis spans -2.5 to 5 over 8 to 212: 0 lies at 8 + 204/3.
    assert bounds == [76.0, 76.0]
    assert intervals == [(8.0, 89.6), (103.2, 212.0)]


def test_a_registered_claim_shows_its_plan_and_the_pages_load_nothing(site, tmp_path):
    claim = Claim("SF-1", "chosen rises", "§4", "observation", ("tiny",), "permuted", print)
    write_claim_pages(
        tmp_path, {"SF-1": claim}, overview({"SF-1": claim}, {}), registered_by_claim([claim])
    )
    page = Page(tmp_path / "SF-1.html")
    assert "smallest growth of chosen between probes of SFT, nats" in page.text
    assert "whole interval above 0" in page.text
    assert registration_sha256("tiny") in page.text
    assert "squeeze observe tiny --claims SF-1" in page.text
    for path in (tmp_path / "SF-1.html", site / "T-2.html", site / "index.html"):
        assert "http" not in path.read_text(encoding="utf-8")
