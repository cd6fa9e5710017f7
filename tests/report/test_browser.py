"""The page in a real browser, opened from disk, at a desk's and at a phone's width."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import pytest

pytestmark = pytest.mark.cpu

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
    *("--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0"),
    "--window-size=1500,1200",
]
WIDTHS = (1400, 400)
PATIENCE = 180  # seconds; a few on an idle machine

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
  fetch("http://127.0.0.1:PORT/", {method: "POST", mode: "no-cors", body: JSON.stringify(report)});
})();
</script>"""


class Listener(ThreadingHTTPServer):
    """Collects what the page posts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reports: Queue[dict[str, Any]] = Queue()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Listener)
        self.server.reports.put(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: the test speaks for itself."""


@pytest.fixture(scope="module")
def browser(
    full_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """What the page reports by width, and the browser's console."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("browser")
    server = Listener()
    Thread(target=server.serve_forever, daemon=True).start()
    source = (full_run / "index.html").read_text(encoding="utf-8")
    late = LATE.replace("PORT", str(server.server_port))
    (folder / "page.html").write_text(
        source.replace("<head>", "<head>" + EARLY, 1).replace("</body>", late + "</body>"),
        encoding="utf-8",
    )
    # Headless Chromium has no windows narrower than 500 px; a frame has any width.
    frames = "".join(f'<iframe src="page.html" width="{w}" height="1000"></iframe>' for w in WIDTHS)
    wrapper = folder / "wrapper.html"
    wrapper.write_text("<!doctype html>" + frames, encoding="utf-8")
    console = folder / "console"
    with console.open("wb") as stream:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", wrapper.as_uri()]
        # Its own session, so that the helpers it starts end with it.
        browser = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=stream, start_new_session=True
        )
        try:
            reports = [server.reports.get(timeout=PATIENCE) for _ in WIDTHS]
        except Empty:
            pytest.fail(f"the page never got ready; console:\n{console.read_text()[-2000:]}")
        finally:
            os.killpg(browser.pid, signal.SIGTERM)
            browser.wait(timeout=30)
            server.shutdown()
            server.server_close()
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    return {report["inner"]: report for report in reports}, [x for x in lines if ":CONSOLE" in x]


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
