"""How often `SqueezeCallback` alarms on simulated trainings that it judges again at every probe.

`python -m benchmarks.watching` prints the table of docs/callback.md. Judging again and again
gives chance more chances than the one verdict that `calibration` studies, hence `patience`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from squeeze.diagnosis import series as q
from squeeze.diagnosis.series import Array, RunSeries, Series
from squeeze.diagnosis.verdict import diagnose

FAMILIES = ("rising", "level", "squeezing")
ALARMING = ("squeezing", "collapse")


@dataclass(frozen=True)
class Watched:
    """Per-example curves [examples, probes] of chosen, rejected and argmax, in nats."""

    chosen: Array
    rejected: Array
    argmax: Array

    def until(self, probes: int) -> RunSeries:
        """What the callback has seen after so many probes."""
        steps = np.arange(probes, dtype=np.float64)
        named = ((q.CHOSEN, self.chosen), (q.REJECTED, self.rejected), (q.ARGMAX, self.argmax))
        series = tuple(
            Series(name, "train", steps, values[:, :probes].mean(axis=0), name, values[:, :probes])
            for name, values in named
        )
        return RunSeries("simulated", "simulated", "simulated", "step", series, "dpo")


def simulate(family: str, examples: int, probes: int, rng: np.random.Generator) -> Watched:
    """A training whose examples move each at their own rate, and wander besides.

    Chosen rises, stays level on average, or rises for a third of the time and then falls while
    argmax rises; rejected falls in each. Rates and wandering are of the reference run's size.
    """
    time = np.linspace(0, 1, probes)

    def rates(mean: float, spread: float) -> Array:
        drawn: Array = rng.normal(mean, spread, (examples, 1))
        return drawn

    def wandering(size: float) -> Array:
        steps = rng.normal(0, size, (examples, probes))
        steps[:, 0] = 0
        path: Array = np.cumsum(steps, axis=1)
        return path

    level = rates(-150.0, 40.0)
    if family == "squeezing":
        turned = np.maximum(time - 1 / 3, 0) * 1.5
        chosen = rates(8.0, 4.0) * np.minimum(3 * time, 1) + rates(-25.0, 12.0) * turned
        argmax = rates(5.0, 3.0) * time
    else:
        chosen = (rates(15.0, 8.0) if family == "rising" else rates(0.0, 3.0)) * time
        argmax = rates(2.0, 4.0) * time
    return Watched(
        level + chosen + wandering(1.0),
        level + 20 + rates(-60.0, 15.0) * time + wandering(2.0),
        -40 + argmax + wandering(0.4),
    )


def alarms(run: Watched) -> list[bool]:
    """Whether the verdict alarms at each probe from the second on."""
    n = run.chosen.shape[1]
    return [diagnose(run.until(k)).verdict in ALARMING for k in range(2, n + 1)]


def acted(alarming: Iterable[bool], patience: int) -> bool:
    """Whether there were `patience` alarms in a row."""
    row = 0
    for alarm in alarming:
        row = row + 1 if alarm else 0
        if row >= patience:
            return True
    return False


def table(runs: int, probes: int = 10) -> str:
    """A Markdown table: of `runs` trainings of each family, how many were warned of or stopped."""
    lines = [
        "| training | examples | alarm at one probe | at two in a row (`patience=2`) |",
        "|---|---:|---:|---:|",
    ]
    rng = np.random.default_rng(0)
    for family in FAMILIES:
        for examples in (8, 16):
            seen = [alarms(simulate(family, examples, probes, rng)) for _ in range(runs)]
            once, twice = (sum(acted(s, patience) for s in seen) for patience in (1, 2))
            lines.append(f"| {family} | {examples} | {once} of {runs} | {twice} of {runs} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40, help="trainings of each family")
    print(table(parser.parse_args().runs))
