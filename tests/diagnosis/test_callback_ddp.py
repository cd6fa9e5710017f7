"""The callback in a training that two processes share."""

import json
from pathlib import Path

import pytest

from squeeze.trajectory import Trajectory
from tests.diagnosis import two_processes

pytestmark = pytest.mark.cpu


def test_two_processes_share_the_probe_and_stop_together(
    tiny_directory: Path, tmp_path: Path
) -> None:
    two_processes.run(tiny_directory, tmp_path)
    first, second = (json.loads((tmp_path / f"rank-{r}.json").read_text()) for r in (0, 1))
    assert first["world"] == 2
    assert [line["step"] for line in first["history"]] == [0, 1]
    timing = "squeeze/overhead"
    for a, b in zip(first["history"], second["history"], strict=True):
        assert {k: v for k, v in a.items() if k != timing} == {
            k: v for k, v in b.items() if k != timing
        }
    frame = Trajectory.read(tmp_path / "squeeze" / "trajectory.parquet").frame
    assert len(frame) == 2 * 5 * 2  # probes × pairs × (chosen, rejected), each scored once
