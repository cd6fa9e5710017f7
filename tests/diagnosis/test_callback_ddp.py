"""The callback in a training that two processes share, by DDP and by DeepSpeed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from squeeze.diagnosis.callback import _require_rows
from squeeze.errors import InputError
from squeeze.trajectory import Trajectory
from tests.diagnosis import two_processes

pytestmark = pytest.mark.cpu


@pytest.fixture(scope="module")
def ddp(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training under DDP."""
    out = tmp_path_factory.mktemp("ddp")
    two_processes.run(tiny_directory, out)
    return out


def read(out: Path) -> list[dict]:
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_share_the_probe_and_stop_together(ddp: Path) -> None:
    first, second = read(ddp)
    assert first["world"] == 2
    assert [line["step"] for line in first["history"]] == [0, 1]
    timing = "squeeze/overhead"
    for a, b in zip(first["history"], second["history"], strict=True):
        assert {k: v for k, v in a.items() if k != timing} == {
            k: v for k, v in b.items() if k != timing
        }
    frame = Trajectory.read(ddp / "squeeze" / "trajectory.parquet").frame
    assert len(frame) == 2 * 5 * 2  # probes × pairs × (chosen, rejected), each scored once


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_under_deepspeed_the_callback_sees_what_it_sees_under_ddp(
    stage: int, ddp: Path, tiny_directory: Path, tmp_path: Path
) -> None:
    pytest.importorskip("deepspeed", reason="needs DeepSpeed, which no extra installs")
    auto = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    options = {"zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True}
    two_processes.run(tiny_directory, tmp_path, deepspeed=options | dict.fromkeys(auto, "auto"))
    expected, found = read(ddp)[0]["history"], read(tmp_path)[0]["history"]
    assert [line["step"] for line in found] == [0, 1]
    for a, b in zip(expected, found, strict=True):
        for name in ("chosen", "rejected", "argmax", "entropy"):
            assert b[f"squeeze/{name}"] == pytest.approx(a[f"squeeze/{name}"], rel=1e-5)
    about = [json.loads((out / "squeeze" / "run.json").read_text()) for out in (ddp, tmp_path)]
    assert about[0]["model"]["parameters"] == about[1]["model"]["parameters"]


@pytest.mark.parametrize(("name", "words"), [("cp", "context"), ("sp", "sequence")])
def test_processes_that_share_each_row_are_refused_with_the_reason(name: str, words: str) -> None:
    plan = SimpleNamespace(**{f"{name}_enabled": True})
    trainer = SimpleNamespace(accelerator=SimpleNamespace(parallelism_config=plan))
    with pytest.raises(InputError, match=f"{words} parallelism cuts every row.*squeeze diagnose"):
        _require_rows(trainer)
