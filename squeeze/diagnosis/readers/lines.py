"""Logs of one object a line: JSON Lines (LLaMA-Factory, the paper's) and what trainers print.

A line cut off at the end of the file is left out with a note; a broken line inside is an error.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from squeeze.diagnosis.names import is_step, recognise
from squeeze.diagnosis.readers.records import Table
from squeeze.diagnosis.readers.text import parse_json
from squeeze.errors import InputError

_DICT = re.compile(r"\{['\"][^{}]*\}")
_PAIR = re.compile(r"\b([A-Za-z_][\w/]*)=(-?(?:\d[\d.]*(?:e[+-]?\d+)?|nan|inf))\b", re.I)
_WORDS = re.compile(r"\b((?:Chosen|Rejected) reward|Train loss|Iter) (-?\d[\d.]*(?:e[+-]?\d+)?)")
_BARE = re.compile(r"(?<=[:\s\[])(nan|-?inf)(?=[,}\s\]])", re.IGNORECASE)


def read_jsonl(path: Path, text: str) -> Table:
    """Read one JSON object a line; raises `InputError` naming the line that is not one."""
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    notes: list[str] = []
    numbered = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, line in numbered:
        try:
            value = parse_json(line)
        except ValueError as error:
            if number == numbered[-1][0] and records:
                notes.append(f"line {number}, the last, is cut off and was left out")
                break
            raise InputError(
                f"{path}, line {number} is not JSON ({error}); repair or delete the line"
            ) from error
        if not isinstance(value, dict):
            raise InputError(
                f"{path}, line {number} holds {type(value).__name__}, not an object of named "
                "values; a log has one JSON object a line"
            )
        records.append(value)
        lines.append(number)
    return Table(path.stem, str(path), _jsonl_format(records), records, lines, tuple(notes))


def _jsonl_format(records: list[dict[str, Any]]) -> str:
    columns = {c for record in records for c in record}
    if {"current_steps", "total_steps"} <= columns:
        return "LLaMA-Factory trainer_log.jsonl"
    if any(c.startswith("logps_eval_prob") for c in columns):
        return "log of Learning_dynamics_LLM (JSON Lines)"
    return "JSON Lines"


def read_console(path: Path, text: str) -> Table | None:
    """Read what a trainer printed: dicts, Python's or JSON's, or `name=value` of a progress bar.

    Returns None if the text has neither.
    """
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    broken = 0
    # A progress bar rewrites its line with \r, which `read_text` made an end of line.
    numbered = list(enumerate(text.split("\n"), 1))
    for number, line in numbered:
        for found in _DICT.findall(line):
            value = _printed(found)
            if value is None:
                broken += 1
            elif any(recognise(name) or is_step(name) for name in value):
                records.append(value)
                lines.append(number)
    kind = "console output of a transformers trainer"
    if not records:
        kind = "console output with name=value pairs"
        for number, line in numbered:
            pairs = dict(_PAIR.findall(line)) or {
                name.lower().replace(" ", "_"): value for name, value in _WORDS.findall(line)
            }
            if any("reward" in name or name == "loss" for name in pairs):
                records.append(pairs)
                lines.append(number)
    if not records:
        return None
    notes = (f"{broken} printed dicts could not be read and were left out",) if broken else ()
    return Table(path.stem, str(path), kind, records, lines, notes)


def _printed(text: str) -> dict[str, Any] | None:
    """A printed dict; None if it is none."""
    try:
        value = ast.literal_eval(_BARE.sub(r"'\1'", text))
    except (ValueError, SyntaxError):
        try:
            value = parse_json(text)
        except ValueError:
            return None
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else None
