"""From a file or directory to runs: finds out which log family it is and calls its reader."""

from __future__ import annotations

import re
from pathlib import Path

from squeeze.diagnosis.readers.tables import Table, build, split_by_run
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
            f"{path} is a TensorBoard event file, which is not read; export the scalars as CSV, or "
            "give the trainer_state.json of the same run"
        )
    text = _text(path)
    if path.suffix in (".csv", ".tsv"):
        return sheets.read_csv(path, text)
    start = text.lstrip()[:1]
    if start in ("{", "["):
        if _is_lines(text):
            return [lines.read_jsonl(path, text)]
        if not re.match(r"\{'", text.lstrip()):
            return structured.read_json(path, text)
    console = lines.read_console(path, text)
    if console is not None:
        return [console]
    if "," in text.splitlines()[0] or "\t" in text.splitlines()[0]:
        return sheets.read_csv(path, text)
    raise InputError(
        f"{path} is no log that is known here; give trainer_state.json, JSON Lines, CSV, the "
        "trainer's console output, or a run directory of squeeze"
    )


def _is_lines(text: str) -> bool:
    """Whether the first non-empty line is a JSON object by itself, or lines each begin one."""
    rows = [row for row in text.splitlines() if row.strip()]
    whole = re.compile(r'\{"[^{}]*\}\s*$')
    if len(rows) == 1:
        return bool(whole.match(rows[0])) and "[" not in rows[0]
    begun = sum(row.lstrip().startswith('{"') for row in rows)
    return begun > len(rows) / 2 or bool(whole.match(rows[0]))


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}); is it a log, and not weights or a "
            "compressed file?"
        ) from error
    if not text.strip():
        raise InputError(f"{path} is empty")
    return text


def _log_in(directory: Path) -> Path:
    """The log of a run directory: ours, the trainer's own, its newest checkpoint's, a lone file."""
    for name in ("trajectory.parquet", "trainer_state.json"):
        if (directory / name).is_file():
            return directory / name
    checkpoints = sorted(
        directory.glob("checkpoint-*/trainer_state.json"), key=lambda p: _step(p.parent.name)
    )
    if checkpoints:
        return checkpoints[-1]
    if (directory / "trainer_log.jsonl").is_file():
        return directory / "trainer_log.jsonl"
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
