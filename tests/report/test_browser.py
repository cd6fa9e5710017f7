"""The page in a real browser, opened from disk, at a desk's and at a phone's width."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cpu

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
    *("--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0"),
    *("--virtual-time-budget=10000", "--window-size=1500,1200", "--dump-dom"),
]
WIDTHS = (1400, 400)

EARLY = "<script>window.alert = () => { window.alerted = true; };</script>"
# Uses the page as a reader would, then tells the page around it what it looks like.
LATE = """<script>
(function wait() {
  if (!document.documentElement.dataset.ready) { setTimeout(wait, 100); return; }
  const traces = () => [...document.querySelectorAll("[data-group=curves]")]
    .flatMap((div) => div.data.filter((t) => t.visible === true).map((t) => t.meta));
  const look = () => ({
    kinds: new Set(traces().map((m) => m.kind)).size,
    splits: [...new Set(traces().map((m) => m.split))],
    perToken: [...new Set(traces().map((m) => m.perToken))],
  });
  const root = document.documentElement;
  const report = {first: look(), scroll: root.scrollWidth, inner: window.innerWidth};
  report.overflowing = [...document.querySelectorAll(".plot")]
    .filter((div) => div.querySelector("svg.main-svg").getBoundingClientRect().width
      > div.clientWidth + 1).map((div) => div.id);
  document.querySelector('[data-switch=split][data-value=held_out]').click();
  document.querySelector('[data-switch=perToken][data-value=true]').click();
  document.querySelector('[data-switch=change][data-value=false]').click();
  document.querySelector('[data-switch=spread][data-value=held_out]').click();
  document.querySelector('[data-kinds=leading]').click();
  report.then = look();
  document.querySelector('[data-kind=rejected]').click();
  report.last = look();
  report.alerted = Boolean(window.alerted);
  parent.postMessage(report, "*");
})();
</script>"""
WRAPPER = """<!doctype html><pre id="out"></pre><script>
addEventListener("message", (event) => {
  document.getElementById("out").textContent += JSON.stringify(event.data) + "\\n";
});
</script>"""


@pytest.fixture(scope="module")
def browser(
    full_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """What the page reports by width, and the browser's console."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("browser")
    source = (full_run / "index.html").read_text(encoding="utf-8")
    page = folder / "page.html"
    page.write_text(
        source.replace("<head>", "<head>" + EARLY, 1).replace("</body>", LATE + "</body>"),
        encoding="utf-8",
    )
    frames = "".join(f'<iframe src="page.html" width="{w}" height="1000"></iframe>' for w in WIDTHS)
    wrapper = folder / "wrapper.html"
    wrapper.write_text(WRAPPER + frames, encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", wrapper.as_uri()],
        capture_output=True,
        text=True,
        timeout=480,
        check=True,
    )
    out = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert out, done.stdout[:500]
    reports = [json.loads(line) for line in unescape(out[1]).splitlines()]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
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
