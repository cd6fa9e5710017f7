"""`squeeze scan`: the table, the filtered data, going on after a stop, and bad input."""

import json
import sys

import pandas as pd
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from squeeze.cli import app, main
from squeeze.data.loading import load_examples
from squeeze.scan import files, scan
from squeeze.scan.ches import encode_pairs
from squeeze.scan.files import scan_data, write_table

pytestmark = pytest.mark.cpu
PAIRS = [
    {"prompt": f"Why {i}?", "chosen": "It is so lovely! " * (i % 3 + 1), "rejected": f"No {i}."}
    for i in range(8)
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return path


def run(*arguments):
    """The standard output of a `squeeze scan ARGUMENTS` that succeeds."""
    # float32: --dtype auto first measures whether bfloat16 is faster, which takes seconds.
    arguments = ["scan", *map(str, arguments), "--dtype", "float32"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(monkeypatch, capsys, *arguments):
    """The message of a `squeeze scan ARGUMENTS` that is refused."""
    monkeypatch.setattr(
        sys, "argv", ["squeeze", "scan", "--dtype", "float32", *map(str, arguments)]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("squeeze: ")
    return message


def read(path):
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True)
    return (
        pd.read_csv(path, keep_default_na=False) if path.suffix == ".csv" else pd.read_parquet(path)
    )


def test_the_table_is_every_pair_worst_first(data, tiny_directory, tmp_path):
    out = tmp_path / "new" / "scan.csv"
    printed = run(data, "--model", tiny_directory, "--out", out, "--top", 3)
    table = read(out)
    assert sorted(table["row"]) == list(range(1, 9))
    assert table["normalised_ches"].is_monotonic_decreasing
    assert "the 3 of 8 pairs most at risk" in printed
    assert table["example"][0] in printed
    assert [p.name for p in out.parent.iterdir()] == ["scan.csv"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_every_format_holds_the_same_numbers(suffix, data, tiny_directory, tmp_path):
    frame = scan_data(str(data), str(tiny_directory), dtype="float32", limit=2)
    write_table(frame, tmp_path / f"scan{suffix}")
    pd.testing.assert_frame_equal(read(tmp_path / f"scan{suffix}"), frame, rtol=1e-12)


def test_json_holds_all_rows_and_nothing_else_is_printed(data, tiny_directory):
    document = json.loads(run(data, "--model", tiny_directory, "--json", "--limit", 5))
    assert (document["pairs"], len(document["rows"])) == (5, 5)


def test_filtered_data_lacks_the_worst_and_keeps_the_rest_in_order(data, tiny_directory, tmp_path):
    out, rest = tmp_path / "scan.csv", tmp_path / "rest.jsonl"
    options = ["--out", out, "--drop-top", "0.25", "--filtered", rest]
    printed = run(data, "--model", tiny_directory, *options)
    worst = set(read(out)["example"][:2])
    kept = [e for e in load_examples(str(data)) if e.id not in worst]
    assert load_examples(str(rest)) == kept
    assert len(kept) == 6
    assert "without the worst 2:" in printed


def test_a_format_that_is_only_read_is_filtered_into_squeezes_own(tiny_directory, tmp_path):
    source = tmp_path / "chats.jsonl"
    rows = [
        {
            "prompt": p["prompt"],
            "chosen": [
                {"role": "user", "content": p["prompt"]},
                {"role": "assistant", "content": p["chosen"]},
            ],
            "rejected": [
                {"role": "user", "content": p["prompt"]},
                {"role": "assistant", "content": p["rejected"]},
            ],
        }
        for p in PAIRS
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rest = tmp_path / "rest.parquet"
    options = ["--from", "ultrafeedback", "--drop-top", "0.01", "--filtered", rest]
    assert "(squeeze)" in run(source, "--model", tiny_directory, *options)
    assert len(load_examples(str(rest))) == 7  # at least one is left out


def test_a_stopped_scan_goes_on_where_it_was(data, tiny_directory, tmp_path, monkeypatch):
    out = tmp_path / "scan.csv"
    scanned = []

    def counting(model, items, **options):
        if len(scanned) == 5:
            raise KeyboardInterrupt
        scanned.append(items[0].example)
        return scan(model, items, **options)

    monkeypatch.setattr(files, "scan", counting)
    options = {"dtype": "float32", "out": out}
    with pytest.raises(KeyboardInterrupt):
        scan_data(str(data), str(tiny_directory), **options)
    assert not out.exists()
    with (tmp_path / "scan.csv.partial.jsonl").open("a") as stream:
        stream.write('{"example": "cut o')  # killed while writing
    monkeypatch.setattr(files, "scan", lambda *a, **k: scanned.append("again") or scan(*a, **k))
    resumed = scan_data(str(data), str(tiny_directory), **options)
    assert scanned[5:] == ["again"] * 3
    assert list(tmp_path.glob("*.partial.jsonl")) == []
    once = scan_data(str(data), str(tiny_directory), dtype="float32")
    pd.testing.assert_frame_equal(resumed, once, check_exact=True)


def test_a_second_scan_of_one_out_is_refused(data, tiny_directory, tmp_path, monkeypatch, capsys):
    out = tmp_path / "scan.csv"
    lock = tmp_path / "scan.csv.partial.jsonl.lock"
    with FileLock(lock):
        said = refused(monkeypatch, capsys, data, "--model", tiny_directory, "--out", out)
    assert "another scan is writing --out" in said
    lock.unlink(missing_ok=True)
    run(data, "--model", tiny_directory, "--out", out)
    assert len(read(out)) == 8
    assert not lock.exists()


def test_another_template_does_not_go_on_with_the_rows_of_this_one(data, tiny_directory, tmp_path):
    out = tmp_path / "scan.csv"
    items = encode_pairs(files.load_tokenizer(str(tiny_directory)), load_examples(str(data))[:1])
    identity = {"model": "m", "data": "d", "template": "model", "dtype": "f"}
    with files._kept(out, identity) as (_, keep):
        keep(next(scan(files.load_model(str(tiny_directory)), items)))
    with files._kept(out, identity) as (done, _):
        assert list(done) == [items[0].example]
    with files._kept(out, identity | {"template": "unmarked"}) as (done, _):
        assert done == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "0"], "--limit must be positive"),
        (["--out", "x.xlsx"], "must end in .csv, .parquet or .jsonl"),
        (["--dtype", "int8"], "unknown --dtype 'int8'"),
        (["--template", "alpaca"], "unknown template 'alpaca'"),
        (["--drop-top", "0.05"], "add --filtered FILE"),
        (["--filtered", "rest.jsonl"], "add --drop-top 0.05"),
        (["--filtered", "rest.jsonl", "--drop-top", "5"], "a share between 0 and 1"),
        (["--filtered", "rest.jsonl", "--drop-top", "0.1", "--limit", "3"], "drop --limit"),
        (["--filtered", "rest.txt", "--drop-top", "0.1"], "must end in .jsonl, .json or .parquet"),
        (["--filtered", "rest.jsonl", "--drop-top", "0.99"], "leaves none"),
        (["--filtered", "x.jsonl", "--drop-top", "0.1", "--out", "x.jsonl"], "give two files"),
        (["--filtered", "pairs.jsonl", "--drop-top", "0.1", "--force"], "is the data itself"),
    ],
)
def test_bad_options_are_named_with_the_way_out(
    options, message, data, tiny_directory, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    before = data.read_text()
    assert message in refused(monkeypatch, capsys, data, "--model", tiny_directory, *options)
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.jsonl"]
    assert data.read_text() == before


def test_a_file_that_exists_is_kept_without_force(
    data, tiny_directory, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "scan.csv"
    out.write_text("mine")
    arguments = [data, "--model", tiny_directory, "--limit", 1, "--out", out]
    assert "add --force" in refused(monkeypatch, capsys, *arguments)
    assert out.read_text() == "mine"
    run(*arguments, "--force")
    assert len(read(out)) == 1


def test_an_answer_the_model_cannot_read_is_named(tiny_directory, tmp_path, monkeypatch, capsys):
    path = tmp_path / "long.jsonl"
    long = {"id": "long", "prompt": "Why?", "chosen": "Yes!", "rejected": "because " * 1500}
    path.write_text(json.dumps(long) + "\n")
    message = refused(monkeypatch, capsys, path, "--model", tiny_directory)
    assert "example 'long', rejected: prompt + response is" in message
    assert "shorten or drop the example" in message
