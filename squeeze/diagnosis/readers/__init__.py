"""From a file or directory to runs: finds out which log family it is and calls its reader."""

from __future__ import annotations

import re
from pathlib import Path

from squeeze.diagnosis.readers.tables import build, split_by_run
from squeeze.diagnosis.readers.records import Table
from squeeze.diagnosis.readers.text import parse_json, read_text
from squeeze.diagnosis.series import RunSeries
from squeeze.errors import InputError

_LOG_SUFFIXES = (".jsonl", ".csv", ".tsv", ".json", ".log", ".txt", ".out")


def load(path: Path) -> list[RunSeries]:
    """Read every run in a log file or run directory.

    Raises `InputError` if there is no log, or it cannot be what it seems.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give a log file or a run directory")
    if path.is_dir():
        from squeeze.diagnosis.readers import sheets

        scalars = [p for p in sorted(path.glob("*.csv")) if sheets.is_tensorboard(p)]
        if scalars:
            return [build(sheets.read_tensorboard(scalars))]
        path = _log_in(path)
    if path.suffix == ".parquet":
        from squeeze.diagnosis.readers.trajectories import read_trajectory

        return read_trajectory(path)
    runs = [build(part) for table in _tables(path) for part in split_by_run(table)]
    return [_with_hint(run, path) for run in runs]


def _tables(path: Path) -> list[Table]:
    from squeeze.diagnosis.readers import lines, sheets, structured

    if path.name.startswith("events.out.tfevents"):
        raise InputError(
            f"{path} is a TensorBoard event file, which is not read; export the scalars as CSV (a "
            "directory of them is one run), or give the trainer_state.json of the same run"
        )
    text = read_text(path)
    if Path(path.name.removesuffix(".gz")).suffix in (".csv", ".tsv"):
        return sheets.read_csv(path, text)
    if _is_lines(text):
        return [lines.read_jsonl(path, text)]
    if text.lstrip()[0] in "{[":
        try:
            document = parse_json(text)
        except ValueError as error:
            if _BEGINS_JSON.match(text):
                raise InputError(
                    f"{path} is cut off or not JSON ({error}); copy it again from the machine that "
                    "trained, or give the console output"
                ) from error
        else:
            return structured.read_document(path, document)
    card = sheets.markdown_table(text)
    if card is not None:
        return sheets.read_csv(path, card)
    console = lines.read_console(path, text)
    if console is not None:
        return [console]
    if any(mark in text.lstrip().splitlines()[0] for mark in sheets.DELIMITERS):
        return sheets.read_csv(path, text)
    raise InputError(
        f"{path} is no log that is known here; give trainer_state.json, JSON Lines, CSV, the "
        "trainer's console output, or a run directory of squeeze"
    )


# What else begins with a bracket: a printed dict, or a logger's "[2024-05-01 12:00:00] ".
_BEGINS_JSON = re.compile(r'\s*(\{\s*["}]|\[\s*(\{\s*["}]|[\[\]]))')


def _is_lines(text: str) -> bool:
    """Whether the first non-empty line is a JSON object by itself, or lines each begin one."""
    if text.lstrip()[0] == "[":
        return False
    rows = [row for row in text.split("\n") if row.strip()]
    whole = re.compile(r'\s*\{("[^{}]*)?\}\s*$')
    if len(rows) == 1:
        return bool(whole.match(rows[0])) and "[" not in rows[0]
    begun = sum(row.lstrip().startswith('{"') for row in rows)
    return begun > len(rows) / 2 or bool(whole.match(rows[0]))


def _log_in(directory: Path) -> Path:
    """The log of a run directory: ours, the trainer's own, its newest checkpoint's, a lone file.

    Without a checkpoint, what `SqueezeCallback` left in squeeze/.
    """
    for name in ("trajectory.parquet", "trainer_state.json"):
        if (directory / name).is_file():
            return directory / name
    checkpoints = sorted(
        directory.glob("checkpoint-*/trainer_state.json"), key=lambda p: _step(p.parent.name)
    )
    if checkpoints:
        return checkpoints[-1]
    for name in ("trainer_log.jsonl", "squeeze/trajectory.parquet"):
        if (directory / name).is_file():
            return directory / name
    logs = [
        p
        for p in sorted(directory.iterdir())
        if p.suffix in _LOG_SUFFIXES and "config" not in p.name
    ]
    if len(logs) == 1:
        return logs[0]
    listed = f"; give one of {', '.join(p.name for p in logs[:6])}" if logs else ""
    raise InputError(
        f"{directory} has no trajectory.parquet, trainer_state.json, checkpoint-*/ or "
        f"trainer_log.jsonl{listed}"
    )


def _step(name: str) -> int:
    found = re.search(r"(\d+)$", name)
    return int(found[1]) if found else -1


def _with_hint(run: RunSeries, path: Path) -> RunSeries:
    """LLaMA-Factory's own log lacks the rewards that the trainer's state beside it has."""
    from dataclasses import replace

    beside = path.parent / "trainer_state.json"
    if path.name != "trainer_log.jsonl":
        return run
    where = (
        f"{beside} beside it has them" if beside.is_file() else "its trainer_state.json has them"
    )
    note = f"trainer_log.jsonl holds loss and accuracy but no rewards or log-probs; {where}"
    return replace(run, notes=(*run.notes, note))
