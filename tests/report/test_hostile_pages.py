"""Names and texts that are markup, formulas or commands of a terminal stay text on every page."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squeeze import diagnosis
from squeeze.claims.catalogue import Claim
from squeeze.claims.table import overview
from squeeze.claims.types import Entry, Verdict
from squeeze.diagnosis.page import write_report
from squeeze.report import build_report, losses
from squeeze.report.claim_pages import write_claim_pages
from squeeze.study.stories import report as stories
from tests.diagnosis.logs import trl_records
from tests.report.chromium import Shown, visit
from tests.report.synthetic import trajectory

pytestmark = pytest.mark.cpu

HOSTILE = (
    '=1"><img src=x onerror=alert(1)></script><script>alert(2)</script> $x [/b] **b** | \x1b[2J'
)
VERDICT = Verdict("T-1", "toy", "supported", HOSTILE, 2.0, (1.9, 2.1), 0.0, 7, (1,), HOSTILE)
EARLY = "<script>window.alert = () => { window.alerted = true; };</script>"
# Clicks whatever can be clicked, and looks for what only markup in the data can have made.
REPORT = """<script>
function report() {
  if (document.readyState !== "complete") return null;
  document.querySelectorAll("button, summary, [data-kind]").forEach((e) => e.click());
  return {
    alerted: Boolean(window.alerted),
    made: document.querySelectorAll("img[src=x], [onerror], a[href^=javascript]").length,
    shown: document.documentElement.textContent.includes("onerror=alert(1)"),
  };
}
</script>"""


def of_a_run(place: Path) -> Path:
    scores = trajectory(("dpo",), ("chosen", "rejected"), n_train=3, n_held_out=0, epochs=2)
    scores.frame["arm"] = "</script><b onclick=alert(1)>"
    kind = "<a href='javascript:alert(1)'>k</a>"
    scores.frame["kind"] = scores.frame["kind"].replace("rejected", kind)
    scores.frame["example"] = scores.frame["example"] + HOSTILE
    scores.write(place / "trajectory.parquet")
    return build_report(place)


def of_logs(place: Path) -> Path:
    """Two logs, as `squeeze diagnose` and `squeeze compare` show them."""
    path = place / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in trl_records(12)))
    (found,) = map(diagnosis.diagnose, diagnosis.load(path))
    hostile = replace(found.run, name=HOSTILE, axis=HOSTILE)
    again = diagnosis.diagnose(replace(hostile, name="b"))
    return write_report([diagnosis.diagnose(hostile), again], place / "page")


def of_losses(place: Path) -> Path:
    row = dict.fromkeys(losses.FIELDS, HOSTILE) | {"seed": losses.ALL, "split": "held_out"}
    row |= {"cut": "end", "effect": 1.0, "low": 0.5, "high": 1.5}
    columns = losses.COLUMNS
    content = {
        "schema": losses.SCHEMA,
        "rows": [row | {"column": column} for column in columns],
        "not_measured": {HOSTILE: {HOSTILE: HOSTILE}},
        "verdicts": {HOSTILE: [vars(VERDICT)]},
    }
    losses.write(place, content)
    first = next(csv.DictReader((place / "losses.csv").read_text().splitlines()))
    assert first["model"] == "'" + HOSTILE, "a spreadsheet would calculate it"
    assert "<script" not in (place / "losses.md").read_text().replace("\\<script", "")
    return place / "index.html"


def of_a_claim(place: Path) -> Path:
    claim = Claim("T-1", HOSTILE, HOSTILE, "theorem", ("toy",), HOSTILE, print, math=HOSTILE)
    entry = Entry(
        replace(VERDICT, evidence={HOSTILE: HOSTILE}), *(HOSTILE, HOSTILE, "theorem", 1.5, ""),
        *(HOSTILE, {HOSTILE: HOSTILE}, HOSTILE),
    )  # fmt: skip
    write_claim_pages(place, {"T-1": claim}, overview({"T-1": claim}, {entry.key: entry}), {})
    return place / "T-1.html"


def of_stories(place: Path) -> Path:
    texts = {name: [[HOSTILE, HOSTILE]] for name in ("base", "sft", "dpo-1")}
    run: dict[str, Any] = {
        **{"name": HOSTILE, "config": {"dpo": {"epochs": 1}, HOSTILE: HOSTILE}},
        **dict.fromkeys(("data", "device", "git", "created", "versions"), HOSTILE),
        **{"model": {"parameters": 7}, "seconds": {HOSTILE: 1.0}},
    }
    pair = dict.fromkeys(("prompt", "chosen", "rejected"), HOSTILE)
    prompts = [{"prompt": HOSTILE, "text": HOSTILE}] * 2
    found = {"texts": texts, "prompts": prompts, "log": {"dpo": []}, "rejected": [pair]}
    for name, value in (("run", run), ("texts", found)):
        (place / f"{name}.json").write_text(json.dumps(value))
    page = stories.write_report(place, [replace(VERDICT, effect=1.0)])
    assert "<script" not in (place / "report.md").read_text().replace("\\<script", "")
    return page


PAGES: list[Callable[[Path], Path]] = [of_a_run, of_logs, of_losses, of_a_claim, of_stories]


def test_no_page_runs_or_draws_what_its_data_says(tmp_path: Path) -> None:
    pages = []
    for make in PAGES:
        place = tmp_path / make.__name__
        place.mkdir()
        pages.append(make(place))
    folder = tmp_path / "browser"
    folder.mkdir()
    reports, _ = visit(folder, [Shown(page, [900], REPORT) for page in pages], EARLY)
    assert len(reports) == len(PAGES)
    for found in reports:
        del found["number"]
        assert found == {"alerted": False, "made": 0, "shown": True}
