"""Kernels of one's own: checked before they are timed, refused with the input they fail on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from squeeze.bench import cases
from squeeze.bench.cases import HIDDEN, LOGITS, TRAINING, Case
from squeeze.bench.own import check_kernel, load_kernel
from squeeze.cli import app
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu

CPU = torch.device("cpu")
EXAMPLE = Path(__file__).parents[2] / "examples" / "kernel_of_my_own.py"
SOURCE = """
import torch
def right(targets, hidden, head, bias=None, softcap=None):
    z = hidden.float() @ head.float().T
    z = z if bias is None else z + bias
    z = softcap * torch.tanh(z / softcap) if softcap else z
    return torch.log_softmax(z, -1).gather(1, targets[:, None])[:, 0]
def overflows(targets, logits):
    return logits.float().gather(1, targets[:, None])[:, 0] - logits.float().exp().sum(-1).log()
def forgets_the_cap(targets, logits, softcap=None):
    return torch.log_softmax(logits.float(), -1).gather(1, targets[:, None])[:, 0]
def wrong_entropy(targets, logits):
    logps = torch.log_softmax(logits.float(), -1)
    entropy = -(logps.exp() * logps).sum(-1)  # NaN at −inf
    return {"target_logp": logps.gather(1, targets[:, None])[:, 0], "entropy": entropy}
def raises(targets, logits):
    raise ValueError("only for multiples of 128")
def takes_nothing(x):
    return x
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a right kernel and wrong ones."""
    path = tmp_path / "mine.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def test_the_example_passes_every_check() -> None:
    checks = check_kernel(load_kernel(f"{EXAMPLE}:blockwise"), CPU)
    assert len(checks) >= 9
    assert [check for check in checks if check.failure] == []


def test_a_right_kernel_from_hidden_states_passes_with_its_options(file: Path) -> None:
    kernel = load_kernel(f"{file}:right")
    checks = {check.name: check.failure for check in check_kernel(kernel, CPU)}
    assert set(checks.values()) == {None}
    assert {"soft-cap", "bias", "logits of ±1e4", "bfloat16 inputs"} <= set(checks)
    assert kernel.takes(Case(HIDDEN, "smollm2", 3))
    assert kernel.takes(Case(TRAINING, "smollm2", 3))
    assert not kernel.takes(Case(LOGITS, "smollm2", 3))


@pytest.mark.parametrize(
    ("name", "check", "words"),
    [
        ("overflows", "logits of ±1e4", "target_logp"),
        ("forgets_the_cap", "soft-cap", "target_logp"),
        ("wrong_entropy", "half of the logits −inf", "entropy"),
        ("raises", "T = 1", "only for multiples of 128"),
    ],
)
def test_a_wrong_kernel_fails_where_it_is_wrong(
    name: str, check: str, words: str, file: Path
) -> None:
    found = {one.name: one.failure for one in check_kernel(load_kernel(f"{file}:{name}"), CPU)}
    failure = found[check]
    assert failure is not None
    assert words in failure


def test_a_wrong_kernel_is_not_timed(file: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "kernels", "--kernel", f"{file}:overflows"])
    assert isinstance(result.exception, InputError)
    assert "is wrong on" in str(result.exception)
    assert "logits of ±1e4" in str(result.exception)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("mine.py", "FILE.py:FUNCTION"),
        ("nowhere.py:f", "there is no file"),
        ("{file}:absent", "has no function absent"),
        ("{file}:takes_nothing", r"takes \(x\); it must take"),
    ],
)
def test_a_place_that_names_no_kernel_is_refused(place: str, words: str, file: Path) -> None:
    with pytest.raises(InputError, match=words):
        load_kernel(place.format(file=file))


def test_a_file_goes_to_the_table_in_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cases.SHAPES, "smollm2", (4, 40))
    monkeypatch.setattr(cases, "_ROTATED_BYTES", 1)
    path, again = tmp_path / "k.json", tmp_path / "again.json"
    command = ["bench", "kernels", "--quick", "--device", "cpu"]
    own = ["--kernel", f"{EXAMPLE}:blockwise"]
    first = CliRunner().invoke(app, [*command, *own, "--json", str(path)])
    assert first.exit_code == 0, first.output
    report = json.loads(path.read_text())
    assert {case["task"] for case in report["cases"]} == {LOGITS}  # what the kernel takes
    for case in report["cases"]:
        (record,) = [one for one in case["records"] if one["gives"] == "your kernel"]
        assert record["name"] == "kernel_of_my_own:blockwise"
        assert case["best_peer"] != record["name"]
    options = ["--json", str(again), "--against", str(path), "--roofline", str(tmp_path / "r.png")]
    second = CliRunner().invoke(app, [*command, *own, *options])
    assert second.exit_code == 0, second.output
    assert "against" in second.output
    assert (tmp_path / "r.png").exists()
