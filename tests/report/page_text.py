"""Reading a page as a browser's parser would: visible text, scripts and tags."""

from __future__ import annotations

import csv
import gzip
import json
from base64 import b64decode
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """A parsed page: `text` outside scripts and styles, `scripts` in order, `tags`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.text, self.scripts, self.tags = "", [], []  # type: ignore[var-annotated]
        self._open = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = tag
            if tag == "script":
                self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] += data
        elif not self._open:
            self.text += data

    @property
    def data(self) -> list[dict[str, str]]:
        """The rows of the CSV that the page offers."""
        return list(csv.DictReader(_unpacked(self.scripts[2]).splitlines()))

    @property
    def plots(self) -> dict[str, Any]:
        """The embedded plotly figures by element id."""
        return json.loads(_unpacked(self.scripts[1]))


def _unpacked(script: str) -> str:
    return gzip.decompress(b64decode(script)).decode()


def strings(value: Any) -> Iterator[str]:
    """Every string inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
