"""The full replication on a GPU: Qwen3-4B (QW-1, QW-2), SmolLM2 at full length, a rehearsal.

Every run is resumable at its evaluations: run the same command again. What cannot run here skips
and says what to pass.
"""

import json
from importlib.resources import files

import pytest
import torch
from transformers import Qwen3Config

from squeeze.claims import catalogue
from squeeze.claims.finetuning import judge_run
from squeeze.claims.runs import Runs
from squeeze.data.loading import load_examples, split
from squeeze.errors import InputError
from squeeze.files import write_json
from squeeze.models import load_tokenizer
from squeeze.replicate import replicate
from squeeze.study.rehearsal import QWEN3_4B, rehearse
from squeeze.training.config import make_config, read_config
from squeeze.trajectory import Trajectory
from tests.ledger_plugin import out_directory

pytestmark = pytest.mark.gpu

MODEL, DATA = "Qwen/Qwen3-4B-Base", "markyfsun/chinese-enthusiastic-dpo"
CONFIGS = files("squeeze.training") / "configs"
NEEDED_GB = 40  # the budget of the 4B run; one 48 GB card
SMALL = {
    **{"pairs": 8, "held_out": 4, "probe_train": 4, "generations": 1},
    **{"epochs": 2, "probe_every": 1, "sft_epochs": 1},
}
SMALL_ARCHITECTURE = {
    **{"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16},
}


@pytest.fixture
def out(pytestconfig, rehearsing, tmp_path):
    """Where runs are kept and gone on with."""
    return tmp_path if rehearsing else out_directory(pytestconfig)


@pytest.fixture
def model(pytestconfig, rehearsing, small_model):
    """The 4B model: `--squeeze-model` unless it is the small suites' default, else the hub's."""
    if rehearsing:
        return small_model
    if torch.cuda.get_device_properties(0).total_memory < NEEDED_GB * 1e9:
        pytest.skip(f"this GPU has less than {NEEDED_GB} GB; the 4B run needs a 48 GB card")
    given = pytestconfig.getoption("--squeeze-model")
    name = MODEL if given == "smollm2-135m" else given
    try:
        load_tokenizer(name)
    except InputError as error:
        pytest.skip(
            f"{error}. Pass --squeeze-model DIRECTORY, or set HF_HUB_OFFLINE=0 where the hub is "
            "in reach"
        )
    return name


@pytest.fixture
def data(pytestconfig, out, rehearsing, small_data):
    """The preference data as a file: `--squeeze-data`, else the hub's data set, stored once."""
    given = small_data if rehearsing else pytestconfig.getoption("--squeeze-data")
    if given:
        return given
    path = out / "chinese-enthusiastic-dpo.jsonl"
    if not path.exists():
        from datasets import load_dataset

        try:
            rows = load_dataset(DATA, split="train")
        except OSError as error:  # datasets' and the hub's errors of connection are OSErrors
            pytest.skip(
                f"{DATA} cannot be had ({error}). Pass --squeeze-data FILE (JSON Lines or Parquet "
                "with prompt, chosen, rejected), or set HF_HUB_OFFLINE=0 and HF_DATASETS_OFFLINE=0"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.select_columns(["prompt", "chosen", "rejected"]).to_json(path, force_ascii=False)
    return str(path)


@pytest.fixture
def run(model, data, out, rehearsing):
    """One of the shipped runs by name, gone on with where it stopped."""

    def run_of(name):
        chosen = {"model": model, "data": data} | (SMALL if rehearsing else {})
        config = make_config(read_config(CONFIGS / f"{name}.yaml") | chosen)
        replicate(config, out / name, resume=(out / name / "run.json").exists())
        assert_memory(json.loads((out / name / "run.json").read_text())["peak_memory_mb"])
        trajectory = Trajectory.read(out / name / "trajectory.parquet")
        roles = {"dpo": "dpo", "extend": "extend-dpo", "control": "sft-dpo", "base": "dpo"}
        return Runs((trajectory,), "gpu", (config.seed,), roles, model=model, data=data)

    return run_of


def assert_memory(peak):
    assert peak["gpu" if torch.cuda.is_available() else "resident"] <= NEEDED_GB * 1000


@pytest.mark.claim("QW-1", "gpu")
def test_pure_dpo_of_qwen3_4b_squeezes(run, out, ledger):
    ledger.record(*catalogue.get("QW-1").check(run("qwen3-4b-dpo")))
    assert (out / "qwen3-4b-dpo" / "curves.json").exists()


@pytest.mark.claim("QW-2", "gpu")
def test_sft_on_both_answers_lessens_the_fall_in_qwen3_4b(run, ledger):
    ledger.record(*catalogue.get("QW-2").check(run("qwen3-4b-extend-dpo")))


def test_the_embedded_model_at_full_length(out, ledger, rehearsing, small_model, small_data):
    place = out / "smollm2-full"
    values = {"pairs": 96, "held_out": 24, "probe_train": 96, "epochs": 60}
    small = SMALL | {"model": small_model, "data": small_data}
    config = make_config(values | (small if rehearsing else {}))
    replicate(config, place, resume=(place / "run.json").exists())
    trajectory = Trajectory.read(place / "trajectory.parquet")
    assert max(p.epoch for p in trajectory.points("dpo")) == config.epochs
    ledger.record(*judge_run(trajectory, level="gpu", seeds=(config.seed,)))


def test_a_rehearsal_of_the_4b_architecture_fits_the_card(out, rehearsing, tmp_path):
    config = make_config(read_config(CONFIGS / "qwen3-4b-extend-dpo.yaml"))
    examples, _ = split(load_examples("enthusiastic_en"), 8, 0, seed=0)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    architecture = Qwen3Config(**QWEN3_4B | (SMALL_ARCHITECTURE if rehearsing else {}))
    found = rehearse(architecture, examples, config, tmp_path)
    write_json(out / "rehearsal.json", found)
    assert found["parameters"] > (0 if rehearsing else 4.0e9)
    assert_memory(found["peak_memory_mb"])
