"""The callback in trainers that sample: right and wrong answers probed, weights as without it."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from squeeze import SqueezeCallback
from squeeze.data.examples import Message, PreferenceExample
from squeeze.diagnosis import diagnose, load
from squeeze.diagnosis.rollouts import read_rollouts
from squeeze.diagnosis.sampled import WAIT, SampledAnswers, read_probe
from squeeze.verify.tiny import save_tiny, tiny_rows
from squeeze.verify.trl_trainers import tiny_reward, trl_class

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]
GROUPS = {"num_generations": 4, "max_completion_length": 8}
TRAINERS = {
    "GRPO": (GRPOTrainer, GRPOConfig, GROUPS),
    "RLOO": (RLOOTrainer, RLOOConfig, GROUPS),
    "online DPO": (
        trl_class("OnlineDPO", "online_dpo", "Trainer"),
        trl_class("OnlineDPO", "online_dpo", "Config"),
        {"max_new_tokens": 8, "disable_dropout": True},
    ),
}


def letters(completions, **_):
    """A reward of texts, as online DPO's trainer gives its reward functions no ids."""
    return [float(len(str(c)) % 7) for c in completions]


def right_and_wrong():
    """Pairs whose chosen answer is right and whose rejected answer is wrong."""
    return [
        PreferenceExample(
            id=str(i),
            prompt=tuple(Message(m["role"], m["content"]) for m in row["prompt"]),
            chosen=row["chosen"][0]["content"],
            rejected=row["rejected"][0]["content"],
        )
        for i, row in enumerate(tiny_rows())
    ]


def trained(kind, directory, tmp_path, *callbacks):
    trainer, config, own = TRAINERS[kind]
    options = {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no"}
    made = trainer(
        model=AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32),
        reward_funcs=letters if kind == "online DPO" else tiny_reward,
        processing_class=AutoTokenizer.from_pretrained(directory),
        args=config(
            output_dir=str(tmp_path),
            max_steps=3,
            per_device_train_batch_size=8,
            learning_rate=1e-3,
            logging_steps=1,
            disable_tqdm=True,
            **options,
            **own,
        ),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in tiny_rows()]),
        callbacks=list(callbacks),
    )
    made.train()
    return made


def same_weights(a, b):
    """Whether two trainers' weights are equal to the bit."""
    pairs = zip(a.model.parameters(), b.model.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def plain(directory, tmp_path_factory):
    """Each trainer without the callback, trained once."""
    return cache(lambda kind: trained(kind, directory, tmp_path_factory.mktemp("plain")))


@pytest.mark.parametrize("kind", TRAINERS)
def test_training_on_rollouts_is_the_same_to_the_bit_with_the_callback(
    kind, directory, plain, tmp_path
):
    callback = SqueezeCallback(probe=right_and_wrong(), every=1)
    watched = trained(kind, directory, tmp_path, callback)
    assert same_weights(plain(kind), watched)
    logged = [line for line in watched.state.log_history if "squeeze/chosen" in line]
    assert [line["step"] for line in logged] == [0, 1, 2, 3]
    assert {"squeeze/rejected", "squeeze/argmax", "squeeze/entropy"} <= set(logged[0])
    rewards = [
        [line["reward"] for line in t.state.log_history if "reward" in line]
        for t in (plain(kind), watched)
    ]
    assert rewards[0] == rewards[1]


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_without_a_probe_the_first_rollouts_give_one_and_no_weight_changes(
    kind, directory, plain, tmp_path
):
    callback = SqueezeCallback(every=1, examples=2)
    watched = trained(kind, directory, tmp_path, callback)
    assert same_weights(plain(kind), watched)
    logged = [line["step"] for line in watched.state.log_history if "squeeze/chosen" in line]
    assert logged == [0, 1, 2, 3]
    items = read_probe(tmp_path / "squeeze")
    assert [item.example for item in items] == ["rollout-0", "rollout-1"]
    assert all(set(item.response_ids) == {"chosen", "rejected"} for item in items)


def test_what_is_logged_of_the_rollouts_is_kept_and_read_again(directory, tmp_path):
    callback = SqueezeCallback(every=1, examples=2)
    trained("GRPO", directory, tmp_path, callback)
    rows = read_rollouts(tmp_path / "squeeze")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert {"entropy", "reward", "length", "cut", "repetition"} <= set(rows[0])
    (run,) = load(tmp_path / "squeeze")
    assert run.method == "grpo"
    assert {s.quantity for s in run.series if s.split == "rollouts"} >= {"entropy", "repetition"}
    assert diagnose(run).verdict == callback.diagnosis.verdict


def test_the_better_answer_of_a_prompt_is_chosen_and_the_worse_rejected():
    samples = SampledAnswers(limit=1)
    ones = torch.ones(3, 2, dtype=torch.long)
    samples.note(
        {
            "prompt_ids": torch.tensor([[0, 5], [0, 5], [0, 5]]),
            "prompt_mask": torch.tensor([[0, 1]] * 3),
            "completion_ids": torch.tensor([[7, 1], [8, 1], [9, 0]]),
            "completion_mask": torch.where(torch.tensor([[1, 1], [1, 1], [1, 0]]) > 0, ones, 0),
            "advantages": torch.tensor([0.5, 1.0, -1.5]),
        }
    )
    (item,) = samples.probe(0)
    assert item.prompt_ids == [5]
    assert item.response_ids == {"chosen": [8, 1], "rejected": [9]}


def test_too_few_pairs_are_waited_for():
    samples = SampledAnswers(limit=4)
    one = torch.ones(2, 1, dtype=torch.long)
    for prompt in (5, 6):
        batch = {"prompt_ids": prompt * one, "completion_ids": torch.tensor([[7], [8]])}
        masks = {"prompt_mask": one, "completion_mask": one}
        samples.note(batch | masks | {"advantages": torch.tensor([1.0, -1.0])})
    assert samples.probe(3) == []
    assert len(samples.probe(WAIT)) == 2


def test_online_dpo_without_a_probe_is_told_what_to_pass(directory, tmp_path):
    callback = SqueezeCallback(every=1)
    with pytest.warns(UserWarning, match="pass probe="):
        trained("online DPO", directory, tmp_path, callback)
    assert callback.diagnosis is None
