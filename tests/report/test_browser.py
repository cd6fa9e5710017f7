"""Pages in a real browser, opened from disk: the main one at a desk's width, all at a phone's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from squeeze.claims import catalogue
from squeeze.claims.results import entries
from squeeze.claims.table import overview
from squeeze.diagnosis import diagnose, load
from squeeze.diagnosis.page import report, write_report
from squeeze.report.claim_pages import write_claim_pages
from squeeze.report.losses import COLUMNS, FIELDS, write
from squeeze.study.registration import registered_by_claim
from tests.diagnosis.logs import jsonl, trainer_state, trl_records
from tests.report.chromium import Shown, visit

pytestmark = pytest.mark.cpu

RUN = Path(__file__).parents[2] / "reports" / "reference" / "smollm2-cpu"
WIDTHS = (1400, 400)

OTHERS = ("log", "several logs", "scored run", "losses", "claims", "claim")  # at a phone's width
# Says how wide a page is, once it has drawn what it draws.
SIZE = """<script>
function report() {
  const root = document.documentElement;
  if (document.getElementById("plots") && !root.dataset.ready) return null;
  return {scroll: root.scrollWidth, inner: window.innerWidth};
}
</script>"""
EARLY = "<script>window.alert = () => { window.alerted = true; };</script>"
# Uses the page as a reader would, then tells the test what it looks like.
LATE = """<script>
function report() {
  const csv = document.getElementById("csv");
  if (!document.documentElement.dataset.ready || csv.hidden) return null;
  const traces = () => [...document.querySelectorAll("[data-group=curves]")]
    .flatMap((div) => div.data.filter((t) => t.visible === true).map((t) => t.meta));
  const look = () => ({
    kinds: new Set(traces().map((m) => m.kind)).size,
    splits: [...new Set(traces().map((m) => m.split))],
    perToken: [...new Set(traces().map((m) => m.perToken))],
  });
  const root = document.documentElement;
  const said = {first: look(), scroll: root.scrollWidth, inner: window.innerWidth};
  said.csv = csv.href.slice(0, 5);
  said.overflowing = [...document.querySelectorAll(".plot")]
    .filter((div) => div.querySelector("svg.main-svg").getBoundingClientRect().width
      > div.clientWidth + 1).map((div) => div.id);
  document.querySelector('[data-switch=split][data-value=held_out]').click();
  document.querySelector('[data-switch=perToken][data-value=true]').click();
  document.querySelector('[data-switch=change][data-value=false]').click();
  document.querySelector('[data-switch=spread][data-value=held_out]').click();
  document.querySelector('[data-kinds=leading]').click();
  said.then = look();
  document.querySelector('[data-kind=rejected]').click();
  said.last = look();
  said.alerted = Boolean(window.alerted);
  return said;
}
</script>"""


def other_pages(folder: Path) -> dict[str, Path]:
    """A page of each other kind."""
    write_report(
        [diagnose(r) for r in load(trainer_state(folder / "a.json", trl_records()))], folder / "log"
    )
    runs = [
        jsonl(folder / f"{name}.jsonl", trl_records(seed=seed)) for seed, name in enumerate("bc")
    ]
    report(runs, folder / "logs")
    report([RUN], folder / "scored")
    losses = [
        dict(zip(FIELDS, ("model", loss, "all", split, cut, column, -3.0, -4.5, -1.5), strict=True))
        for loss in ("sigmoid", "ipo:tau=0.5")
        for split in ("train", "held_out")
        for cut in ("end", "equal margin")
        for column in COLUMNS
    ]
    write(folder / "losses", {"rows": losses, "not_measured": {}, "verdicts": {}})
    known, rows = catalogue.load(), overview(catalogue.load(), entries())
    write_claim_pages(folder / "claims", known, rows, registered_by_claim(known.values()))
    found = (
        "log/index",
        "logs/index",
        "scored/index",
        "losses/index",
        "claims/index",
        "claims/EX-1",
    )
    return {name: folder / f"{path}.html" for name, path in zip(OTHERS, found, strict=True)}


@pytest.fixture(scope="module")
def browser(
    full_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[tuple[str, int], dict[str, Any]], list[str]]:
    """What the pages report by name and width, and the browser's console."""
    folder = tmp_path_factory.mktemp("browser")
    shown = {"main": full_run / "index.html"} | other_pages(folder)
    pages = [
        Shown(path, WIDTHS if name == "main" else WIDTHS[-1:], LATE if name == "main" else SIZE)
        for name, path in shown.items()
    ]
    reports, console = visit(folder, pages, EARLY)
    names = list(shown)
    return {(names[said["number"]], said["inner"]): said for said in reports}, console


def test_the_browser_console_stays_empty(
    browser: tuple[dict[tuple[str, int], dict[str, Any]], list[str]],
) -> None:
    assert browser[1] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(
    browser: tuple[dict[tuple[str, int], dict[str, Any]], list[str]], width: int
) -> None:
    said = browser[0]["main", width]
    assert said["scroll"] <= said["inner"]
    assert said["overflowing"] == []


@pytest.mark.parametrize("page", OTHERS)
def test_no_page_scrolls_sideways_on_a_phone(
    browser: tuple[dict[tuple[str, int], dict[str, Any]], list[str]], page: str
) -> None:
    said = browser[0][page, min(WIDTHS)]
    assert said["scroll"] <= said["inner"]


@pytest.mark.parametrize("width", WIDTHS)
def test_switches_and_legend_change_what_is_drawn(
    browser: tuple[dict[tuple[str, int], dict[str, Any]], list[str]], width: int
) -> None:
    said = browser[0]["main", width]
    assert said["first"] == {"kinds": 11, "splits": ["train"], "perToken": [False]}
    assert said["then"] == {"kinds": 3, "splits": ["held_out"], "perToken": [True]}
    assert said["last"]["kinds"] == 2


def test_the_curves_can_be_saved(
    browser: tuple[dict[tuple[str, int], dict[str, Any]], list[str]],
) -> None:
    assert browser[0]["main", WIDTHS[0]]["csv"] == "blob:"


@pytest.mark.parametrize("width", WIDTHS)
def test_no_script_from_data_runs(
    browser: tuple[dict[tuple[str, int], dict[str, Any]], list[str]], width: int
) -> None:
    assert browser[0]["main", width]["alerted"] is False
