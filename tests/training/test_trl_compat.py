"""Private names of TRL and transformers: all are there, and stand in one file."""

import re
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerControl

import squeeze
from squeeze.errors import InputError
from squeeze.training import trl_compat
from squeeze.training.trl_compat import TOUCHED, Touch, calling_trainer, log_beside

pytestmark = pytest.mark.cpu

SOURCES = Path(squeeze.__file__).parent


@pytest.mark.parametrize("touch", [t for t in TOUCHED if not t.optional], ids=lambda t: t.name)
def test_private_name_is_there(touch):
    assert touch.found(), f"{touch.module} has no {touch.name} ({touch.why}; had on {touch.tried})"


def test_a_name_that_disappeared_is_noticed():
    assert not Touch("trl", "DPOTrainer._renamed_loss", "", "").found()
    assert not Touch("transformers", "NoTrainer.log", "", "").found()


def test_private_names_stand_in_one_file():
    private = re.compile(
        r"trl\.trainer|transformers\.trainer\b|_use_triton|_compute_loss|\.log_probs|\b_name_or_path\b|\._attn_impl"
        r"|currentframe|_getframe|create_model_card|callback_handler|is_deepspeed_enabled"
    )
    elsewhere = [
        f"{path.relative_to(SOURCES)}: {line.strip()}"
        for path in SOURCES.rglob("*.py")
        if path.name not in ("trl_compat.py", "tree_attention.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if private.search(line)
    ]
    assert elsewhere == []


def test_a_checkpoint_is_read_to_a_numbered_cpu(tmp_path):
    """As transformers 5.17 does where several processes go on; torch alone refuses."""
    trl_compat.restore_on_cpus()
    torch.save({"step": torch.arange(3)}, tmp_path / "optimizer.pt")
    found = torch.load(tmp_path / "optimizer.pt", map_location="cpu:1", weights_only=True)
    assert found["step"].tolist() == [0, 1, 2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU TRL scores answers alone itself")
def test_trl_without_the_choice_of_answers_alone_is_left_as_it_is(monkeypatch):
    from trl.trainer import utils

    monkeypatch.delattr(utils, "_use_triton", raising=False)
    with trl_compat.answers_alone():
        assert not hasattr(utils, "_use_triton")


def test_the_calling_trainer_is_found_from_inside_its_methods_alone():
    class Calls(Trainer):
        def __init__(self):
            self.state = None

        def ask(self):
            return calling_trainer()

    trainer = Calls()
    assert trainer.ask() is trainer
    with pytest.raises(InputError, match=r"inside a transformers or TRL Trainer.*add_callback"):
        calling_trainer()


def test_logging_beside_a_trainer_leaves_its_own_wish_to_log(monkeypatch):
    control, logged = TrainerControl(should_log=True), []

    def log(self, metrics):
        logged.append(metrics)
        control.should_log = False

    monkeypatch.setattr(Trainer, "log", log)
    log_beside(object(), {"squeeze/chosen": -1.0}, control)
    assert logged == [{"squeeze/chosen": -1.0}]
    assert control.should_log
