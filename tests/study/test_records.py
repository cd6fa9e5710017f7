"""Records of finished work: what is damaged is named, or made again where it is only cached."""

import json

import pytest

from squeeze.errors import InputError
from squeeze.study.records import kept, read_log

pytestmark = pytest.mark.cpu

RECIPE = {"steps": 2}
WHOLE = {"recipe": RECIPE, "result": {"a": [1.0, 2.0]}}
SHAPE = dict[str, list[float]]
DAMAGED = {
    "no recipe": json.dumps({"result": {"a": [1.0]}}),
    "no object": json.dumps([WHOLE]),
    "cut off": json.dumps(WHOLE)[:-9],
    "another shape": json.dumps(WHOLE | {"result": {"a": 1.0}}),
    "no UTF-8": "\udcff",
}


def put(directory, text):
    directory.mkdir()
    (directory / "x.json").write_text(text, errors="surrogateescape")
    return directory


@pytest.fixture(params=DAMAGED)
def damaged(request):
    return DAMAGED[request.param]


def read(cache, records=None, recorded=False):
    return kept("x.json", RECIPE, lambda: WHOLE["result"], cache, records, recorded, SHAPE)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_damaged_record_is_named_and_not_overwritten(damaged, recorded, tmp_path):
    records = put(tmp_path / "records", damaged)
    before = (records / "x.json").read_bytes()
    with pytest.raises(InputError, match=r"records/x\.json.*delete it"):
        read(tmp_path / "cache", records, recorded)
    assert (records / "x.json").read_bytes() == before


def test_what_is_damaged_in_the_cache_is_made_again_with_a_note(damaged, tmp_path, capsys):
    cache = put(tmp_path / "cache", damaged)
    assert read(cache) == WHOLE["result"]
    assert "x.json is damaged; it is made again" in capsys.readouterr().err
    assert json.loads((cache / "x.json").read_text()) == WHOLE


def test_a_record_of_another_recipe_is_no_damage_whatever_its_shape(tmp_path):
    other = {"recipe": {"steps": 3}, "result": 1}
    records = put(tmp_path / "records", json.dumps(other))
    with pytest.raises(InputError, match="or of another recipe"):
        read(tmp_path / "cache", records, recorded=True)
    assert read(tmp_path / "cache", records) == WHOLE["result"]


@pytest.mark.parametrize("rows", [{}, [{"loss": 1.0}], [{"epoch": 1.0, "loss": "low"}], [1]])
def test_a_damaged_log_is_named(rows, tmp_path):
    path = tmp_path / "a.log.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"a\.log\.json, at|a\.log\.json: .*delete it"):
        read_log(path)
