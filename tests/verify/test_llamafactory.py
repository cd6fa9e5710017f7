"""LLaMA-Factory's YAML as a subject: through its entry point, or one sentence without it.

LLaMA-Factory itself is not installed beside us; what stands in for it calls TRL as its entry point
does. What the real one answered: docs/verify-outcomes.md.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import DPOConfig

from squeeze.errors import InputError
from squeeze.verify.loading import load_subject
from squeeze.verify.runner import failures, verify
from squeeze.verify.tiny import tiny_rows
from tests.verify.faulty import Healthy

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def configuration(tmp_path, plain_directory):
    def write(**values):
        file = tmp_path / "theirs.yaml"
        given = {"model_name_or_path": str(plain_directory), "stage": "dpo"} | values
        file.write_text(yaml.safe_dump({k: v for k, v in given.items() if v}), encoding="utf-8")
        return str(file)

    return write


class Bare(Healthy):
    """A trainer of rows of ids and labels, its settings where LLaMA-Factory keeps them."""

    def __init__(self, values, directory, output_dir, callbacks):
        args = DPOConfig(output_dir=output_dir, use_cpu=True, bf16=False, report_to="none")
        model = AutoModelForCausalLM.from_pretrained(directory, dtype="float32")
        super().__init__(model, args=args, train_dataset=Dataset.from_list(tiny_rows()))
        self.callback_handler.callbacks = list(callbacks)
        self.loss_types = [values.get("used", "sigmoid")]
        self.finetuning_args = SimpleNamespace(
            pref_beta=0.1,
            pref_loss=values.get("pref_loss", "sigmoid"),
            dpo_label_smoothing=0.0,
            ld_alpha=None,
            simpo_gamma=0.5,
            pref_ftx=0.0,
            use_ref_model=True,
        )


@pytest.fixture
def installed(monkeypatch, plain_directory):
    def run_exp(args, callbacks):
        assert args["report_to"] == "none"
        assert not args["bf16"]
        trainer = Bare(args, args["model_name_or_path"], args["output_dir"], callbacks)
        trainer.train()

    tuner = ModuleType("llamafactory.train.tuner")
    tuner.run_exp = run_exp
    for name in ("llamafactory", "llamafactory.train"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "llamafactory.train.tuner", tuner)


def test_without_llamafactory_one_sentence_says_the_way_out(configuration):
    with pytest.raises(InputError, match=r"not installed here.*--data FILE --model DIR"):
        load_subject(configuration())


@pytest.mark.parametrize(
    ("values", "message"),
    [({"model_name_or_path": None}, "model_name_or_path is not set"), ({"stage": "sft"}, "'sft'")],
)
def test_what_is_no_configuration_of_pairs_is_refused(values, message, configuration):
    with pytest.raises(InputError, match=message):
        load_subject(configuration(**values))


def test_its_trainer_is_caught_before_the_first_step_and_passes(configuration, installed):
    subject = load_subject(configuration())
    assert subject.trainer.state.global_step == 0
    results = verify(subject)
    assert not failures(results), {r.check.id: r.what for r in failures(results)}
    assert sum(r.outcome == "passes" for r in results) >= 20


def test_loss_that_is_ignored_is_found(configuration, installed):
    results = verify(load_subject(configuration(pref_loss="hinge", used="sigmoid")))
    assert [r.check.id for r in failures(results)] == ["initial-loss"]
    results = verify(load_subject(configuration(pref_loss="hinge", used="hinge")))
    assert not failures(results)
