"""Stories with instructions from a file: TinyStories-Instruct in each of its layouts.

- JSON (an array) or JSON Lines: rows with `prompt` and `story`; TinyStories' own rows with `story`,
  `instruction` (`words`, `features`) and `summary`; rows with a `text` in the layout below;
- plain text: records in lines such as "Words: …", "Features: …", "Summary: …" and then "Story:",
  separated by `<|endoftext|>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from squeeze.errors import InputError
from squeeze.files import parse_json
from squeeze.study.stories.generator import Story, instruction

SEPARATOR = "<|endoftext|>"
_STORY = "Story:"
_CHUNK = 1 << 20  # characters read at once


def read_stories(path: Path, limit: int | None = None) -> list[Story]:
    """The file's stories in its order, at most `limit`.

    Raises `InputError` naming the file and the row for anything that is not a story with its
    instruction, or when there is none.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"--data {path} is no file; write the stories into one")
    try:
        with path.open(encoding="utf-8") as stream:
            rows = {".json": _array, ".jsonl": _lines}.get(path.suffix.lower(), _records)(stream)
            stories = [_story(path, number, row) for number, row in islice(rows, limit)]
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"--data {path} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--data {path} is not UTF-8 text ({error.reason})") from error
    except ValueError as error:
        raise InputError(
            f"--data {path} is not JSON ({error}); give an array of rows, one row a line in a "
            f".jsonl file, or a .txt file with {SEPARATOR} between the stories"
        ) from error
    if not stories:
        raise InputError(f"--data {path} is empty; give a file with stories")
    return stories


def _array(stream: Any) -> Iterator[tuple[int, Any]]:
    value = parse_json(stream.read())
    rows = value if isinstance(value, list) else [value]
    yield from enumerate(rows, 1)


def _lines(stream: Any) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                row = parse_json(line)
            except ValueError as error:
                raise ValueError(f"row {number}: {error}") from None
            yield number, row


def _records(stream: Any) -> Iterator[tuple[int, Any]]:
    """Plain text, read a piece at a time: the real file has gigabytes."""
    number, rest = 0, ""
    while True:
        piece = stream.read(_CHUNK)
        *whole, rest = (rest + piece).split(SEPARATOR)
        for record in [*whole, rest] if not piece else whole:
            if record.strip():
                number += 1
                yield number, {"text": record}
        if not piece:
            return


def _story(path: Path, number: int, row: Any) -> Story:
    def refuse(why: str) -> InputError:
        return InputError(
            f"--data {path}, row {number} {why}; a row has 'prompt' and 'story', or TinyStories' "
            "'story', 'instruction' and 'summary', or a 'text' with a line 'Story:'"
        )

    if not isinstance(row, dict):
        raise refuse(f"is a {type(row).__name__}, not an object")
    if "text" in row:
        text = _text(row, "text", refuse)
        head, found, story = text.partition(_STORY)
        if not found:
            raise refuse("has no line 'Story:' in its text")
        prompt = "\n".join(line.strip() for line in head.splitlines() if line.strip())
        prompt = f"{prompt}\n{_STORY}\n" if prompt else f"{_STORY}\n"
    elif "prompt" in row:
        prompt, story = _text(row, "prompt", refuse), _text(row, "story", refuse)
        prompt = prompt if prompt[-1:].isspace() else prompt + "\n"
    else:
        story, details = _text(row, "story", refuse), row.get("instruction")
        if not isinstance(details, dict):
            raise refuse("has neither 'prompt' nor 'instruction'")
        words, features = (list(map(str, details.get(k) or [])) for k in ("words", "features"))
        prompt = instruction(words, features, str(row.get("summary") or "").strip())
    if not story.strip():
        raise refuse("has an empty story")
    return Story(prompt, story.strip())


def _text(row: dict[str, Any], field: str, refuse: Any) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise refuse(f"has no text in {field!r}")
    return value
