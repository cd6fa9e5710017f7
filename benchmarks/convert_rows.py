"""Rows a CPU second and peak memory of `squeeze convert` on a generated file of short rows.

    python benchmarks/convert_rows.py --rows 10000000

Run by hand, not by pytest: ten million rows take minutes. Results: docs/data-streaming.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def generate(path: Path, rows: int) -> None:
    """Write `rows` distinct preference rows of about 90 characters, as JSON lines."""
    with path.open("w", encoding="utf-8") as stream:
        for i in range(rows):
            stream.write(
                f'{{"prompt": "Question {i}?", "chosen": "A good answer, number {i}.", '
                f'"rejected": "A bad one."}}\n'
            )


def measure(directory: Path, rows: int, to: str) -> dict[str, float | int | str]:
    """Convert the generated file in a process of its own."""
    source, target = directory / "in.jsonl", directory / "out.jsonl"
    generate(source, rows)
    command = [sys.executable, "-m", "squeeze", "convert", str(source), str(target), "--to", to]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = usage.ru_utime + usage.ru_stime
    return {
        "rows": rows,
        "to": to,
        "megabytes_in": round(source.stat().st_size / 1e6),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(busy, 1),
        "rows_per_cpu_second": round(rows / busy),
        "peak_rss_mb": round(usage.ru_maxrss / 1024),
    }


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--to", default="alpaca")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(measure(Path(directory), options.rows, options.to)))


if __name__ == "__main__":
    main()
