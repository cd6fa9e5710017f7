"""What the page of a complete run says, and that text from data stays text."""

from __future__ import annotations

import base64
import gzip
import re
import struct
from pathlib import Path

import numpy as np
import plotly.graph_objects
import pytest
from plotly.io.json import to_json_plotly

from squeeze.data.probe_set import KINDS
from squeeze.files import write_json
from squeeze.report import build_report
from squeeze.report.content import build_content
from squeeze.report.html import _plots as interactive_plots
from squeeze.report.interactive import MOST_DOTS, packed
from squeeze.report.source import read_run
from squeeze.report.style import STYLES
from squeeze.report.summary import final_changes
from tests.report.page_text import Page, strings
from tests.report.synthetic import (
    ALL_ARMS,
    ALL_KINDS,
    CHINESE,
    SCRIPT,
    TITLES,
    make_run,
    record,
    trajectory,
    verdicts,
)

pytestmark = pytest.mark.cpu

LEVEL = {"kind": "chosen", "split": "train", "perToken": False, "change": False}


@pytest.fixture(scope="module")
def page(full_run: Path) -> Page:
    return Page(full_run / "index.html")


@pytest.fixture(scope="module")
def markdown(full_run: Path) -> str:
    return (full_run / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("arm", ALL_ARMS)
def test_every_arm_has_its_title_curves_and_numbers(page: Page, markdown: str, arm: str) -> None:
    plot = page.plots[f"curves-{ALL_ARMS.index(arm)}"]
    shown = {t["meta"]["kind"] for t in plot["data"] if t.get("visible")}
    assert shown == {"argmax", *ALL_KINDS}
    assert TITLES[arm] in page.text
    assert f"| {arm} | training prompts | 16 |" in markdown


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_kind_has_a_chip_and_a_description(page: Page, kind: str) -> None:
    chips = [a for tag, a in page.tags if tag == "button" and a.get("data-kind") == kind]
    assert len(chips) == 1
    assert STYLES[kind].name in page.text
    assert KINDS[kind][1] in page.text


def test_every_figure_is_one_that_plotly_knows(page: Page) -> None:
    assert {trace["type"] for plot in page.plots.values() for trace in plot["data"]} == {
        "scatter",
        "box",
    }
    for plot in page.plots.values():
        plotly.graph_objects.Figure(plot)  # raises on an unknown field or value


def test_every_curve_exists_for_both_splits_and_all_four_views(page: Page) -> None:
    views = {
        (t["meta"]["kind"], t["meta"]["split"], t["meta"]["perToken"], t["meta"]["change"])
        for t in page.plots["curves-0"]["data"]
    }
    assert len(views) == (len(ALL_KINDS) + 1) * 2 * 2 * 2


@pytest.mark.parametrize("verdict", verdicts(), ids=lambda v: f"{v.claim} {v.comparison}")
def test_every_verdict_is_a_row_with_its_word(page: Page, markdown: str, verdict) -> None:
    rows = [
        row for row in page.source.split("<tr>") if (verdict.comparison or verdict.reason) in row
    ]
    assert any(f"</span> {verdict.outcome}</span>" in row for row in rows)
    lines = [line for line in markdown.splitlines() if line.startswith(f"| {verdict.claim} |")]
    assert any(f"| {verdict.outcome} |" in line for line in lines)


def test_effect_interval_and_n_stand_in_the_verdict_table(markdown: str) -> None:
    assert (
        "| DO-2 | dpo, training prompts | supported | +7.9 | \\[+6.5, +9.4\\] | 0 | 16 |"
        in markdown
    )


def test_headline_says_yes_when_every_check_of_the_squeeze_is_supported(page: Page) -> None:
    assert "Yes, it squeezes" in page.text


def test_cost_precision_versions_and_command_are_stated(page: Page) -> None:
    for words in ("3 min 24 s", "9 min 28 s", "0.21 nats a response on average and at most 1.37"):
        assert words in page.text
    assert "2.13.0" in page.text
    assert "squeeze replicate --config config.yaml" in page.text


def test_what_was_not_run_is_listed_with_its_reason(page: Page, markdown: str) -> None:
    for text in (page.text, markdown):
        assert "no GPU here" in text
        assert "no on-policy arm in this run" in text


def test_text_from_data_shows_as_text(page: Page, markdown: str) -> None:
    assert SCRIPT in page.text
    assert CHINESE in page.text
    assert len(page.scripts) == 4
    assert not any("alert(1)" in script for script in page.scripts)
    assert "<script" not in markdown.replace("\\<script", "")


def test_every_verdict_links_to_its_evidence(page: Page) -> None:
    links = [a["href"][1:] for tag, a in page.tags if tag == "a" and a.get("href", "")[:1] == "#"]
    assert set(links) <= {a.get("id") for _, a in page.tags}
    assert links.count("spread") == len({v.claim for v in verdicts()})


def test_curves_are_in_the_page_as_csv(page: Page) -> None:
    rows = [
        r for r in page.data if (r["run"], r["split"], r["series"]) == ("dpo", "train", "chosen")
    ]
    traces = [
        t
        for t in page.plots[f"curves-{ALL_ARMS.index('dpo')}"]["data"]
        if t["mode"] == "lines+markers" and t["meta"] == LEVEL
    ]
    assert [float(r["value"]) for r in rows] == pytest.approx(traces[0]["y"], abs=1e-4)
    assert all(float(r["low"]) <= float(r["value"]) <= float(r["high"]) for r in rows)


def test_page_is_lighter_than_five_megabytes(full_run: Path) -> None:
    assert (full_run / "index.html").stat().st_size < 5e6


def test_page_loads_nothing_from_outside(page: Page) -> None:
    outside = [
        (tag, value)
        for tag, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "srcset") or (name == "href" and tag == "link")
        if value and not value.startswith("data:")
    ]
    assert outside == [("img", "data:")] or outside == []
    assert "@import" not in page.source.split("</style>")[0]


