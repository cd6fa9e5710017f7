"""Tells from a log, a run directory or a pair of checkpoints whether a preference run squeezes.

`load(path)` reads runs, `diagnose(run)` judges one; see docs/diagnosis.md.
"""

from squeeze.diagnosis.readers import load
from squeeze.diagnosis.series import RunSeries, Series
from squeeze.diagnosis.severity import VERDICTS, worst
from squeeze.diagnosis.verdict import Diagnosis, diagnose

__all__ = ["VERDICTS", "Diagnosis", "RunSeries", "Series", "diagnose", "load", "worst"]
