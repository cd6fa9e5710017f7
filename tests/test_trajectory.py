"""The trajectory's file."""

from threading import Event, Thread

import pytest

from squeeze.scoring import ResponseScores
from squeeze.trajectory import ProbePoint, Trajectory

pytestmark = pytest.mark.cpu


def trajectory(probes):
    found = Trajectory.empty()
    for probe in range(probes):
        scores = [
            ResponseScores(f"e{i}", "train", "chosen", -probe - i / 7, -1.0, 1.0, 0.5, 10)
            for i in range(30)
        ]
        found = found.append(ProbePoint("dpo", "dpo", probe, float(probe), probe), scores)
    return found


def test_whoever_reads_while_a_run_writes_sees_a_whole_file(tmp_path):
    """The file is replaced whole; a reader that opened it twice would read parts of two."""
    path, stop = tmp_path / "trajectory.parquet", Event()
    versions = [trajectory(probes) for probes in (1, 12)]
    versions[0].write(path)

    def write():
        while not stop.is_set():
            for version in versions:
                version.write(path)

    writer = Thread(target=write)
    writer.start()
    try:
        sizes = {len(Trajectory.read(path).frame) for _ in range(300)}
    finally:
        stop.set()
        writer.join()
    assert sizes <= {30, 360}
