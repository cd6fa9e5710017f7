"""Generated answers of checkpoints: how much they repeat, whether they end, how long they are.

They stand in samples.json beside the scores, so that whoever reads the directory judges them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from squeeze.diagnosis import series as q
from squeeze.diagnosis.series import Series
from squeeze.files import read_json

_COLUMNS = {
    q.REPETITION: "repeated 4-grams of generated answers",
    q.END_OF_TEXT: "generated answers that end",
    q.LENGTH: "tokens of generated answers",
}


def of_directory(directory: Path, arm: str, split: str, probes: Mapping[int, int]) -> list[Series]:
    """What an arm's generated answers say at each probe (number → position); none without them."""
    path = directory / "samples.json"
    entries = read_json(path).get("generations", []) if path.is_file() else []
    own = [e for e in entries if e.get("arm") == arm and q.REPETITION in e]
    rows = list(dict.fromkeys((e["example"], e["decoding"]) for e in own))
    at = {(e["example"], e["decoding"], e["epoch"]): e for e in own}
    if not rows or any((*row, probe) not in at for row in rows for probe in probes):
        return []
    found = []
    for quantity, column in _COLUMNS.items():
        values = np.array([[at[(*row, probe)][quantity] for probe in probes] for row in rows])
        steps = np.array(list(probes.values()), dtype=np.float64)
        found.append(Series(quantity, split, steps, values.mean(axis=0), column, values))
    return found
