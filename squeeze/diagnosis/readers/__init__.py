"""From a file or directory to runs: the first registered reader that recognises it reads it.

To add a log family, add a module here with an `@reader(...)`, and its test; nothing else names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from squeeze.diagnosis.readers.directory import read_source
from squeeze.diagnosis.readers.records import Table
from squeeze.diagnosis.readers.registry import Source
from squeeze.diagnosis.readers.tables import build, split_by_run
from squeeze.diagnosis.series import RunSeries
from squeeze.errors import InputError

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


MOST_RUNS = 1000  # of one file


def load(path: Path) -> list[RunSeries]:
    """Read every run in a log file or run directory.

    Raises `InputError` if there is no log, or it cannot be what it seems.

    >>> from pathlib import Path
    >>> from squeeze import load
    >>> size = Path("log.csv").write_text("step,rewards/chosen\\n0,0.0\\n10,-0.5\\n")
    >>> (run,) = load(Path("log.csv"))
    >>> run.format, run.series[0].values.tolist()
    ('...CSV...', [0.0, -0.5])
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give a log file or a run directory")
    found = read_source(Source(path))
    if not found:
        raise InputError(
            f"{path} is no log that is known here; give trainer_state.json, JSON Lines, CSV, the "
            "trainer's console output, or a run directory of squeeze"
        )
    parts: list[Table | RunSeries] = []
    for item in found:
        parts += split_by_run(item) if isinstance(item, Table) else [item]
    if len(parts) > MOST_RUNS:
        raise InputError(
            f"{path} holds {len(parts):,} runs, and at most {MOST_RUNS:,} are read at once; export "
            "those that you ask about"
        )
    return [build(part) if isinstance(part, Table) else part for part in parts]
