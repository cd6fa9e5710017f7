"""The callback in a training that two processes share.

Not marked cpu: two processes that import transformers and TRL take 15 s of CPU time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from squeeze.trajectory import Trajectory


def test_two_processes_share_the_probe_and_stop_together(
    tiny_directory: Path, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(script), str(tiny_directory), str(tmp_path)]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]

    first, second = (json.loads((tmp_path / f"rank-{r}.json").read_text()) for r in (0, 1))
    assert first["world"] == 2
    assert [line["step"] for line in first["history"]] == [0, 1, 2]
    timing = "squeeze/overhead"
    for a, b in zip(first["history"], second["history"], strict=True):
        assert {k: v for k, v in a.items() if k != timing} == {
            k: v for k, v in b.items() if k != timing
        }
    frame = Trajectory.read(tmp_path / "squeeze" / "trajectory.parquet").frame
    assert len(frame) == 3 * 5 * 2  # probes × pairs × (chosen, rejected), each scored once
