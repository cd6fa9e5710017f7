"""Seconds and peak memory of reports and diagnoses at the largest sizes that are supported.

    python -m benchmarks.load

Inputs are generated. Run by hand, not by pytest: minutes. Results: docs/when-it-fails.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from squeeze.data.probe_set import KINDS
from squeeze.run_directory import RunRecord
from squeeze.trajectory import COLUMNS, Trajectory

ARMS = ("dpo", "sft-dpo", "extend-dpo")


def trajectory(examples: int, probes: int, arms: tuple[str, ...] = ARMS) -> Trajectory:
    """Scores of every response kind at every probe; a quarter of the examples are held out.

    Chosen rises and falls, everything else falls, and every example wanders besides.
    """
    kinds, rng = list(KINDS), np.random.default_rng(0)
    shape = (len(arms), probes, examples, len(kinds))
    arm, probe, example, kind = (axis.ravel() for axis in np.indices(shape))
    time = probe / max(probes - 1, 1)
    size = rng.uniform(0.5, 1.5, examples)[example]
    falls = np.where(kind == kinds.index("chosen"), time * (0.6 - time) * 60, -30 * time)
    values = {
        "arm": pd.Categorical.from_codes(arm, arms).astype(object),
        "phase": np.where(probe == 0, "base", "dpo"),
        "step": probe * 50,
        "epoch": probe / 8,
        "probe": probe,
        "example": np.array([f"prompt-{i:06d}" for i in range(examples)], object)[example],
        "split": np.where(example % 4 == 3, "held_out", "train"),
        "kind": np.array(kinds, object)[kind],
        "logp": size * (falls - 90) + rng.normal(0, 1, arm.size),
        "argmax_logp": size * (8 * time - 30) + rng.normal(0, 1, arm.size),
        "entropy": 2.1 - time,
        "peakiness": 0.4 + 0.3 * time,
        "n_tokens": 20 + example % 40,
    }
    return Trajectory(pd.DataFrame(values, columns=COLUMNS))


def write_run(directory: Path, examples: int, probes: int, arms: tuple[str, ...] = ARMS) -> Path:
    """A finished run's directory; return it."""
    directory.mkdir()
    trajectory(examples, probes, arms).write(directory / "trajectory.parquet")
    described = [{"name": arm, "title": arm, "phases": []} for arm in arms]
    record = RunRecord("load", {"beta": 0.1}, "squeeze replicate", "finished", arms=described)
    record.write(directory / "run.json")
    return directory


def write_log(path: Path, lines: int, seed: int = 0) -> Path:
    """A log of TRL's DPO as JSON lines; return its path."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, lines)
    levels = {"chosen": time * (0.4 - time) * 60 - 90, "rejected": -80 - 30 * time}
    levels = {name: level + rng.normal(0, 3, lines) for name, level in levels.items()}
    with path.open("w", encoding="utf-8") as file:
        for i in range(lines):
            row = {"step": i, "loss": 0.7 - 0.4 * time[i], "rewards/accuracies": 0.5 + time[i] / 3}
            for name, level in levels.items():
                row |= {f"logps/{name}": level[i], f"rewards/{name}": (level[i] - level[0]) / 10}
            file.write(json.dumps(row) + "\n")
    return path


def apart(make: Callable[..., object], *arguments: object) -> None:
    """Make an input in another process: one that is forked begins with this one's peak memory."""
    process = multiprocessing.get_context("fork").Process(target=make, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def measure(what: str, *words: object, page: Path | None = None) -> str:
    """A row of the table: what a command of squeeze took, in a process of its own."""
    command = [sys.executable, "-m", "squeeze", *map(str, words)]
    if page is not None and words[0] != "report":
        command += ["--report", str(page)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{what}: exit code {process.returncode}")
    seconds = used.ru_utime + used.ru_stime
    size = f"{(page / 'index.html').stat().st_size / 1e6:.1f} MB" if page else "–"
    return f"| {what} | {seconds:.0f} s | {used.ru_maxrss / 1024:.0f} MB | {size} |"


def rows(place: Path, scale: float) -> Iterator[str]:
    """The table's rows; `scale` makes all inputs smaller."""
    examples, probes = round(500 * scale), round(160 * scale)
    for arms in (ARMS[:1], ARMS):
        run, size = place / f"run-{len(arms)}", f"{examples} × {len(KINDS)} × {probes}"
        apart(write_run, run, examples, probes, arms)
        what = f"`report`: {size} examples, kinds and probes, arms: {len(arms)}"
        yield measure(what, "report", run, page=run)
    log, lines, page = place / "long.jsonl", round(1_000_000 * scale), place / "page"
    apart(write_log, log, lines)
    yield measure(f"`diagnose --report`: {lines:,} lines", "diagnose", log, page=page)
    logs = [place / f"log-{i:03d}.jsonl" for i in range(round(1000 * scale))]
    apart(lambda: [write_log(path, 200, i) for i, path in enumerate(logs)])
    yield measure(f"`diagnose`: {len(logs)} logs", "diagnose", *logs)
    yield measure(f"`compare --report`: {len(logs)} logs", "compare", *logs, page=page)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of every size; 1 is the docs'")
    scale = parser.parse_args().scale
    with tempfile.TemporaryDirectory() as place:
        print("| command | CPU time | peak memory | page |\n|---|---:|---:|---:|")
        for row in rows(Path(place), scale):
            print(row, flush=True)


if __name__ == "__main__":
    main()
