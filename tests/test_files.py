"""Nobody ever sees half a file."""

import json

import pytest

from squeeze.errors import InputError
from squeeze.files import read_json, replacing, write_json, write_text

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
