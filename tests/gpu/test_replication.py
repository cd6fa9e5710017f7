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


@pytest.fixture
def model(pytestconfig):
    """The 4B model: `--squeeze-model` unless it is the small suites' default, else the hub's."""
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
def data(pytestconfig):
    """The preference data as a file: `--squeeze-data`, else the hub's data set, stored once."""
    given = pytestconfig.getoption("--squeeze-data")
    if given:
        return given
    path = out_directory(pytestconfig) / "chinese-enthusiastic-dpo.jsonl"
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


def run(name, model, data, out):
    """One of the shipped runs, gone on with where it stopped."""
    config = make_config(read_config(CONFIGS / f"{name}.yaml") | {"model": model, "data": data})
    replicate(config, out / name, resume=(out / name / "run.json").exists())
    trajectory = Trajectory.read(out / name / "trajectory.parquet")
    roles = {"dpo": "dpo", "extend": "extend-dpo", "control": "sft-dpo", "base": "dpo"}
    return Runs((trajectory,), "gpu", (config.seed,), roles, model=model, data=data)


def assert_memory(out, name):
    peak = json.loads((out / name / "run.json").read_text())["peak_memory_mb"]["gpu"]
    assert peak <= NEEDED_GB * 1000


@pytest.mark.claim("QW-1", "gpu")
def test_pure_dpo_of_qwen3_4b_squeezes(model, data, pytestconfig, ledger):
    out = out_directory(pytestconfig)
    ledger.record(*catalogue.get("QW-1").check(run("qwen3-4b-dpo", model, data, out)))
    assert_memory(out, "qwen3-4b-dpo")
    assert (out / "qwen3-4b-dpo" / "curves.json").exists()


@pytest.mark.claim("QW-2", "gpu")
def test_sft_on_both_answers_lessens_the_fall_in_qwen3_4b(model, data, pytestconfig, ledger):
    out = out_directory(pytestconfig)
    ledger.record(*catalogue.get("QW-2").check(run("qwen3-4b-extend-dpo", model, data, out)))
    assert_memory(out, "qwen3-4b-extend-dpo")


def test_the_embedded_model_at_full_length(pytestconfig, ledger):
    out = out_directory(pytestconfig) / "smollm2-full"
    config = make_config({"pairs": 96, "held_out": 24, "probe_train": 96, "epochs": 60})
    replicate(config, out, resume=(out / "run.json").exists())
    trajectory = Trajectory.read(out / "trajectory.parquet")
    assert max(p.epoch for p in trajectory.points("dpo")) == 60
    ledger.record(*judge_run(trajectory, level="gpu", seeds=(config.seed,)))


def test_a_rehearsal_of_the_4b_architecture_fits_the_card(pytestconfig, tmp_path):
    config = make_config(read_config(CONFIGS / "qwen3-4b-extend-dpo.yaml"))
    examples, _ = split(load_examples("enthusiastic_en"), 8, 0, seed=0)
    torch.cuda.reset_peak_memory_stats()
    found = rehearse(Qwen3Config(**QWEN3_4B), examples, config, tmp_path)
    write_json(out_directory(pytestconfig) / "rehearsal.json", found)
    assert found["parameters"] > 4.0e9
    assert found["peak_memory_mb"]["gpu"] <= NEEDED_GB * 1000
