"""Configuration: options, YAML and defaults; every mistake is named with its flag."""

import inspect
import os
import re
import time

import pytest
import yaml
from trl import DPOTrainer

from squeeze.errors import InputError
from squeeze.training.config import QUICK, RunConfig, make_config, read_config
from squeeze.training.runner import phases_key
from tests.tiny_model import tiny_tokenizer

pytestmark = pytest.mark.cpu


def test_unset_options_take_the_defaults():
    assert make_config({"beta": None, "seed": 3}) == RunConfig(seed=3)


def test_what_a_run_writes_back_makes_the_same_configuration():
    config = make_config({"arms": "dpo,sft-dpo", "beta": 0.3, "learning-rate": "1e-4"})
    assert make_config(yaml.safe_load(yaml.safe_dump(config.as_dict()))) == config


def test_quick_keeps_every_arm():
    assert make_config(QUICK).arms == RunConfig().arms


def test_extend_trains_sft_on_both_answers_and_the_others_do_not():
    on = {arm.name: [p.on for p in arm.phases] for arm in RunConfig().phase_arms()}
    assert on == {
        "dpo": ["pairs"],
        "sft-dpo": ["chosen", "pairs"],
        "extend-dpo": ["chosen+rejected", "pairs"],
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pairs": 0}, "--pairs must be positive"),
        ({"beta": -1}, "--beta must be positive"),
        ({"learning_rate": "fast"}, "--learning-rate must be a number, not 'fast'"),
        ({"epochs": 2.5}, "--epochs must be a whole number"),
        ({"held_out": -1}, "--held-out must be 0 or more"),
        ({"arms": "dpo,ppo"}, "unknown arm 'ppo'.*sft-dpo"),
        ({"arms": "dpo,dpo"}, "each named once"),
        ({"dtype": "int4"}, "--dtype 'int4' is not known here; choose auto, float32, bfloat16"),
        ({"leaning_rate": 1}, "did you mean 'learning_rate'"),
        ({"learning_rate": float("nan")}, "--learning-rate must be a finite number"),
        ({"learning_rate": "1e400"}, "--learning-rate must be a finite number"),
        ({"warmup": float("inf")}, "--warmup must be a finite number"),
        ({"weight_decay": -1}, "--weight-decay must be 0 or more"),
        ({"val_size": float("nan")}, "--val-size must be a finite number"),
        ({"seed": 2**32}, "--seed must be below"),
        ({"split_seed": -1}, "--split-seed must be 0 or more"),
        ({"lora_dropout": 2}, "--lora-dropout must be below 1"),
        ({"lora_r": 10**9}, "--lora-r must be at most 16384"),
        ({"max_length": 10**12}, "--max-length must be at most"),
        ({"schedule": "wsd"}, "--schedule 'wsd' is not known here; choose linear"),
        ({"loss_type": "sigmoyd"}, "sigmoyd"),
        ({"loss_options": {"label_smoothing": float("nan")}}, "--loss-options.label_smoothing"),
        ({"loss_type": "simpo", "loss_options": {"gama": 1}}, "no hyper-parameter 'gama'"),
        ({"loss_options": 3}, "--loss-options must be a mapping"),
        ({"arms": 5}, "--arms must be a list"),
        ({"arms": [5]}, "--arms must be text"),
        ({"arms": []}, "at least one arm"),
        ({"epochs": True}, "--epochs must be a number"),
        ({"gradient_checkpointing": "maybe"}, "--gradient-checkpointing must be true or false"),
        ({"model": 7}, "--model must be text"),
        ({"epochs": "9" * 5000}, "--epochs must be a whole number"),
    ],
)
def test_a_mistake_names_the_flag_and_the_way_out(values, message):
    with pytest.raises(InputError, match=message):
        make_config(values)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", ""])
