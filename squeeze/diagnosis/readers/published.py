"""Logs of the paper's code (Learning_dynamics_LLM), read by `squeeze.published_logs`.

Where the argmax was taken along another text it is never used, and the finding says why.
"""

from __future__ import annotations

import numpy as np

from squeeze.diagnosis import series as q
from squeeze.diagnosis.readers.registry import Source, reader
from squeeze.diagnosis.series import Finding, RunSeries, Series
from squeeze.published_logs import ARGMAX, CHOSEN, read_published

_QUANTITIES = {"chosen": q.CHOSEN, "rejected": q.REJECTED}


def _recognise(source: Source) -> bool:
    named = f'"{CHOSEN}"'.encode()
    return not source.is_directory and named in source.head.partition(b"\n")[0]


@reader("log of Learning_dynamics_LLM (JSON Lines)", recognise=_recognise, order=12)
def read(source: Source) -> list[RunSeries]:
    """Read one published log, with the values per prompt where their array lies beside it."""
    run = read_published(source.path)
    named = {field: _QUANTITIES.get(kind, q.OTHER + kind) for kind, field in run.kinds().items()}
    if run.has(ARGMAX):
        named[ARGMAX] = q.ARGMAX
    steps = np.arange(len(run.means), dtype=np.float64)
    series = []
    for field, quantity in named.items():
        examples = run.values(field).T if run.n_prompts else None
        if np.isfinite(run.mean(field)).all():
            series.append(Series(quantity, "train", steps, run.mean(field), field, examples))
    findings: tuple[Finding, ...] = ()
    if run.has(ARGMAX) and run.argmax_problem:
        what = f"the argmax is not chosen's and is not used: {run.argmax_problem}"
        findings = (Finding("argmax", what, cause="", split="train"),)
    return [
        RunSeries(
            name=run.name,
            source=str(source.path),
            format="log of Learning_dynamics_LLM (JSON Lines)",
            axis="evaluation",
            series=tuple(series),
            notes=run.notes,
            findings=findings,
        )
    ]
