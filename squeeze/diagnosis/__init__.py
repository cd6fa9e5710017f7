"""Tells from a log, a run directory or a pair of checkpoints whether a preference run squeezes.

`load(path)` reads runs, `diagnose(run)` judges one; see docs/diagnosis.md.
"""

from squeeze.diagnosis.readers import load
from squeeze.diagnosis.series import RunSeries, Series
from squeeze.diagnosis.verdict import VERDICTS, Diagnosis, diagnose, worst

__all__ = ["VERDICTS", "Diagnosis", "RunSeries", "Series", "diagnose", "load", "worst"]
