"""The callback in trainers that sample: right and wrong answers probed, weights as without it."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from squeeze import SqueezeCallback
from squeeze.data.examples import Message, PreferenceExample
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


@pytest.mark.parametrize("kind", TRAINERS)
def test_training_on_rollouts_is_the_same_to_the_bit_with_the_callback(kind, tmp_path):
    directory = save_tiny(tmp_path / "model")
    plain = trained(kind, directory, tmp_path / "plain")
    callback = SqueezeCallback(probe=right_and_wrong(), every=1)
    watched = trained(kind, directory, tmp_path / "watched", callback)
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True)
    )
    logged = [line for line in watched.state.log_history if "squeeze/chosen" in line]
    assert [line["step"] for line in logged] == [0, 1, 2, 3]
    assert {"squeeze/rejected", "squeeze/argmax", "squeeze/entropy"} <= set(logged[0])
    rewards = [
        [line["reward"] for line in t.state.log_history if "reward" in line]
        for t in (plain, watched)
    ]
    assert rewards[0] == rewards[1]


def test_without_a_probe_the_callback_says_what_to_pass_and_rests(tmp_path):
    directory = save_tiny(tmp_path / "model")
    callback = SqueezeCallback(every=1)
    with pytest.warns(UserWarning, match="pass probe="):
        trained("GRPO", directory, tmp_path, callback)
    assert callback.diagnosis is None
