"""When a callback acts on a verdict: not on one that flips, nor while chosen recovers.

Pure bookkeeping of verdicts and means; nothing is scored here.
"""

from __future__ import annotations


class Alarm:
    """Asks for action when a verdict is alarming at `patience` probes in a row.

    A single better verdict starts the row anew, and so does chosen (its mean log-prob, nats) that
    stands higher than where the row began: what recovers is not stopped.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self._row: list[float] = []

    def add(self, alarming: bool, chosen: float) -> bool:
        """Note a probe; whether to act now."""
        if not alarming:
            self._row = []
        elif self._row and chosen > self._row[0]:
            self._row = [chosen]
        else:
            self._row.append(chosen)
        return len(self._row) >= self.patience
