"""Reading TinyStories-Instruct: every layout gives the same story, every slip is named."""

import json

import pytest

from squeeze.errors import InputError
from squeeze.study.stories import reading
from squeeze.study.stories.generator import Story
from squeeze.study.stories.reading import read_stories

pytestmark = pytest.mark.cpu

PROMPT = "Words: sun, play, happy\nFeatures: Dialogue\nSummary: Tom plays.\nStory:\n"
STORY = Story(PROMPT, 'Tom said "Hi".\n\nHe played.')
TEXT = PROMPT + STORY.text
OWN = {
    "story": STORY.text,
    "instruction": {"words": ["sun", "play", "happy"], "features": ["Dialogue"]},
    "summary": "Tom plays.",
}
ROWS = {
    "prompt and story": {"prompt": PROMPT.strip(), "story": STORY.text},
    "text": {"text": "\n" + TEXT + "\n"},
    "TinyStories' own": OWN,
}


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_each_row_layout_gives_the_same_story(row, suffix, tmp_path):
    path = tmp_path / f"stories{suffix}"
    rows = json.dumps([row, row]) if suffix == ".json" else f"{json.dumps(row)}\n\n" * 2
    path.write_text(rows)
    assert read_stories(path) == [STORY, STORY]


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_plain_text_is_split_at_its_separator_however_it_is_read(piece, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", piece)
    path = tmp_path / "stories.txt"
    path.write_text(f"{TEXT}\n<|endoftext|>\n{TEXT}<|endoftext|>\n\n<|endoftext|>{TEXT}\n")
    assert read_stories(path) == [STORY] * 3
    assert read_stories(path, limit=2) == [STORY] * 2


def test_a_limit_leaves_bad_rows_behind_it_unread(tmp_path):
    path = tmp_path / "stories.jsonl"
    path.write_text(json.dumps(OWN) + "\n{oops\n")
    assert read_stories(path, limit=1) == [STORY]


BAD = {
    "empty": ("stories.jsonl", "", "is empty"),
    "empty text": ("stories.txt", "\n\n", "is empty"),
    "not JSON": ("stories.json", "{oops", "is not JSON"),
    "not JSON, a line": ("stories.jsonl", json.dumps(OWN) + "\n{oops\n", "row 2"),
    "not an object": ("stories.json", '["a story"]', "row 1 is a str"),
    "no story": (
        "stories.json",
        json.dumps([OWN, {"prompt": "x"}]),
        "row 2 has no text in 'story'",
    ),
    "no prompt": ("stories.json", '[{"story": "x"}]', "row 1 has neither 'prompt'"),
    "number for text": ("stories.json", '[{"prompt": "x", "story": 7}]', "row 1 has no text"),
    "text without Story:": (
        "stories.txt",
        f"{TEXT}<|endoftext|>Once",
        "row 2 has no line 'Story:'",
    ),
    "nothing told": ("stories.txt", "Summary: x\nStory:\n", "row 1 has an empty story"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_row_and_field(case, tmp_path):
    name, text, message = BAD[case]
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_stories(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        read_stories(tmp_path / "none.json")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_stories(path)