def test_images_of_the_readme_are_png(full_run: Path) -> None:
    for name in ("curves", "figure4", "distribution"):
        head = (full_run / "figures" / f"{name}.png").read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", head[16:24])
        assert width >= 600
        assert height >= 300


def test_hostile_names_cannot_leave_the_embedded_json_or_become_markup(tmp_path: Path) -> None:
    name = "</script><b onclick=alert(1)>$x_1$ 好"
    kind = "<a href='javascript:alert(1)'>k</a>"
    scores = trajectory(("dpo",), ("chosen", "rejected"), n_train=3, n_held_out=0, epochs=2)
    scores.frame["arm"] = name
    scores.frame["kind"] = scores.frame["kind"].replace("rejected", kind)
    scores.frame["example"] = scores.frame["example"] + "<img src=x onerror=alert(1)>"
    scores.write(tmp_path / "trajectory.parquet")
    page = Page(build_report(tmp_path))
    assert len(page.scripts) == 4
    assert name in page.text
    plots = page.plots
    for plot in plots.values():
        for trace in plot["data"]:
            trace.pop("meta", None)  # looked up by the page's script, never drawn
    labels = [s for s in strings(plots) if "alert" in s]
    assert labels
    assert not any(re.search(r"<(a|img|b onclick|/script)", label) for label in labels)
    assert not any(
        "onclick" in attributes or "onerror" in attributes for _, attributes in page.tags
    )


def test_packed_text_holds_no_markup_and_reads_back() -> None:
    text = '{"a": "</script><!--&\u2028"}'
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", packed(text))
    assert gzip.decompress(base64.b64decode(packed(text))).decode() == text


def test_the_plots_are_as_large_whatever_the_number_of_examples(tmp_path: Path) -> None:
    size, changes = [], []
    for n in (MOST_DOTS + 50, 4 * MOST_DOTS):
        scores = trajectory(("dpo",), ("chosen", "rejected"), n, n_held_out=0, epochs=1)
        scores.write(tmp_path / "trajectory.parquet")
        run = read_run(tmp_path)
        content = build_content(run)
        size.append(len(to_json_plotly(interactive_plots(content))))
        drawn = interactive_plots(content)["spread-0"]["data"][1]  # behind the argmax
        changes.append((final_changes(run.scores, "dpo", "chosen", "train"), drawn))
    assert abs(size[1] - size[0]) < 0.03 * size[0]  # longer names
    for found, drawn in changes:
        assert found is not None
        assert len(drawn["x"]) == len(drawn["text"]) == MOST_DOTS
        ranks = np.searchsorted(np.sort(found), np.quantile(drawn["x"], [0, 0.25, 0.5, 0.75, 1]))
        # The box of those that are drawn is that of all: to one rank in `MOST_DOTS`.
        apart = ranks / len(found) - np.array([0, 0.25, 0.5, 0.75, 1])
        assert np.abs(apart).max() <= 1 / MOST_DOTS
        where = dict(zip(drawn["text"], drawn["x"], strict=True))
        assert where == pytest.approx(found[list(where)].to_dict(), abs=1e-4)


def test_headline_counts_when_only_some_checks_are_supported(tmp_path: Path) -> None:
    make_run(tmp_path, arms=("dpo",), kinds=("chosen", "rejected"), n_train=3, epochs=1)
    mixed = [v for v in verdicts() if v.claim == "DO-2"]
    rows = [vars(mixed[0]), vars(mixed[1]) | {"outcome": "inconclusive"}]
    write_json(tmp_path / "verdicts.json", {"schema": 2, "verdicts": rows})
    assert "It squeezes in 1 of 2 comparisons" in Page(build_report(tmp_path)).text


def test_a_source_may_bring_its_own_headline(tmp_path: Path) -> None:
    make_run(tmp_path, arms=("dpo",), kinds=("chosen", "rejected"), n_train=3, epochs=1)
    write_json(tmp_path / "run.json", record(("dpo",)) | {"headline": "It <squeezes> from step 40"})
    assert "It <squeezes> from step 40" in Page(build_report(tmp_path)).text
