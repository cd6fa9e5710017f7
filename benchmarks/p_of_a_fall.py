"""How often a level log's fall has p ≤ 0.0025 where its noise has a memory: a table of the docs.

`python -m benchmarks.p_of_a_fall` prints the table of docs/diagnosis.md.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.diagnosis_calibration import LEVEL
from squeeze.diagnosis.movements import FALL_P
from squeeze.diagnosis.series import Series
from squeeze.diagnosis.trend import fit

LENGTHS, RUNS = (12, 40), {0.0: 1250, 0.3: 1250, 0.6: 450}  # evaluations; runs by memory
NOISE = 0.01 * -LEVEL


def p_of_a_level_log(evaluations: int, memory: float, run: int) -> float:
    """p of the fall of t noise (5 degrees, variance 1) that remembers as AR(1), from the level."""
    rng = np.random.default_rng([evaluations, int(memory * 10), run])
    shocks = rng.standard_t(5, evaluations) * np.sqrt(3 / 5)
    noise = shocks.copy()
    for i in range(1, evaluations):
        noise[i] = memory * noise[i - 1] + np.sqrt(1 - memory**2) * shocks[i]
    noise[0] = 0  # the first evaluation is the reference
    steps = np.arange(evaluations, dtype=np.float64)
    return fit(Series("chosen_logp", "eval", steps, LEVEL + NOISE * noise, "c")).fall().p


def main() -> None:
    """Print a row a length, a column a memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, help="a cell, in place of the table's numbers")
    given = parser.parse_args().runs
    print("| evaluations |", " | ".join(f"memory {memory:g}" for memory in RUNS), "|")
    for evaluations in LENGTHS:
        shares = [
            np.mean([p_of_a_level_log(evaluations, m, n) <= FALL_P for n in range(given or runs)])
            for m, runs in RUNS.items()
        ]
        print(f"| {evaluations} |", " | ".join(f"{share:.1%}" for share in shares), "|", flush=True)


if __name__ == "__main__":
    main()
