"""Pages in headless Chromium, opened from disk: what their scripts report, and the console."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, NamedTuple

import pytest

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
    *("--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0"),
    "--window-size=1500,1200",
]
PATIENCE = 180  # seconds; a few on an idle machine

# Sends what the page's `report` function returns, once it returns something.
_SENDS = """<script>
(function send() {
  const found = report();
  if (!found) { setTimeout(send, 100); return; }
  found.number = NUMBER;
  fetch("http://127.0.0.1:PORT/", {method: "POST", mode: "no-cors", body: JSON.stringify(found)});
})();
</script>"""


class Shown(NamedTuple):
    """A page, the widths of the frames that show it, and its script with a function `report`."""

    page: Path
    widths: Sequence[int]
    report: str


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


def visit(
    folder: Path, pages: Sequence[Shown], early: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Open pages in frames: what each reports, with its `number`, in any order, and the console.

    `early` is put at the start of each page's head, its script at the end of its body: `report()`
    returns nothing until it is ready.
    """
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    server = Listener()
    Thread(target=server.serve_forever, daemon=True).start()
    frames = ""
    for number, (page, widths, report) in enumerate(pages):
        sends = report + _SENDS.replace("PORT", str(server.server_port))
        sends = sends.replace("NUMBER", str(number))
        source = page.read_text(encoding="utf-8").replace("<head>", "<head>" + early, 1)
        text = source.replace("</body>", sends + "</body>")
        (folder / f"page-{number}.html").write_text(text, encoding="utf-8")
        # Headless Chromium has no windows narrower than 500 px; a frame has any width.
        for width in widths:
            frames += f'<iframe src="page-{number}.html" width="{width}" height="1000"></iframe>'
    wrapper, console = folder / "wrapper.html", folder / "console"
    wrapper.write_text("<!doctype html>" + frames, encoding="utf-8")
    with console.open("wb") as stream:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", wrapper.as_uri()]
        # Its own session, so that the helpers it starts end with it.
        browser = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=stream, start_new_session=True
        )
        try:
            reports = [
                server.reports.get(timeout=PATIENCE) for shown in pages for _ in shown.widths
            ]
        except Empty:
            pytest.fail(f"a page never got ready; console:\n{console.read_text()[-2000:]}")
        finally:
            os.killpg(browser.pid, signal.SIGTERM)
            browser.wait(timeout=30)
            server.shutdown()
            server.server_close()
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    return reports, [line for line in lines if ":CONSOLE" in line]
