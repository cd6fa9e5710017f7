"""Every Python example of the documentation runs, and prints what the page says it prints."""

from __future__ import annotations

import re
import sys
import types
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import DPOConfig

from squeeze.diagnosis import VERDICTS, load
from tests.docs.reading import Block, examples
from tests.docs.standins import PAIRS, _jsonl

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]

AUTHORS = Path(__file__).parents[3] / "shared" / "data" / "authors"
# Run by test_commands.py: `squeeze verify my_script:...` and `pytest --squeeze-run`.
ELSEWHERE = ("my_script.py", "squeeze_verdict")
PRINTED = re.compile(r"^# (.*)$", re.MULTILINE)


def which(word: str) -> Block:
    """The one example with this word."""
    (found,) = [block for block in examples() if word in block.text]
    return found


def names_of(block: Block, **names: Any) -> dict[str, Any]:
    """What an example defines."""
    exec(compile(block.text, block.page, "exec"), names)
    return names


def test_every_example_is_run_by_one_of_these_tests():
    run = (
        "trainer.train()",
        "DPOTrainer(...",
        "token_statistics",
        "npy",
        "import squeeze",
        '"""A tiny',
    )
    run += ("from tiny import", "from squeeze import SqueezeCallback\n", *ELSEWHERE)
    assert [b for b in examples() if not any(word in b.text for word in run)] == []


def test_callback_watches_a_training(tiny_directory, tmp_path, monkeypatch):
    _jsonl(tmp_path / "pairs.jsonl", PAIRS[:5])
    (tmp_path / "model").symlink_to(tiny_directory)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trl.DPOConfig", partial(DPOConfig, use_cpu=True))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    names = names_of(which("trainer.train()"))
    assert names["callback"].diagnosis.verdict in VERDICTS
    (run,) = load(tmp_path / "run" / "squeeze")
    assert set(run.splits()) == {"train", "held_out"}


@pytest.mark.parametrize("block", [b for b in examples() if "DPOTrainer(..." in b.text], ids=str)
def test_callback_takes_the_arguments_of_the_short_examples(block):
    from squeeze import SqueezeCallback

    def trainer(*arguments: Any, callbacks: list[Any]) -> Any:
        return callbacks

    names = names_of(block, DPOTrainer=trainer, SqueezeCallback=SqueezeCallback)
    assert isinstance(names["trainer"][0], SqueezeCallback)


def test_kernels_give_the_statistics_of_the_page():
    hidden, head = torch.randn(5, 8), torch.randn(11, 8)
    targets = torch.tensor([0, 3, 10, 7, 7])
    names = names_of(which("token_statistics"), hidden=hidden, head=head, targets=targets)
    expected = torch.log_softmax(hidden @ head.T, -1)[torch.arange(5), targets]
    torch.testing.assert_close(names["stats"].target_logp, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(names["logps"], expected, atol=1e-5, rtol=1e-5)


def test_published_logs_show_the_argmax_of_another_text(tmp_path, monkeypatch, capsys):
    array = AUTHORS / "prob_pythia410m_dpo.logp_npy_all_chosen.npy"
    if not array.exists():
        pytest.skip("the authors' logs are not beside this checkout")
    run = tmp_path / "src" / "exp_results" / "prob_pythia410m_dpo"
    run.mkdir(parents=True)
    (run / "prob_train_metrics.json").symlink_to(AUTHORS / "prob_pythia410m_dpo.jsonl")
    (run / "logp_npy_all_chosen.npy").symlink_to(array)
    monkeypatch.chdir(tmp_path)
    block = which("npy")
    names_of(block)
    said = [float(line) for line in capsys.readouterr().out.split()]
    assert said == [
        pytest.approx(float(x), abs=5e-4) for x in re.findall(r"# (0\.\d+)", block.text)
    ]


@pytest.mark.parametrize("block", [b for b in examples() if "from tiny import" in b.text], ids=str)
def test_reproductions_with_trl_alone_print_what_the_page_says(
    block, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    tiny = types.ModuleType("tiny")
    exec(compile(which('"""A tiny random').text, "tiny.py", "exec"), tiny.__dict__)
    monkeypatch.setitem(sys.modules, "tiny", tiny)
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names_of(block)
    said = capsys.readouterr().out.splitlines()
    wanted = PRINTED.findall(block.text)
    assert len(wanted) > 0
    for want, line in zip(wanted, said[-len(wanted) :], strict=True):
        assert line.endswith(want.removeprefix("[..., ")), line
