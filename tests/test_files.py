"""Nobody ever sees half a file."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
from pydantic import TypeAdapter

from squeeze.errors import InputError
from squeeze.files import (
    read_as,
    read_json,
    replacing,
    require_ours,
    require_output,
    write_json,
    write_text,
)

pytestmark = pytest.mark.cpu


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_killed_process_left_goes_when_the_file_is_written_again(tmp_path):
    target = tmp_path / "a[1].json"
    script = f"""
import os, signal
from pathlib import Path
from squeeze.files import replacing
with replacing(Path({str(target)!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    (left,) = tmp_path.iterdir()
    strangers = tmp_path / ".a[1].json.backup"
    strangers.write_text("")
    write_text(target, "whole")
    assert left.exists()  # its process might be writing still
    for path in (left, strangers):
        os.utime(path, (0, 0))
    write_text(target, "whole")
    assert set(tmp_path.iterdir()) == {target, strangers}


def test_missing_directories_are_made(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"x": [1]})
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {"x": [1]}


def test_a_directory_that_cannot_be_made_is_named_with_the_flag(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file.* --out"):
        write_text(tmp_path / "file" / "x.txt", "")


def test_nan_never_reaches_a_json_file(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_malformed_json_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x.json is not readable JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "y.json")


DECLARED = TypeAdapter(dict[str, list[float]])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": [1, "x"]}', "at a.1: .* valid number"),
        ('{"a": [1, null]}', "at a.1"),
        ('{"a": 5}', "at a: .* valid "),
        ("[]", "should be an object"),
        ("{", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
        ('{"a": ["\\ud83d"]}', "Invalid JSON"),
    ],
)
def test_a_file_that_is_not_as_declared_names_the_place_and_the_way_out(tmp_path, text, place):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=rf"x\.json.*{place}.*: make it again"):
        read_as(tmp_path / "x.json", DECLARED, "make it again")
    (tmp_path / "x.json").write_text('{"a": [1, 2.5]}')
    assert read_as(tmp_path / "x.json", DECLARED, "") == {"a": [1, 2.5]}


def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match="not a file"):
            read_as(path, DECLARED, "")
        with pytest.raises(InputError, match="not a file"):
            read_json(path)


def test_a_strangers_page_is_not_overwritten_and_ours_is(tmp_path):
    page = tmp_path / "index.html"
    require_ours(page, "--pages")
    page.write_text("<title>Claims · squeeze</title>")
    require_ours(page, "--pages")
    page.write_text("<title>mine</title>")
    with pytest.raises(InputError, match="give --pages another directory"):
        require_ours(page, "--pages")


@pytest.mark.parametrize(
    ("name", "held", "said"),
    [
        ("a.md", b"squeeze", "is what is read"),
        ("b.md", b"my notes", "no file of squeeze"),
        ("b.png", b"my notes", "no file of squeeze"),
        ("b.json", b'{"dpo-squeeze": 1}', ""),
        ("c.png", b"\x89PNG", ""),
        ("new.md", None, ""),
    ],
)
def test_an_output_is_no_input_and_no_strangers_file(tmp_path, name, held, said):
    (tmp_path / "a.md").write_text("squeeze")
    if held is not None:
        (tmp_path / name).write_bytes(held)
    with pytest.raises(InputError, match=said) if said else nullcontext():
        require_output(tmp_path / name, "--out", tmp_path / "a.md", None)


def test_a_pipe_or_device_is_never_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match="pipe or device of that name"):
            write_text(path, "x")
    assert (tmp_path / "pipe").is_fifo()
