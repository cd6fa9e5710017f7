"""Generated answers of checkpoints: how much they repeat, whether they end, how long they are.

They stand in samples.json beside the scores, so that whoever reads the directory judges them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from pydantic import FiniteFloat, TypeAdapter
from typing_extensions import TypedDict

from squeeze.diagnosis import series as q
from squeeze.diagnosis.series import Series
from squeeze.files import read_as

_COLUMNS = {
    q.REPETITION: "repeated 4-grams of generated answers",
    q.END_OF_TEXT: "generated answers that end",
    q.LENGTH: "tokens of generated answers",
}


_AGAIN = "delete it; generated answers are then not judged"


class _Generation(TypedDict):
    arm: str
    example: NotRequired[str]
    decoding: NotRequired[str]
    epoch: NotRequired[float | None]
    repetition: NotRequired[FiniteFloat]
    end_of_text: NotRequired[FiniteFloat]
    length: NotRequired[FiniteFloat]


class _Samples(TypedDict, total=False):
    generations: list[_Generation]


_SAMPLES = TypeAdapter(_Samples)


def of_directory(directory: Path, arm: str, split: str, probes: Mapping[int, int]) -> list[Series]:
    """What an arm's generated answers say at each probe (number → position); none without them."""
    path = directory / "samples.json"
    found = read_as(path, _SAMPLES, _AGAIN) if path.is_file() else _Samples()
    own: list[Any] = [e for e in found.get("generations", []) if e["arm"] == arm and _judged(e)]
    rows = list(dict.fromkeys((e["example"], e["decoding"]) for e in own))
    at = {(e["example"], e["decoding"], e["epoch"]): e for e in own}
    if not rows or any((*row, probe) not in at for row in rows for probe in probes):
        return []
    series = []
    for quantity, column in _COLUMNS.items():
        values = np.array([[at[(*row, probe)][quantity] for probe in probes] for row in rows])
        steps = np.array(list(probes.values()), dtype=np.float64)
        series.append(Series(quantity, split, steps, values.mean(axis=0), column, values))
    return series


def _judged(entry: _Generation) -> bool:
    """Whether an answer is one of checkpoints' and not of the main job."""
    return {"example", "decoding", "epoch", *_COLUMNS} <= entry.keys()
