"""The page in a real browser, opened from disk, at a desk's and at a phone's width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.report.chromium import visit

pytestmark = pytest.mark.cpu

WIDTHS = (1400, 400)

EARLY = "<script>window.alert = () => { window.alerted = true; };</script>"
# Uses the page as a reader would, then tells the test what it looks like.
REPORT = """<script>
function report() {
  if (!document.documentElement.dataset.ready) return null;
  const traces = () => [...document.querySelectorAll("[data-group=curves]")]
    .flatMap((div) => div.data.filter((t) => t.visible === true).map((t) => t.meta));
  const look = () => ({
    kinds: new Set(traces().map((m) => m.kind)).size,
    splits: [...new Set(traces().map((m) => m.split))],
    perToken: [...new Set(traces().map((m) => m.perToken))],
  });
  const root = document.documentElement;
  const found = {first: look(), scroll: root.scrollWidth, inner: window.innerWidth};
  found.overflowing = [...document.querySelectorAll(".plot")]
    .filter((div) => div.querySelector("svg.main-svg").getBoundingClientRect().width
      > div.clientWidth + 1).map((div) => div.id);
  document.querySelector('[data-switch=split][data-value=held_out]').click();
  document.querySelector('[data-switch=perToken][data-value=true]').click();
  document.querySelector('[data-switch=change][data-value=false]').click();
  document.querySelector('[data-switch=spread][data-value=held_out]').click();
  document.querySelector('[data-kinds=leading]').click();
  found.then = look();
  document.querySelector('[data-kind=rejected]').click();
  found.last = look();
  found.alerted = Boolean(window.alerted);
  return found;
}
</script>"""


@pytest.fixture(scope="module")
def browser(
    full_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """What the page reports by width, and the browser's console."""
    folder = tmp_path_factory.mktemp("browser")
    reports, console = visit(folder, [full_run / "index.html"], WIDTHS, EARLY, REPORT)
    return {report["inner"]: report for report in reports}, console


def test_the_browser_console_stays_empty(
    browser: tuple[dict[int, dict[str, Any]], list[str]],
) -> None:
    assert browser[1] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(
    browser: tuple[dict[int, dict[str, Any]], list[str]], width: int
) -> None:
    report = browser[0][width]
    assert report["scroll"] <= report["inner"]
    assert report["overflowing"] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_switches_and_legend_change_what_is_drawn(
    browser: tuple[dict[int, dict[str, Any]], list[str]], width: int
) -> None:
    report = browser[0][width]
    assert report["first"] == {"kinds": 11, "splits": ["train"], "perToken": [False]}
    assert report["then"] == {"kinds": 3, "splits": ["held_out"], "perToken": [True]}
    assert report["last"]["kinds"] == 2


@pytest.mark.parametrize("width", WIDTHS)
def test_no_script_from_data_runs(
    browser: tuple[dict[int, dict[str, Any]], list[str]], width: int
) -> None:
    assert browser[0][width]["alerted"] is False
