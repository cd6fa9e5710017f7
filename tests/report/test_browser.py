"""Pages in a real browser, opened from disk: the main one at a desk's width, all at a phone's."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from queue import Empty
from threading import Thread
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
from tests.report.chromium import CHROMIUM, FLAGS, PATIENCE, Listener

pytestmark = pytest.mark.cpu

RUN = Path(__file__).parents[2] / "reports" / "reference" / "smollm2-cpu"
WIDTHS = (1400, 400)

OTHERS = ("log", "several logs", "scored run", "losses", "claims", "claim")  # at a phone's width
# Says how wide a page is, once it has drawn what it draws.
SIZE = """<script>
(function wait() {
  const root = document.documentElement;
  if (document.getElementById("plots") && !root.dataset.ready) { setTimeout(wait, 100); return; }
  const report = {page: "NAME", scroll: root.scrollWidth, inner: window.innerWidth};
  fetch("http://127.0.0.1:PORT/", {method: "POST", mode: "no-cors", body: JSON.stringify(report)});
})();
</script>"""
EARLY = "<script>window.alert = () => { window.alerted = true; };</script>"
# Uses the page as a reader would, then tells the test what it looks like.
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
  const report = {page: "main", first: look(), scroll: root.scrollWidth, inner: window.innerWidth};
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
  fetch("http://127.0.0.1:PORT/", {method: "POST", mode: "no-cors", body: JSON.stringify(report)});
})();
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
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("browser")
    server = Listener()
    Thread(target=server.serve_forever, daemon=True).start()
    frames = [("main.html", width) for width in WIDTHS]
    scripts = {"main": LATE} | {name: SIZE.replace("NAME", name) for name in OTHERS}
    for name, path in ({"main": full_run / "index.html"} | other_pages(folder)).items():
        source = path.read_text(encoding="utf-8")
        late = scripts[name].replace("PORT", str(server.server_port))
        (folder / f"{name}.html").write_text(
            source.replace("<head>", "<head>" + EARLY, 1).replace("</body>", late + "</body>"),
            encoding="utf-8",
        )
    frames += [(f"{name}.html", min(WIDTHS)) for name in OTHERS]
    # Headless Chromium has no windows narrower than 500 px; a frame has any width.
    shown = "".join(f'<iframe src="{x}" width="{w}" height="1000"></iframe>' for x, w in frames)
    wrapper = folder / "wrapper.html"
    wrapper.write_text("<!doctype html>" + shown, encoding="utf-8")
    console = folder / "console"
    with console.open("wb") as stream:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", wrapper.as_uri()]
        # Its own session, so that the helpers it starts end with it.
        browser = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=stream, start_new_session=True
        )
        try:
            reports = [server.reports.get(timeout=PATIENCE) for _ in frames]
        except Empty:
            pytest.fail(f"the page never got ready; console:\n{console.read_text()[-2000:]}")
        finally:
            os.killpg(browser.pid, signal.SIGTERM)
            browser.wait(timeout=30)
            server.shutdown()
            server.server_close()
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    found = {(report["page"], report["inner"]): report for report in reports}
    return found, [x for x in lines if ":CONSOLE" in x]


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


@pytest.mark.parametrize("width", WIDTHS)
def test_no_script_from_data_runs(
    browser: tuple[dict[tuple[str, int], dict[str, Any]], list[str]], width: int
) -> None:
    assert browser[0]["main", width]["alerted"] is False
