"""A diagnosis as a page: the main report (`squeeze.report`), whatever the diagnosis was made from.

The diagnosis is put into a run directory as `diagnosis.json`, beside the trajectory where there is
one, and the report of that directory shows both.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from squeeze.diagnosis import series as q
from squeeze.diagnosis.output import SCHEMA, to_json
from squeeze.diagnosis.readers import load
from squeeze.diagnosis.record import headline
from squeeze.diagnosis.series import RunSeries
from squeeze.diagnosis.severity import VERDICTS
from squeeze.diagnosis.trend import fit
from squeeze.diagnosis.verdict import Diagnosis, diagnose
from squeeze.errors import InputError
from squeeze.files import read_as, read_json, replacing, require_ours, write_json
from squeeze.report import build_report
from squeeze.report.content import worst_of
from squeeze.report.style import ARGMAX

_RECORD = TypeAdapter(dict[str, Any])  # run.json, whose fields are checked where they are read


_PAGE = ("index.html", "report.md")
_OURS = {"schema", "headline"}  # one of which every record of ours has


class _Source(TypedDict):
    source: str


class _Judged(TypedDict):
    """What a diagnosis.json says of the runs that it judges."""

    runs: list[_Source]


_JUDGED = TypeAdapter(_Judged)
POINTS = 10_000  # logged values that a page draws, those of all its curves together
_SCORED = ("squeeze trajectory", "checkpoints")  # formats with scores of single examples
_SHOWN = {
    q.CHOSEN: ("chosen", "nats"),
    q.REJECTED: ("rejected", "nats"),
    q.ARGMAX: (ARGMAX, "nats"),
    q.CHOSEN_REWARD: ("chosen", "reward"),
    q.REJECTED_REWARD: ("rejected", "reward"),
}


def report(runs: Sequence[Path], out: Path | None = None, *, beta: float | None = None) -> Path:
    """Write the page of runs; return the path of its index.html.

    A directory that was judged already (the main job's, a diagnosis's) is only shown again; all
    else is diagnosed. Without `out` the page goes into the directory that holds the run's scores,
    a log's into reports/diagnosis. Raises `InputError` if a run cannot be read, or the page cannot
    be written.
    """
    if out is None and len(runs) == 1 and _is_judged(runs[0]):
        for name in _PAGE:
            require_ours(runs[0] / name, "--out")
        return build_report(runs[0])
    diagnoses = [diagnose(run, beta=beta) for path in runs for run in load(path)]
    sources = {d.run.source for d in diagnoses if d.run.format == "squeeze trajectory"}
    if out is None and len(sources) == 1 and len(diagnoses) == len(runs) == 1:
        out = Path(sources.pop()).parent
    return write_report(diagnoses, out or Path("reports", "diagnosis"))


def _is_judged(run: Path) -> bool:
    """Whether a run directory needs no diagnosis: it has one, or the main job judges its claims."""
    if (run / "diagnosis.json").is_file():
        return True
    about = read_json(run / "run.json") if (run / "run.json").is_file() else None
    diagnosable = isinstance(about, dict) and "verdict" in about  # the callback's record
    return (run / "trajectory.parquet").is_file() and not diagnosable


def write_report(
    diagnoses: Sequence[Diagnosis], directory: Path, ledger: Path | None = None
) -> Path:
    """Write the report of runs that were read from files; return the path of its index.html.

    The files of one trajectory are copied into `directory` first. Raises `InputError` if the report
    cannot be written.
    """
    formats = {d.run.format for d in diagnoses}
    sources = {d.run.source for d in diagnoses}
    if formats == {"squeeze trajectory"} and len(sources) == 1:
        source = Path(diagnoses[0].run.source).parent
        _require_scores_of(source, directory)
        for name in ("trajectory.parquet", "run.json", "samples.json", "verdicts.json"):
            if source.resolve() != directory.resolve() and (source / name).is_file():
                with replacing(directory / name) as temporary:
                    shutil.copyfile(source / name, temporary)
    return finish_run(diagnoses, directory, ledger)


def _require_scores_of(source: Path, directory: Path) -> None:
    """Raise `InputError` if scores lie in the directory that were not copied from `source`."""
    if source.resolve() == directory.resolve() or not (directory / "trajectory.parquet").exists():
        return
    judged = directory / "diagnosis.json"
    known = read_as(judged, _JUDGED, "delete it")["runs"] if judged.exists() else []
    if not any(Path(run["source"]).parent.resolve() == source.resolve() for run in known):
        raise InputError(
            f"{directory} holds the record of another run, which would be overwritten; give "
            "--report a directory of its own"
        )


def _require_page_of_ours(directory: Path) -> None:
    """Raise `InputError` if a file that the page is written to is somebody else's."""
    for name in _PAGE:
        require_ours(directory / name, "--report")
    for name in ("run.json", "diagnosis.json"):
        path = directory / name
        if not path.exists():
            continue
        known = read_as(path, _RECORD, "put it back, or delete it")
        if _OURS.isdisjoint(known):
            raise InputError(
                f"{path} is no file of squeeze and would be overwritten; give --report another "
                "directory"
            )


