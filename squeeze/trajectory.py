"""The trajectory station: scores of the probe set over training time, one row a response and probe.

Stored as one Parquet file; what is true of the whole run stands in `run.json` beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_bool_dtype, is_numeric_dtype

from squeeze.errors import InputError
from squeeze.files import read_bytes, replacing
from squeeze.parquet import require_bounded

if TYPE_CHECKING:
    from squeeze.scoring import ResponseScores  # and with it torch, which reading a file needs not

KEYS = ["arm", "phase", "step", "epoch", "probe", "example", "split", "kind"]
METRICS = ["logp", "argmax_logp", "entropy", "peakiness", "n_tokens"]
COLUMNS = KEYS + METRICS
TEXTS = ("arm", "phase", "example", "split", "kind")
COUNTS = ("step", "probe", "n_tokens")


@dataclass(frozen=True)
class ProbePoint:
    """When a probe was taken.

    `phase` is "base" (before any training), "sft" or "dpo"; `step` and `epoch` count within the
    phase; `probe` numbers the probes of an arm from 0.
    """

    arm: str
    phase: str
    step: int
    epoch: float
    probe: int


def _damage(frame: pd.DataFrame) -> str:
    """The first cell or row that no run writes, in words; "" where there is none."""
    for column in COLUMNS:
        cells = frame[column]
        if column in TEXTS and infer_dtype(cells, skipna=False) == "string":  # or none, if missing
            bad = cells.isna().to_numpy(bool)
        elif column in TEXTS:
            text = cells.map(lambda cell: isinstance(cell, str))
            bad = ~text.to_numpy(bool)
        elif len(cells) and (not is_numeric_dtype(cells) or is_bool_dtype(cells)):
            return f"column {column} holds {cells.dtype} and no numbers"
        else:
            values = cells.to_numpy(float)
            bad = ~np.isfinite(values)
            if column in COUNTS:
                bad |= (values < 0) | (values != np.floor(values))
        if bad.any():
            row = int(bad.argmax())
            return f"row {row + 1}, column {column}: {ascii(cells.iloc[row])[:60]}"
    again = frame.duplicated(["arm", "probe", "example", "split", "kind"])
    return f"row {int(again.argmax()) + 1} scores a response a second time" if again.any() else ""


@dataclass(frozen=True)
class Trajectory:
    """Scores over time. Columns of `frame`: `KEYS` then `METRICS`.

    `logp` is the response's log-prob sum in nats, `argmax_logp` the sum over its positions of the
    largest next-token log-prob, `entropy` and `peakiness` (‖π‖²) are means over its positions.
    `read(path)` raises `InputError` for a file that is none.

    >>> from pathlib import Path
    >>> from squeeze import Trajectory
    >>> Trajectory.empty().write(Path("trajectory.parquet"))
    >>> Trajectory.read(Path("trajectory.parquet")).arms()
    []
    """

    frame: pd.DataFrame

    @classmethod
    def empty(cls) -> Trajectory:
        """A trajectory without rows."""
        return cls(pd.DataFrame(columns=COLUMNS))

    @classmethod
    def read(cls, path: Path) -> Trajectory:
        """Read a Parquet file written by `write`; raise `InputError` if it is not one."""
        try:
            require_bounded(path)
            # Opened once: pandas opens a path twice, and a run may put another file there between.
            frame = pd.read_parquet(BytesIO(read_bytes(path)))
        except (
            OSError,
            ValueError,
            TypeError,
            LookupError,
            MemoryError,
            NotImplementedError,
        ) as error:
            raise InputError(f"{path} is not a readable trajectory ({error})") from error
        missing = [column for column in COLUMNS if column not in frame.columns]
        if missing:
            raise InputError(
                f"{path} lacks the column(s) {', '.join(missing)}; is it a trajectory of squeeze?"
            )
        frame = frame[COLUMNS].reset_index(drop=True)
        if wrong := _damage(frame):
            raise InputError(
                f"{path}, {wrong}; the file was damaged or edited: put it back as it was, or "
                "delete it and resume the run, which takes the missing probes again"
            )
        return cls(frame)

    def write(self, path: Path) -> None:
        """Write to Parquet, atomically."""
        frame = self.frame.astype(dict.fromkeys(METRICS[:-1], "float32") | {"n_tokens": "int32"})
        with replacing(path) as temporary:
            frame.to_parquet(temporary, index=False, compression="zstd")

    def append(self, point: ProbePoint, scores: Iterable[ResponseScores]) -> Trajectory:
        """A new trajectory with one probe's scores added, in the precision that files have."""
        rows = pd.DataFrame([vars(point) | vars(score) for score in scores])[COLUMNS]
        rows = rows.astype(dict.fromkeys(METRICS[:-1], "float32") | {"n_tokens": "int32"})
        frame = rows if self.frame.empty else pd.concat([self.frame, rows], ignore_index=True)
        return Trajectory(frame)

    def where(self, **values: object) -> Trajectory:
        """The rows in which every named column has the given value (or one of a list of values)."""
        frame = self.frame
        for column, value in values.items():
            wanted = value if isinstance(value, list) else [value]
            frame = frame[frame[column].isin(wanted)]
        return Trajectory(frame)

    def arms(self) -> list[str]:
        """Arm names in order of appearance."""
        return self._distinct("arm")

    def kinds(self) -> list[str]:
        """Response kinds in order of appearance."""
        return self._distinct("kind")

    def splits(self) -> list[str]:
        """Splits in order of appearance."""
        return self._distinct("split")

    def _distinct(self, column: str) -> list[str]:
        found: list[str] = self.frame[column].unique().tolist()
        return found

    def by_example(self, arm: str, kind: str, split: str, metric: str = "logp") -> pd.DataFrame:
        """One metric as a table: a row an example, a column a probe (in order of time).

        The tables of a trajectory are cut once, since judging and drawing ask for the same ones.
        """
        key = (arm, kind, split, metric)
        if key not in self._tables:
            columns = self.frame[["example", "probe", metric]]
            rows = columns.iloc[self._rows.get(key[:3], [])]
            table = rows.pivot(index="example", columns="probe", values=metric)
            self._tables[key] = table.sort_index(axis=1)
        return self._tables[key].copy()

    @cached_property
    def _rows(self) -> dict[Any, Any]:
        """Where the rows of an arm, kind and split stand."""
        return dict(self.frame.groupby(["arm", "kind", "split"], sort=False).indices)

    @cached_property
    def _tables(self) -> dict[tuple[str, str, str, str], pd.DataFrame]:
        return {}

    def points(self, arm: str) -> list[ProbePoint]:
        """The probes of an arm in order of time."""
        return list(self._points.get(arm, []))

    @cached_property
    def _points(self) -> dict[str, list[ProbePoint]]:
        names = ["arm", "phase", "step", "epoch", "probe"]
        points: dict[str, list[ProbePoint]] = {}
        for p in self.frame[names].drop_duplicates().sort_values("probe").itertuples():
            point = ProbePoint(str(p.arm), str(p.phase), int(p.step), float(p.epoch), int(p.probe))  # type: ignore[arg-type]
            points.setdefault(point.arm, []).append(point)
        return points
