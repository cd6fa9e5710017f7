"""Configuration: options, YAML and defaults; every mistake is named with its flag."""

import pytest
import yaml

from squeeze.errors import InputError
from squeeze.training.config import QUICK, RunConfig, make_config, read_config

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
        ({"epochs": 2.5}, "--epochs must be of type int"),
        ({"held_out": -1}, "--held-out must not be negative"),
        ({"arms": "dpo,ppo"}, "unknown arm 'ppo'.*sft-dpo"),
        ({"arms": "dpo,dpo"}, "each named once"),
        ({"dtype": "int4"}, "--dtype must be auto"),
        ({"leaning_rate": 1}, "did you mean 'learning_rate'"),
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


def test_a_missing_configuration_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.yaml given with --config does not exist"):
        read_config(tmp_path / "nowhere.yaml")
