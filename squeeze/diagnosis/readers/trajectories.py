"""Our run directories: a `RunSeries` an arm of trajectory.parquet, with per-example values."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from squeeze.diagnosis import rollouts
from squeeze.diagnosis import series as q
from squeeze.diagnosis.generated import of_directory
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.series import DIVERGES, Finding, RunSeries, Series
from squeeze.errors import InputError
from squeeze.files import read_as
from squeeze.trajectory import Trajectory

_QUANTITIES = (
    (q.CHOSEN, "chosen", "logp"),
    (q.ARGMAX, "chosen", "argmax_logp"),
    (q.REJECTED, "rejected", "logp"),
    (q.ENTROPY, "chosen", "entropy"),
)


@reader("squeeze trajectory", recognise=lambda s: s.suffix == ".parquet", order=10)
def read(source: Source) -> list[RunSeries]:
    """Read trajectory.parquet."""
    return read_trajectory(source.path)


def read_trajectory(path: Path) -> list[RunSeries]:
    """Read each arm's last phase, from the probe before it on, as one run.

    Raises `InputError` if the file is no trajectory, holds no arm, or an arm has no chosen scores.
    """
    trajectory = Trajectory.read(path)
    if trajectory.frame.empty:
        raise InputError(f"{path} holds no scores yet; wait for the first probe")
    about = path.parent / "run.json"
    known = read_as(about, _ABOUT, _AGAIN) if about.is_file() else _About()
    findings, method = _diverged(known), known.get("method", "")
    return [arm_series(trajectory, arm, path, findings, method) for arm in trajectory.arms()]


_AGAIN = "put it back as it was, or delete it: the scores are judged without it"


class _Diverged(TypedDict):
    step: int
    why: str


class _About(TypedDict, total=False):
    """What the callback notes in a run.json: what trained, where it samples its answers."""

    diverged: _Diverged | None
    method: str


_ABOUT = TypeAdapter(_About)


def _diverged(about: _About) -> tuple[Finding, ...]:
    """That a run's weights stopped being numbers, where its record says so."""
    told = about.get("diverged")
    return () if told is None else (divergence(told["step"], told["why"]),)


def divergence(step: int, why: str) -> Finding:
    """The finding that a probe at that optimizer step had no finite log-probs."""
    return Finding("diverged", f"diverged before step {step}: {why}", cause=DIVERGES)


def arm_series(
    trajectory: Trajectory,
    arm: str,
    path: Path,
    findings: tuple[Finding, ...] = (),
    method: str = "",
) -> RunSeries:
    """The series of an arm's last phase, from the probe before it on; `path` is its source.

    `method` says what trained, where that samples its answers: what was logged of them is added.

    Raises `InputError` if the arm has no chosen scores.
    """
    points = trajectory.points(arm)
    phases = [p.phase for p in points if p.phase != "base"]
    phase = phases[-1] if phases else "base"
    last = [i for i, p in enumerate(points) if p.phase == phase]
    # The model that the phase starts from was probed at the end of the phase before.
    first = max(0, last[0] - 1)
    probes = [p.probe for p in points[first:]]
    rows = trajectory.where(arm=arm, probe=probes)
    clock = [p.step if p.phase == phase else 0 for p in points[first:]]
    axis, steps = "step", dict(zip(probes, clock, strict=True))
    if any(b <= a for a, b in pairwise(clock)):  # checkpoints whose steps are not known
        axis, steps = "probe", dict(zip(probes, probes, strict=True))
    found: list[Series] = []
    notes: list[str] = []
    for split in rows.splits():
        kinds = [k for k in rows.kinds() if k not in ("chosen", "rejected")]
        others = [(q.OTHER + kind, kind, "logp") for kind in kinds]
        for quantity, kind, metric in (*_QUANTITIES, *others):
            series = _series(rows, arm, kind, split, metric, quantity, steps, notes)
            if series is not None:
                found.append(series)
    if found:
        found += of_directory(path.parent, arm, found[0].split, steps)
    if method:
        found += rollouts.of_directory(path.parent)
    if not any(s.quantity == q.CHOSEN for s in found):
        raise InputError(f"{path}: arm {arm!r} has no scores of the chosen answers")
    return RunSeries(
        name=arm,
        source=str(path),
        format="squeeze trajectory",
        axis=axis,
        series=tuple(found),
        phase=phase if phase in ("sft", "dpo") else "",
        notes=tuple(dict.fromkeys(notes)),
        method=method,
        findings=findings,
    )


def _series(
    rows: Trajectory,
    arm: str,
    kind: str,
    split: str,
    metric: str,
    quantity: str,
    steps: Mapping[int, int],
    notes: list[str],
) -> Series | None:
    table = rows.by_example(arm, kind, split, metric)
    if table.empty:
        return None
    complete = table.replace([np.inf, -np.inf], np.nan).dropna()
    if len(complete) < len(table):
        notes.append(
            f"{len(table) - len(complete)} of {len(table)} {split} examples lack a score of "
            f"{kind} at some probe and were left out"
        )
    if complete.empty:
        return None
    examples = complete.to_numpy(dtype=np.float64)
    at = np.array([steps[int(probe)] for probe in complete.columns], dtype=np.float64)
    return Series(quantity, split, at, examples.mean(axis=0), f"{kind}.{metric}", examples)
