"""Closing lines of a run, on the committed reference run."""

import json
from pathlib import Path

import pytest

from squeeze.claims.finetuning import judge_run
from squeeze.report.closing import closing_lines
from squeeze.trajectory import Trajectory

pytestmark = pytest.mark.cpu

RUN = Path(__file__).parents[2] / "reports" / "reference" / "smollm2-cpu"
CONFIG = json.loads((RUN / "run.json").read_text(encoding="utf-8"))["config"]


def test_a_run_ends_in_what_was_trained_what_each_arm_did_and_ex_1():
    trajectory = Trajectory.read(RUN / "trajectory.parquet")
    first, *arms, extended = closing_lines(
        CONFIG, trajectory, judge_run(trajectory, "pretrained", (0,))
    )
    assert first.startswith("Trained smollm2-135m on 16 pairs of enthusiastic_en, 3 arms, seed 0")
    assert [line.partition(":")[0] for line in arms] == ["dpo", "sft-dpo", "extend-dpo"]
    assert "chosen −14.6" in arms[1]
    assert arms[1].endswith("chosen ends 23.1 below its best")
    assert "chosen falls 11.6 nats less over DPO" in extended
    assert "inconclusive: one seed" in extended


def test_a_run_of_one_arm_says_nothing_of_ex_1():
    trajectory = Trajectory.read(RUN / "trajectory.parquet").where(arm="dpo")
    lines = closing_lines(CONFIG, trajectory, judge_run(trajectory, "pretrained", (0,)))
    assert len(lines) == 2
    assert "one arm" in lines[0]
