"""The ways in: the command, the pytest suite, instances, the callback's cheap checks, reports."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig
from typer.testing import CliRunner

from squeeze import SqueezeCallback
from squeeze.cli import app
from squeeze.errors import InputError
from squeeze.files import require_output
from squeeze.verify import report
from squeeze.verify.cheap import cheap_checks
from squeeze.verify.loading import load_subject, subject_from
from squeeze.verify.runner import failures, read_xfails, verify
from squeeze.verify.subject import InstanceSubject
from squeeze.verify.tiny import tiny_rows
from squeeze.verify.trl_trainers import trl_subject
from tests.verify.faulty import ColumnsSwapped, Healthy, LossOnPrompts, LossTypeIgnored

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]

FACTORY = """
from trl import DPOConfig, DPOTrainer

def make_trainer(model, data, **options):
    return DPOTrainer(model=model, args=DPOConfig(**options), train_dataset=data)

def makes_nothing(model, data, **options):
    return None

number = 3
"""

LOSS = """
from torch.nn.functional import logsigmoid
from squeeze.verify.functions import LossSubject

def dpo(chosen, rejected, ref_chosen, ref_rejected, *, beta):
    return -logsigmoid(0.1 * (chosen - rejected - ref_chosen + ref_rejected))

subject = LossSubject(dpo)
"""


@pytest.fixture
def my_module(tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text(FACTORY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_module", raising=False)


def trainer_of(cls, directory, tmp_path, **settings):
    from transformers import AutoModelForCausalLM

    options = {
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }
    return cls(
        model=AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32),
        args=DPOConfig(**options | settings),
        train_dataset=Dataset.from_list(tiny_rows()),
    )


def run(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


# --- the command ----------------------------------------------------------------------------------


def test_command_on_data_exits_0_and_1_and_writes_both_reports(tmp_path, plain_directory):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    rows = tiny_rows()
    good.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    rows[1]["rejected"] = rows[1]["chosen"]
    bad.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert run("--data", good, "--model", plain_directory).exit_code == 0
    out = tmp_path / "report.json"
    done = run("--data", bad, "--model", plain_directory, "--out", out)
    assert done.exit_code == 1
    assert "row 2" in done.output
    written = json.loads(out.read_text())
    assert written["schema"] == report.SCHEMA
    assert [c["id"] for c in written["checks"] if c["outcome"] == "fails"] == ["distinct"]
    xfails = tmp_path / "xfails.txt"
    xfails.write_text("# known\ndistinct  # two answers are equal on purpose\n", encoding="utf-8")
    markdown = tmp_path / "report.md"
    options = ("--data", bad, "--model", plain_directory, "--xfails", xfails, "--out", markdown)
    assert run(*options).exit_code == 0
    assert "| distinct | xfail | equal answers: 1 of 4 rows" in markdown.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give module:make_trainer"),
        (["a:b", "--trl", "dpo"], "not both"),
        (["no_colon"], "write module:function"),
        (["no_such_module_at_all:f"], "importing the module"),
        (["--trl", "no-such-trainer"], "there are dpo"),
        (["--trl", "dpo", "--model", "nowhere"], "config.json"),
        (["--data", "enthusiastic_en"], "--model"),
        (["--trl", "dpo", "--out", "report.txt"], ".json or .md"),
    ],
)
def test_bad_input_says_the_way_out(arguments, message):
    with pytest.raises(InputError, match=message):
        CliRunner().invoke(app, ["verify", *arguments], catch_exceptions=False)


def test_command_asks_a_factory(my_module, tmp_path):
    xfails = tmp_path / "xfails.txt"
    xfails.write_text("dropout-disabled  # attention dropout stays on in TRL\n", encoding="utf-8")
    done = run("my_module:make_trainer", "--xfails", xfails, "--json")
    assert done.exit_code == 0, done.output
    written = json.loads(done.stdout)
    assert written["summary"]["xfail"] == 1
    assert written["summary"]["passes"] > 25


def test_module_names_a_factory_and_nothing_else(my_module):
    assert load_subject("my_module:make_trainer").raw == tiny_rows()
    with pytest.raises(InputError, match="is a int"):
        load_subject("my_module:number")
    with pytest.raises(InputError, match="has no 'absent'"):
        load_subject("my_module:absent")
    with pytest.raises(InputError, match="returns a NoneType"):
        verify(load_subject("my_module:makes_nothing"))


# --- pytest ---------------------------------------------------------------------------------------


def test_pytest_suite_takes_a_subject_and_only_that_suite_has_the_option(pytester, monkeypatch):
    pytester.makepyfile(my_module=LOSS)
    pytester.makefile(".txt", xfails="loss-doubled-beta  # beta is fixed on purpose")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=":")
    suite = ("--pyargs", "squeeze.verify", "--subject", "my_module:subject", "-n", "0")
    failing = pytester.runpytest_subprocess(*suite).parseoutcomes()
    assert (failing["passed"], failing["failed"]) == (3, 1)
    expected = ("--subject-xfails", "xfails.txt", "--subject-json", "report.json")
    passing = pytester.runpytest_subprocess(*suite, *expected).parseoutcomes()
    assert (passing["passed"], passing["xfailed"]) == (3, 1)
    summary = json.loads((pytester.path / "report.json").read_text())["summary"]
    assert summary == {"passes": 3, "xfail": 1}
    elsewhere = pytester.runpytest_subprocess("--subject", "my_module:subject", "-n", "0")
    elsewhere.stderr.fnmatch_lines(["*unrecognized arguments: --subject*"])


# --- instances and the callback -------------------------------------------------------------------


def test_finished_trainer_is_asked_what_needs_no_second_one(plain_directory, tmp_path):
    trainer = trainer_of(Healthy, plain_directory, tmp_path)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    results = {r.check.id: r for r in verify(subject_from(trainer, name="mine"))}
    assert not failures(results.values())
    assert results["initial-gradient"].outcome == results["swap"].outcome == "passes"
    assert results["first-order"].outcome == "does not apply"
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert trainer.state.log_history == []


def test_weights_in_16_bits_are_an_input_error(plain_directory, tmp_path):
    trainer = trainer_of(Healthy, plain_directory, tmp_path)
    trainer.model.bfloat16()
    with pytest.raises(InputError, match=r"dtype=torch\.float32"):
        InstanceSubject(trainer)
    with pytest.raises(InputError, match="bfloat16"):
        cheap_checks(trainer)


def test_callback_says_what_it_cannot_ask_and_lets_the_training_go_on(plain_directory, tmp_path):
    made = trainer_of(Healthy, plain_directory, tmp_path)
    collate, calls = made.data_collator, []

    def refuses_single_rows(rows):
        calls.append(len(rows))
        if len(rows) == 1:
            raise KeyError("two rows at least")
        return collate(rows)

    made.data_collator = refuses_single_rows
    made.add_callback(SqueezeCallback(verify=True, examples=1, every=2))
    with pytest.warns(UserWarning, match="not asked.*two rows at least"):
        made.train()
    assert made.state.global_step == 2


@pytest.mark.parametrize(
    ("trainer", "settings", "check"),
    [
        (Healthy, {}, None),
        (LossOnPrompts, {}, "prompt-masked"),
        (ColumnsSwapped, {}, "not-swapped"),
        (LossTypeIgnored, {"loss_type": ["ipo"]}, "initial-loss"),
    ],
)
def test_callback_warns_before_the_first_step(trainer, settings, check, plain_directory, tmp_path):
    made = trainer_of(trainer, plain_directory, tmp_path, **settings)
    made.add_callback(SqueezeCallback(verify=True, examples=1, every=2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.train()
    said = [str(w.message) for w in caught if "squeeze verify" in str(w.message)]
    assert [text.split(": ")[1] for text in said] == ([] if check is None else [check])


def test_training_is_the_same_to_the_bit_with_the_cheap_checks(plain_directory, tmp_path):
    ends = []
    for ask in (False, True):
        trainer = trainer_of(Healthy, plain_directory, tmp_path, logging_steps=1)
        trainer.add_callback(SqueezeCallback(verify=ask, examples=1, every=2))
        trainer.train()
        log = [
            {k: v for k, v in line.items() if "runtime" not in k and "second" not in k}
            for line in trainer.state.log_history
            if "loss" in line
        ]
        ends.append((log, list(trainer.model.parameters())))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(a, b) for a, b in zip(ends[0][1], ends[1][1], strict=True))


# --- expected failures and needs ------------------------------------------------------------------


def test_expected_failures_need_a_known_check_and_a_reason(tmp_path, plain_directory):
    file = tmp_path / "xfails.txt"
    file.write_text("distinct\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 1: say why 'distinct'"):
        read_xfails(file)
    with pytest.raises(InputError, match="no check is called 'distnct'"):
        verify(trl_subject("dpo", model_directory=plain_directory), xfails={"distnct": "why"})


def test_one_fault_is_one_red_line(plain_directory):
    subject = trl_subject("dpo", trainer_class=LossOnPrompts, model_directory=plain_directory)
    (result, *rest) = [r for r in verify(subject, only=["initial-loss"]) if r.outcome != "passes"]
    assert result.check.id == "one-bos"  # does not apply: the tokenizer has no such token
    assert [r.outcome for r in rest] == ["fails", *["does not apply"] * (len(rest) - 1)]
    assert rest[-1].what == "presupposes prompt-masked, which fails"


def test_a_trainer_that_raises_is_one_sentence():
    result = CliRunner().invoke(app, ["verify", "--trl", "dpo", "--loss-type", "nope"])
    assert isinstance(result.exception, InputError)
    assert "nope" in str(result.exception)


@pytest.mark.parametrize("suffix", [".json", ".md"])
def test_a_report_of_ours_may_be_written_again(tmp_path, suffix):
    out = tmp_path / f"report{suffix}"
    document = report.to_json("x", [])
    out.write_text(json.dumps(document) if suffix == ".json" else report.to_markdown("x", []))
    require_output(out, "--out")


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--data", "x", "--limit", "-1"),
        ("verify", "--data", "x", "--max-length", "-5"),
        ("stories", "--seed", "-1"),
        ("stories", "--seed", str(2**32)),
        ("data", "show", "--n", str(10**20)),
        ("diagnose", "x", "--watch", "inf"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_option(arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "Invalid value for" in result.output
