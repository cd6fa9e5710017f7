"""How often the verdicts on sampled answers are right: simulated logs of group-relative training.

`python -m benchmarks.rollouts_calibration` prints the tables of docs/diagnosis-calibration.md.
"""

from __future__ import annotations

import argparse
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.diagnosis_calibration import share, unit_noise
from squeeze.diagnosis import series as q
from squeeze.diagnosis.rollouts import OF_ROLLOUTS, ROLLOUTS, judge_rollouts
from squeeze.diagnosis.series import Array, RunSeries, Series
from squeeze.diagnosis.severity import Name
from squeeze.files import read_json

LENGTHS = (12, 40, 200)
NOISES = (0.03, 0.1, 0.2)  # standard deviation of a line, as a share of the quantity's start


@dataclass(frozen=True)
class Family:
    """A training's log without noise: each quantity's start and end, and the right verdict."""

    name: str
    ends: Mapping[str, tuple[float, float]]
    right: Name


_LEVEL = {
    q.ENTROPY: (0.9, 0.8),
    q.REWARD: (0.4, 0.6),
    q.LENGTH: (200.0, 200.0),
    q.CUT: (0.05, 0.05),
}
FAMILIES = tuple(
    Family(name, {**_LEVEL, **changed}, right)
    for name, changed, right in (
        ("learns, entropy kept", {}, "healthy"),
        ("learns, entropy halves", {q.ENTROPY: (0.9, 0.45)}, "healthy"),
        ("learns, answers grow", {q.LENGTH: (200.0, 400.0)}, "healthy"),
        ("learns to be short", {q.LENGTH: (200.0, 60.0), q.REWARD: (0.4, 0.8)}, "healthy"),
        ("learns to use all the length", {q.CUT: (0.05, 0.7), q.REWARD: (0.4, 0.8)}, "healthy"),
        ("learns nothing", {q.ENTROPY: (0.9, 0.9), q.REWARD: (0.4, 0.4)}, "healthy"),
        ("entropy collapses", {q.ENTROPY: (0.9, 0.09)}, "entropy collapse"),
        ("entropy falls to a sixth", {q.ENTROPY: (0.9, 0.15)}, "entropy collapse"),
        ("answers shrink", {q.LENGTH: (200.0, 50.0), q.REWARD: (0.4, 0.4)}, "length collapse"),
        ("answers never end", {q.CUT: (0.05, 0.8), q.REWARD: (0.4, 0.2)}, "length collapse"),
        ("answers repeat", {q.REPETITION: (0.02, 0.3)}, "repetition collapse"),
    )
)


@dataclass(frozen=True)
class Case:
    """One simulated log and its verdict."""

    family: Family
    n: int
    noise: float
    verdict: Name

    @property
    def bad(self) -> bool:
        """Whether a collapse is right."""
        return self.family.right in OF_ROLLOUTS


def simulate(family: Family, n: int, size: float, seed: int) -> RunSeries:
    """A log of `n` lines: each quantity goes to its end, fastest at first, with noise.

    Noise has heavy tails and a memory, as in `diagnosis_calibration`; shares stay in [0, 1].
    """
    rng = np.random.default_rng([zlib.crc32(f"{family.name}/{size}".encode()), n, seed])
    t = np.linspace(0, 1, n)
    path = (1 - np.exp(-3 * t)) / (1 - np.exp(-3))
    rows = unit_noise(rng, (len(family.ends), n))
    steps, series = np.arange(1.0, n + 1), []
    for (quantity, (start, end)), shocks in zip(family.ends.items(), rows, strict=True):
        curve: Array = start + (end - start) * path
        values = np.maximum(curve * (1 + size * shocks), 0.0)
        if quantity in (q.CUT, q.REWARD, q.REPETITION):
            values = np.minimum(values, 1.0)
        series.append(Series(quantity, ROLLOUTS, steps, values, quantity, None, True))
    return RunSeries(family.name, "simulated", "simulated", "step", tuple(series), method="grpo")


def run(repeats: int, lengths: Sequence[int] = LENGTHS) -> list[Case]:
    """Judge `repeats` logs of every family, length and noise."""
    return [
        Case(family, n, size, judge_rollouts(simulate(family, n, size, seed)).verdict)
        for family in FAMILIES
        for n in lengths
        for size in NOISES
        for seed in range(repeats)
    ]


def table(cases: Sequence[Case]) -> Iterator[str]:
    """Misses and false alarms by length and noise, and verdicts by family, as Markdown."""
    yield "| lines | noise of a line | collapses found | false alarms |"
    yield "|---:|---:|---:|---:|"
    for n in LENGTHS:
        for size in NOISES:
            cell = [c for c in cases if (c.n, c.noise) == (n, size)]
            if not cell:
                continue
            bad = share([c.verdict == c.family.right for c in cell if c.bad])
            good = share([c.verdict in OF_ROLLOUTS for c in cell if not c.bad])
            yield f"| {n} | {size:.0%} | {bad} | {good} |"
    yield ""
    yield "| family | right | verdicts |"
    yield "|---|---:|---|"
    for family in FAMILIES:
        own = [c.verdict for c in cases if c.family is family]
        counts = ", ".join(f"{name} {n / len(own):.0%}" for name, n in Counter(own).most_common())
        yield f"| {family.name} | {np.mean([v == family.right for v in own]):.0%} | {counts} |"


def own_trainings(records: Path) -> Iterator[str]:
    """Verdicts on NS-1's recorded trainings of the tiny model, ten steps each, as Markdown."""
    found: dict[str, list[tuple[float, Name]]] = {}
    for path in sorted(records.glob("group-relative-*.json")):
        result = read_json(path)["result"]
        for training, entropy in result["entropy"].items():
            logged = {q.ENTROPY: entropy, q.REWARD: result["reward"][training]}
            steps = np.arange(1.0, len(entropy) + 1)
            series = tuple(
                Series(name, ROLLOUTS, steps, np.array(values), name, None, True)
                for name, values in logged.items()
            )
            log = RunSeries(training, str(path), "recorded", "step", series, method="grpo")
            share = float(np.mean(entropy[-2:])) / entropy[0]
            found.setdefault(training, []).append((share, judge_rollouts(log).verdict))
    yield "| training | logs | entropy at the end, of its start | verdicts |"
    yield "|---|---:|---:|---|"
    for training, rows in found.items():
        shares = [share for share, _ in rows]
        counts = Counter(verdict for _, verdict in rows).most_common()
        listed = ", ".join(f"{name} {n}" for name, n in counts)
        yield f"| {training} | {len(rows)} | {min(shares):.0%} to {max(shares):.0%} | {listed} |"


def main() -> None:
    """Print the tables on simulated logs, or with --records on recorded trainings."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--records", type=Path, help="reports/reference/observations/tiny")
    given = parser.parse_args()
    rows = own_trainings(given.records) if given.records else table(run(given.repeats))
    print("\n".join(rows))


if __name__ == "__main__":
    main()
