"""Converting: nothing dropped silently, all or nothing on disk, published files without loss."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from squeeze.cli import app
from squeeze.data.convert import convert, side_path
from squeeze.data.loading import load_examples, resolve
from squeeze.data.probe_set import PAPER_KINDS
from squeeze.data.sources import open_source
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu

SHARED = Path(__file__).parents[3] / "shared" / "data"
GOOD = {"prompt": "Q?", "chosen": "yes", "rejected": "no"}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.is_file():
        pytest.skip(f"the published data is not beside this checkout (no shared/data/{parts[-1]})")
    return path


def test_every_row_is_written_filtered_or_refused_with_its_number(tmp_path: Path) -> None:
    rows = [
        GOOD | {"language": "zh"},
        GOOD | {"language": "en"},
        GOOD | {"language": "zh", "chosen": ""},
        GOOD | {"language": "zh", "chosen": "sure", "score": 3},
    ]
    source = write(tmp_path / "in.jsonl", rows)
    with source.open("a") as stream:
        stream.write("{broken \\ud800\n")
    out = tmp_path / "out.jsonl"
    summary = convert(source, out, "alpaca", where={"language": "zh"})
    assert (summary.rows_in, summary.rows_out, summary.filtered) == (5, 2, 1)
    assert summary.refused == {"empty chosen": 1, "not JSON": 1}
    assert summary.not_carried == {"column score": 1}
    assert [row["chosen"] for row in lines(out)] == ["yes", "sure"]
    refused = lines(side_path(out))
    assert [(r["row"], r["reason"]) for r in refused] == [(3, "empty chosen"), (5, "not JSON")]
    assert [r["value"] for r in refused] == [rows[2], "{broken \\ud800"]


def test_what_the_target_cannot_hold_is_refused_or_reported(tmp_path: Path) -> None:
    long = [
        {"role": r, "content": c} for r, c in [("user", "a"), ("assistant", "b"), ("user", "c")]
    ]
    rows = [
        {"prompt": long, "chosen": "yes", "rejected": "no"},
        {
            "id": "x",
            "prompt": long[:1],
            "chosen": "yes",
            "rejected": "no",
            "responses": {"own": "r"},
        },
    ]
    out = tmp_path / "out.json"
    summary = convert(write(tmp_path / "in.jsonl", rows), out, "comparison")
    assert summary.refused == {"prompt is a conversation": 1}
    assert summary.not_carried == {"response own": 1, "id": 1}
    (refused,) = lines(side_path(out))
    assert refused["value"]["prompt"] == long


def test_a_refused_pair_of_unpaired_rows_counts_both(tmp_path: Path) -> None:
    turns = [{"role": r, "content": c} for r, c in [("user", "a"), ("assistant", "b")]]
    prompts = [[*turns, turns[0]], turns[:1]]
    rows = [
        {"prompt": p, "completion": c, "label": c == "yes"} for p in prompts for c in ("yes", "no")
    ]
    source = write(tmp_path / "in.jsonl", [*rows, rows[0]])
    summary = convert(source, tmp_path / "out.jsonl", "trl")
    assert summary.refused == {
        "prompt is a conversation": 2,
        "unpaired: no rejected (label false) answer": 1,
    }
    used = summary.rows_per_example * summary.examples
    assert summary.rows_in == 5 == used + sum(summary.refused.values())


def test_a_response_that_is_no_text_is_reported_and_costs_no_row(tmp_path: Path) -> None:
    rows = [GOOD | {"random": 0.5, "human": "said"}]  # both are names of response kinds
    out = tmp_path / "out.jsonl"
    summary = convert(write(tmp_path / "in.jsonl", rows), out, "squeeze")
    assert (summary.examples, summary.not_carried) == (1, {"column random": 1})
    assert lines(out)[0]["responses"] == {"human": "said"}


def test_an_earlier_side_file_goes_when_nothing_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    convert(write(tmp_path / "a.jsonl", [GOOD, GOOD | {"chosen": ""}]), out, "trl")
    assert side_path(out).exists()
    convert(write(tmp_path / "b.jsonl", [GOOD]), out, "trl", force=True)
    assert not side_path(out).exists()


@pytest.mark.parametrize(
    ("content", "to", "message"),
    [
        (json.dumps(GOOD | {"chosen": ""}), "trl", r"no row .* row 1 has an empty 'chosen'"),
        (
            '[{"prompt": "Q?", "chosen": "yes", "rejected": "no"}, {"prompt"',
            "trl",
            "row 2 is not JSON",
        ),
        (json.dumps(GOOD), "alpacca", "did you mean 'alpaca'"),
        (json.dumps(GOOD), "paper", "unknown format 'paper'"),
    ],
)
def test_a_conversion_that_fails_leaves_nothing_behind(
    content: str, to: str, message: str, tmp_path: Path
) -> None:
    source = tmp_path / "in.json"
    source.write_text(content)
    with pytest.raises(InputError, match=message):
        convert(source, tmp_path / "out.jsonl", to, format="trl")
    assert list(tmp_path.iterdir()) == [source]


def test_an_existing_output_is_overwritten_only_by_force_and_never_the_input(
    tmp_path: Path,
) -> None:
    source = write(tmp_path / "in.jsonl", [GOOD])
    out = write(tmp_path / "out.jsonl", [{"old": 1}])
    with pytest.raises(InputError, match="exists"):
        convert(source, out, "trl")
    convert(source, out, "trl", force=True)
    assert lines(out)[0]["prompt"] == "Q?"
    with pytest.raises(InputError, match="is the input"):
        convert(source, source, "trl", force=True)


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    peaks = []
    for n in (20, 80):
        source = tmp_path / f"in{n}.jsonl"
        write(
            source, [GOOD | {"prompt": f"Q {i}?", "chosen": f"{i:4} " * 10_000} for i in range(n)]
        )
        tracemalloc.start()
        convert(source, tmp_path / f"out{n}.jsonl", "squeeze")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 60 more rows hold 3 MB of text; remembering a tenth of it would show.
    assert peaks[1] - peaks[0] < 300_000


def test_the_embedded_data_survives_a_journey_through_three_formats(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("a.parquet", "b.json", "c.jsonl"))
    convert(resolve("enthusiastic_zh")[0], first, "trl-conversational")
    convert(first, second, "squeeze")
    convert(second, third, "trl")
    assert load_examples(str(third)) == load_examples("enthusiastic_zh")


def test_the_papers_probing_set_converts_without_loss(tmp_path: Path) -> None:
    source = shared("authors", "helpful_prob_train.jsonl")
    out = tmp_path / "out.jsonl"
    summary = convert(source, out, "squeeze")
    originals = lines(source)
    assert summary.refused == {"empty rejected": 1}  # row 248, as published
    assert [r["value"] for r in lines(side_path(out))] == [originals.pop(247)]
    assert summary.not_carried == {}
    converted = lines(out)
    for row, original in zip(converted, originals, strict=True):
        # One space behind "Human:" and "Assistant:" belongs to the marker, where it is there.
        speakers = {"user": "Human", "assistant": "Assistant"}
        said = "".join(f"\n\n{speakers[m['role']]}:{m['content']}" for m in row["prompt"])
        marked = re.sub(r"(\n\n(?:Human|Assistant):) ", r"\1", original["prompt"])
        assert f"{said}\n\nAssistant:" == marked
        texts = {"chosen": row["chosen"], "rejected": row["rejected"], **row["responses"]}
        for name, value in original.items():
            if name != "prompt":
                assert texts.pop(PAPER_KINDS.get(name, name)) == value.removeprefix(" ")
        assert texts == {}


def test_llamafactorys_demo_converts_to_sharegpt_without_loss(tmp_path: Path) -> None:
    info = shared("llamafactory", "dataset_info.json")
    summary = convert(info, tmp_path / "middle.parquet", "squeeze", name="dpo_zh_demo")
    convert(tmp_path / "middle.parquet", tmp_path / "out.json", "sharegpt")
    assert (summary.rows_in, summary.examples, summary.not_carried) == (300, 300, {})
    original = json.loads(shared("llamafactory", "dpo_zh_demo.json").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == original


def test_the_papers_logs_are_not_mistaken_for_data() -> None:
    with pytest.raises(InputError, match="no format that is known here"):
        open_source(shared("authors", "prob_pythia410m_dpo.jsonl"))


def test_the_command_prints_the_summary_and_where_the_refused_rows_are(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [GOOD, GOOD | {"rejected": 3}])
    out = tmp_path / "out.jsonl"
    result = CliRunner().invoke(
        app, ["convert", str(source), str(out), "--to", "hh", "--from", "trl"]
    )
    assert result.exit_code == 0, result.output
    assert "rows in 2, rows out 1" in result.output
    assert "1 not a string" in result.output
    assert str(side_path(out)) in result.output
    assert lines(out) == [
        {"chosen": "\n\nHuman: Q?\n\nAssistant: yes", "rejected": "\n\nHuman: Q?\n\nAssistant: no"}
    ]


def test_show_counts_words_when_the_model_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEEZE_CACHE", str(tmp_path))
    result = CliRunner().invoke(app, ["data", "show", "--n", "1"])
    assert result.exit_code == 0, result.output
    assert "lengths in words" in result.output
    assert "en-001" in result.output
    assert "user [10]: How do I stop my rice from turning out sticky?" in result.output
    assert "en-002" not in result.output


def test_list_names_the_embedded_data_and_the_formats() -> None:
    result = CliRunner().invoke(app, ["data", "list"])
    assert result.exit_code == 0, result.output
    for name in ("enthusiastic_en: 96 pairs", "enthusiastic_zh: 48 pairs", "kto:", "llamafactory:"):
        assert name in result.output