def finish_run(diagnoses: Sequence[Diagnosis], directory: Path, ledger: Path | None = None) -> Path:
    """Put diagnoses into a run directory and build its report; return the path of index.html.

    A single run's verdict becomes the report's headline, and so does the worst of several that were
    read from logs; the arms of a trajectory keep the headline that they have. Raises `InputError`
    if the directory holds another run, or cannot be written.
    """
    scored = len({d.run.source for d in diagnoses if d.run.format in _SCORED}) == 1 and all(
        d.run.format in _SCORED for d in diagnoses
    )
    if not scored and (directory / "trajectory.parquet").exists():
        raise InputError(
            f"{directory} holds the record of another run, so its report would mix the two; give "
            "--report a directory of its own"
        )
    _require_page_of_ours(directory)
    drawn = [] if scored else worst_of([VERDICTS.index(d.verdict) for d in diagnoses])
    runs = [
        to_json([d], ledger) | {"curves": _curves(d.run, len(drawn)) if i in drawn else []}
        for i, d in enumerate(diagnoses)
    ]
    write_json(directory / "diagnosis.json", {"schema": SCHEMA, "runs": runs})
    about = directory / "run.json"
    worst = max(diagnoses, key=lambda d: VERDICTS.index(d.verdict))
    if not scored:
        known = {"schema": 1, "name": worst.run.name, "command": _command(diagnoses)} | headline(
            worst
        )
        if len(diagnoses) > 1:
            known |= {"name": f"{len(diagnoses)} runs"}
            known |= {
                "headline": f"The worst of {len(diagnoses)} runs, {worst.run.name}: {worst.verdict}"
            }
        write_json(about, known)
    elif len(diagnoses) == 1:
        known = read_as(about, _RECORD, "put it back as it was") if about.exists() else {}
        write_json(about, known | headline(worst))
    return build_report(directory)


def _command(diagnoses: Sequence[Diagnosis]) -> list[str]:
    sources = dict.fromkeys(d.run.source for d in diagnoses)
    return ["squeeze", "diagnose", *sources, "--report", "NEW_DIRECTORY"]


def _curves(run: RunSeries, n_runs: int) -> list[dict[str, Any]]:
    """What a page of `n_runs` draws of a log: its trends, and logged values evenly over time."""
    found = []
    own = [series for series in run.series if series.quantity in _SHOWN]
    for series in own:
        kind, unit = _SHOWN[series.quantity]
        trend, n = fit(series), len(series)
        most = min(n, max(2, POINTS // (n_runs * len(own))))
        at = np.linspace(0, n - 1, most).round().astype(int)
        found.append(
            {
                **{"kind": kind, "unit": unit, "split": series.split},
                **{"steps": series.steps[at].tolist(), "values": series.values[at].tolist()},
                **{"trend_steps": trend.steps.tolist(), "trend": trend.level.tolist()},
            }
        )
    return found