def test_a_configuration_file_must_be_a_mapping(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml"):
        read_config(path)


# Two to the power of forty lists; a list that holds itself; merges that double; brackets for miles.
BOMBS = {
    "aliases": "a0: &a0 [x]\n"
    + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 41)),
    "itself": "a: &a [*a]\n",
    "merges": "a0: &a0 {k: x}\n"
    + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 41)),
    "nesting": "a: " + "[" * 20_000 + "]" * 20_000,
    "json nesting": "{" + '"a": {' * 20_000 + "}" * 20_001,
    "unclosed comments": "{" + "/*" * 200_000,
    "unclosed strings": "{" + '\\"' * 200_000,
    "a number too long": "a: " + "9" * 5_000,
    "size": "# " + "x" * 1_000_001,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_configuration_that_grows_when_it_is_read_is_refused_at_once(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(InputError, match=r"c\.yaml"):
        read_config(path)
    assert time.process_time() - start < 10


def test_aliases_of_an_honest_size_are_read(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("base: &b {epochs: 3}\nmore: {<<: *b, beta: 1e-1}\n")
    assert read_config(path)["more"]["epochs"] == 3


@pytest.mark.parametrize("text", ["beta: 0.1\nbeta: 0.2\n", '{"beta": 0.1,\n "beta": 0.2}'])
def test_a_field_named_twice_is_refused_with_both_lines(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="names 'beta' twice, at lines 1 and 2"):
        read_config(path)


def test_a_pipe_is_no_configuration(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="must be a file"):
        read_config(tmp_path / "pipe")


def test_every_loss_of_trl_is_a_loss_of_a_run():
    source = inspect.getsource(DPOTrainer)
    listed = re.search(r"Should be one of (\[.*?\])", source, re.DOTALL)[1]
    names = re.findall(r"'(\w+)'", listed)
    assert len(names) == 15
    for name in names:
        assert make_config({"loss_type": name}).loss_type == name


@pytest.mark.parametrize("name", ["gated_wpo", "ftx_ld_dpo", "weighted_gated_ld_dpo"])
def test_a_form_of_a_loss_that_trl_trains_itself_is_refused(name):
    with pytest.raises(InputError, match=f"{name} cannot be trained"):
        make_config({"loss_type": name})


def test_dpo_with_another_beta_is_one_training_whatever_it_is_called():
    config = make_config({"beta": 0.2})
    named, plain = (config.arm(name).phases for name in ("loss-sigmoid:beta=0.5", "beta-0.5"))
    assert named == plain
    assert named[-1].beta == 0.5


# The trajectories of a long study lie in the user's cache under these names.
STUDY = {
    **{"pairs": 64, "held_out": 32, "probe_train": 24, "epochs": 8, "sft_epochs": 2},
    **{"batch_size": 4, "learning_rate": 4e-4, "sft_learning_rate": 2e-4, "split_seed": 0},
    **{"probe_every": 2, "variant_probe_every": 8, "dtype": "float32", "model": "smollm2-135m"},
}


def test_the_phases_of_the_long_study_keep_their_names():
    config = make_config(STUDY | {"arms": "sft-dpo,extend-dpo"})
    names = [
        phases_key(arm.phases[:n])
        for arm in config.phase_arms()
        for n in range(len(arm.phases) + 1)
    ]
    assert names == [
        *("base", "sft-b4c1fe1b57", "sft-dpo-19f9dd7eca"),
        *("base", "sft-cbe1f650bd", "sft-dpo-f4652ff715"),
    ]


@pytest.mark.parametrize(
    ("seed", "name"), [(0, "0-4eac264bce327256"), (110, "110-04e5f6289eec4df5")]
)
def test_the_long_study_keeps_its_place_in_the_cache(seed, name, tmp_path, monkeypatch):
    """Pairs and the model's checksum are in the name, and no path: records go between machines."""
    from squeeze.study import seed_run

    monkeypatch.setattr(seed_run, "load_tokenizer", lambda name: tiny_tokenizer())
    config = make_config(STUDY | {"seed": seed})
    assert seed_run.Experiment(config, cache=tmp_path).directory.name == name


def test_a_missing_configuration_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.yaml given with --config does not exist"):
        read_config(tmp_path / "nowhere.yaml")
