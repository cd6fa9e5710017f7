"""JSON Lines: one object a line, as LLaMA-Factory, ms-swift and many loggers of one's own write.

A line cut off at the end of the file is left out with a note; a broken line inside is an error.
"""

from __future__ import annotations

import re
from typing import Any

from squeeze.diagnosis.readers.records import Table, flat, spread
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.readers.text import parse_json
from squeeze.errors import InputError

_WHOLE = re.compile(r'\s*\{("[^{}]*)?\}\s*$')


def _recognise(source: Source) -> bool:
    """Whether a single line is a JSON object by itself, or half of the lines each begin one."""
    if source.is_directory or source.suffix in (".csv", ".tsv", ".md", ".ipynb"):
        return False
    rows = [row for _, row in source.uncommented]
    if rows[0].lstrip()[0] == "[":
        return False
    if len(rows) == 1:
        return bool(_WHOLE.match(rows[0])) and "[" not in rows[0]
    begun = sum(row.lstrip().startswith('{"') for row in rows)
    return begun >= len(rows) / 2


@reader("JSON Lines", recognise=_recognise, order=40)
def read(source: Source) -> list[Table]:
    """Read one JSON object a line; raises `InputError` naming the line that is not one."""
    path = source.path
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    notes = source.notes
    for number, line in source.uncommented:
        try:
            value = parse_json(line)
        except ValueError as error:
            if number == source.uncommented[-1][0] and records:
                notes += (f"line {number}, the last, is cut off and was left out",)
                break
            raise InputError(
                f"{path}, line {number} is not JSON ({error}); repair or delete the line"
            ) from error
        if not isinstance(value, dict):
            raise InputError(
                f"{path}, line {number} holds {type(value).__name__}, not an object of named "
                "values; a log has one JSON object a line"
            )
        nested = any(isinstance(v, dict) for v in value.values())
        records.append(flat(value) if nested else value)
        numbers.append(number)
    columns = {c for record in records for c in record}
    records = spread(records, columns)
    if {"current_steps", "total_steps"} <= columns:
        return [_llamafactory(source, records, numbers, notes)]
    return [Table(path.stem, str(path), "JSON Lines", records, numbers, notes)]


def _llamafactory(
    source: Source, records: list[dict[str, Any]], numbers: list[int], notes: tuple[str, ...]
) -> Table:
    """LLaMA-Factory's own log lacks the rewards that the trainer's state beside it has."""
    path = source.path
    name = "LLaMA-Factory trainer_log.jsonl"
    table = Table(path.stem, str(path), name, records, numbers, notes)
    if path.name != "trainer_log.jsonl":
        return table
    beside = path.parent / "trainer_state.json"
    has = f"{beside} beside it has them" if beside.is_file() else "its trainer_state.json has them"
    return table.noted(
        f"trainer_log.jsonl holds loss and accuracy but no rewards or log-probs; {has}"
    )
