"""LLaMA-Factory configurations: what every key becomes, what is refused, and two that run."""

import json

import pytest
import torch
import yaml

from squeeze.cli import main
from squeeze.data.loading import load_examples
from squeeze.errors import InputError
from squeeze.losses import PairLogps, get_loss
from squeeze.models import load_model
from squeeze.training.config import RunConfig, make_config, read_config
from squeeze.training.inputs import Pairs
from squeeze.training.llamafactory import is_llamafactory, overridden, translate
from squeeze.training.trainers import loss_options, reference
from squeeze.trajectory import Trajectory

pytestmark = pytest.mark.cpu

INFO = """{
  // as pasted from the course's page
  "pairs": {"file_name": "pairs.json", "ranking": true, "formatting": "sharegpt",
            "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}},
  "more": {"file_name": "more.json", "ranking": true},  # Alpaca ranking
  "told": {"file_name": "told.json"},
}"""


def sharegpt(i):
    return {
        "conversations": [{"from": "human", "value": f"What is {i}?"}],
        "chosen": {"from": "gpt", "value": f"It is the number {i}!"},
        "rejected": {"from": "gpt", "value": f"No idea {i}."},
    }


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    data = tmp_path_factory.mktemp("llamafactory") / "data"
    data.mkdir()
    (data / "dataset_info.json").write_text(INFO)
    (data / "pairs.json").write_text(json.dumps([sharegpt(i) for i in range(8)]))
    alpaca = [
        {"instruction": f"Say {i}", "input": "", "chosen": f"{i}!", "rejected": "no"}
        for i in range(3)
    ]
    (data / "more.json").write_text(json.dumps(alpaca))
    told = [{"instruction": f"Tell {i}", "input": "", "output": f"So it is {i}."} for i in range(6)]
    (data / "told.json").write_text(json.dumps(told))
    return data.parent


@pytest.fixture
def translated(directory):
    """Translate a minimal configuration with some keys changed."""

    def translate_with(**keys):
        values = {"stage": "dpo", "model_name_or_path": "some/model", "dataset": "pairs"} | keys
        return translate(values, directory)

    return translate_with


def dpo_phase(translation):
    return make_config(translation.settings).phase_arms()[0].phases[0]


# --- the loss ----------------------------------------------------------------------------------

LOSSES = [
    ({}, "sigmoid", {}),
    ({"pref_loss": "sigmoid", "pref_ftx": 0.5}, "rpo", {"alpha": 0.5, "normalization": "token"}),
    ({"dpo_label_smoothing": 0.1}, "cdpo", {"label_smoothing": 0.1}),
    (
        {"dpo_label_smoothing": 0.1, "pref_ftx": 0.5},
        "ftx_cdpo",
        {"label_smoothing": 0.1, "ftx": 0.5},
    ),
    ({"pref_loss": "hinge"}, "hinge", {}),
    ({"pref_loss": "ipo"}, "ipo", {"length_normalized": True}),
    ({"pref_loss": "kto_pair"}, "kto_pair", {}),
    ({"pref_loss": "orpo", "pref_beta": 0.2}, "orpo", {"lam": 0.2}),
    ({"pref_loss": "simpo", "pref_beta": 2.0, "simpo_gamma": 1.4}, "simpo", {"gamma": 1.4}),
    ({"pref_loss": "simpo"}, "simpo", {"gamma": 0.5}),
    ({"pref_loss": "hinge", "pref_ftx": 1.0}, "ftx_hinge", {"ftx": 1.0}),
]


@pytest.mark.parametrize(("keys", "name", "options"), LOSSES)
def test_every_pref_loss_becomes_a_registered_loss_with_its_options(
    translated, keys, name, options
):
    phase = dpo_phase(translated(**keys))
    assert (phase.loss_type, phase.loss_options) == (name, options)
    assert phase.beta == keys.get("pref_beta", 0.1)
    get_loss(name).check_names(loss_options(get_loss(name), phase))


def logps():
    torch.manual_seed(0)
    chosen, rejected, ref_chosen, ref_rejected = -20 * torch.rand(4, 5, dtype=torch.float64)
    lengths = torch.tensor([3, 5, 7, 9, 11]), torch.tensor([4, 4, 6, 8, 10])
    return PairLogps(chosen, rejected, ref_chosen, ref_rejected, *lengths)


def published(name, x, beta, ftx=0.0, smoothing=0.0, gamma=0.5):
    """LLaMA-Factory's losses as its documentation and TRL 0.8's formulas have them, in means."""
    from torch.nn.functional import logsigmoid

    average = name in ("ipo", "orpo", "simpo")
    per = (x.chosen_length, x.rejected_length) if average else (1, 1)
    c, r = x.chosen / per[0], x.rejected / per[1]
    dc, dr = c - x.ref_chosen / per[0], r - x.ref_rejected / per[1]
    m = dc - dr
    odds = c - r - torch.log1p(-c.exp()) + torch.log1p(-r.exp())
    loss = {
        "sigmoid": lambda: (
            -logsigmoid(beta * m) * (1 - smoothing) - logsigmoid(-beta * m) * smoothing
        ),
        "hinge": lambda: torch.relu(1 - beta * m),
        "ipo": lambda: (m - 1 / (2 * beta)) ** 2,
        "kto_pair": lambda: torch.cat(
            [
                1 - torch.sigmoid(beta * (dc - dr.mean().clamp(min=0))),
                1 - torch.sigmoid(beta * (dc.mean().clamp(min=0) - dr)),
            ]
        ),
        "orpo": lambda: -c - beta * logsigmoid(odds),
        "simpo": lambda: -logsigmoid(beta * (c - r - gamma / beta)),
    }[name]()
    return loss.mean() + ftx * (-x.chosen / x.chosen_length).mean()


@pytest.mark.parametrize("name", ["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"])
@pytest.mark.parametrize("ftx", [0.0, 0.3])
def test_the_translated_loss_is_llamafactorys_number(translated, name, ftx):
    phase = dpo_phase(translated(pref_loss=name, pref_beta=0.4, pref_ftx=ftx))
    loss = get_loss(phase.loss_type)
    value = loss(logps(), **loss_options(loss, phase)).mean()
    torch.testing.assert_close(value, published(name, logps(), 0.4, ftx))


def test_label_smoothing_with_pref_ftx_is_llamafactorys_number(translated):
    phase = dpo_phase(translated(dpo_label_smoothing=0.2, pref_ftx=0.7))
    loss = get_loss(phase.loss_type)
    value = loss(logps(), **loss_options(loss, phase)).mean()
    torch.testing.assert_close(value, published("sigmoid", logps(), 0.1, 0.7, smoothing=0.2))


def test_the_sft_term_adds_its_gradient_to_the_chosen_response_alone():
    loss, x = get_loss("ftx_hinge"), logps()
    plain = get_loss("hinge").residuals(x, beta=0.1)
    chosen, rejected = loss.residuals(x, beta=0.1, ftx=0.3)
    torch.testing.assert_close(chosen, plain[0] - 0.3 / x.chosen_length)
    torch.testing.assert_close(rejected, plain[1])


def test_kto_pair_says_that_its_reference_points_get_no_gradient(translated):
    assert "the gradient does not flow" in translated(pref_loss="kto_pair").warnings[-1]


# --- the rest of the recipe --------------------------------------------------------------------

FIELDS = [
    ({"lora_rank": 8, "lora_alpha": 16}, {"lora_r": 8, "lora_alpha": 16}),
    ({"lora_rank": 4}, {"lora_r": 4, "lora_alpha": 8}),
    ({}, {"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "lora_targets": "all-linear"}),
    ({"lora_target": "q_proj, v_proj"}, {"lora_targets": "q_proj,v_proj"}),
    ({"lora_target": "all"}, {"lora_targets": "all-linear"}),
    ({"num_train_epochs": 30.0}, {"epochs": 30}),
    ({"learning_rate": "5e-5"}, {"learning_rate": 5e-5}),
    ({"lr_scheduler_type": "cosine", "warmup_ratio": 0.1}, {"schedule": "cosine", "warmup": 0.1}),
    ({"warmup_steps": 100, "warmup_ratio": 0.1}, {"warmup": 100.0}),
    ({"per_device_train_batch_size": 2}, {"batch_size": 2}),
    ({"gradient_accumulation_steps": 8}, {"accumulation": 8}),
    ({}, {"batch_size": 8, "accumulation": 1, "epochs": 3, "learning_rate": 5e-5, "seed": 42}),
    ({"weight_decay": 0.01, "max_grad_norm": 0.5}, {"weight_decay": 0.01, "max_grad_norm": 0.5}),
    ({"cutoff_len": 1024}, {"max_length": 1024, "too_long": "cut"}),
    ({"max_samples": 5}, {"max_samples": 5}),
    ({"val_size": 0.1}, {"val_size": 0.1}),
    ({"bf16": True}, {"dtype": "auto"}),
    ({}, {"dtype": "float32", "val_size": 0.0}),
    ({"template": "chatml"}, {"template": "chatml", "system": ""}),
    ({"template": "qwen"}, {"template": "chatml"}),
    ({"template": "qwen", "default_system": "Be brief."}, {"system": "Be brief."}),
    ({"template": "empty"}, {"template": "plain"}),
    ({"template": "llama3"}, {"template": "model"}),
    ({"ref_model": "a/b"}, {"ref_model": "a/b", "ref_model_adapters": None}),
    ({"ref_model": "a/b", "ref_model_adapters": "c"}, {"ref_model_adapters": "c"}),
    ({"adapter_name_or_path": "x", "create_new_adapter": True}, {"adapters": "x"}),
    ({"stage": "sft", "num_train_epochs": 2}, {"arms": ["sft-2"], "demonstrations": True}),
]


@pytest.mark.parametrize(("keys", "fields"), FIELDS)
def test_a_key_becomes_its_field(translated, keys, fields):
    settings = translated(**keys).settings
    assert {name: settings[name] for name in fields} == fields
    make_config(settings)


def test_qwens_template_brings_qwens_system_message(translated):
    assert translated(template="qwen").settings["system"].startswith("You are Qwen,")


REFUSED = [
    ({"stage": "ppo"}, "stage 'ppo' is not run here; choose dpo or sft"),
    ({"model_name_or_path": None}, "model_name_or_path is missing"),
    ({"dataset": None}, "dataset is missing"),
    ({"dataset_dir": "nowhere"}, "dataset_dir: nowhere/dataset_info.json does not exist"),
    ({"pref_loss": "bco"}, "pref_loss 'bco' is not known here; choose sigmoid, hinge, ipo"),
    ({"pref_beta": 0}, "pref_beta must be positive"),
    ({"pref_ftx": -1}, "pref_ftx must be 0 or more"),
    ({"dpo_label_smoothing": 0.1, "pref_loss": "ipo"}, "goes with pref_loss sigmoid only"),
    ({"dpo_label_smoothing": 0.5}, "must be below 0.5"),
    ({"quantization_bit": 4}, "quantization_bit: 4 cannot be honoured.*unquantized"),
    ({"fp16": True}, "fp16: True cannot be honoured.*bf16"),
    ({"use_dora": True}, "use_dora"),
    ({"packing": True}, "packing"),
    ({"neat_packing": True}, "neat_packing: True cannot be honoured.*every row is one example"),
    ({"optim": "adamw_8bit"}, "optim: 'adamw_8bit' cannot be honoured.*use adamw_torch"),
    ({"shift_attn": True}, "shift_attn"),
    ({"mixture_of_depths": "convert"}, "mixture_of_depths"),
    ({"moe_aux_loss_coef": 0.01}, "moe_aux_loss_coef"),
    ({"new_special_tokens": "<x>"}, "the vocabulary stays"),
    ({"mix_strategy": "interleave_under"}, "use concat"),
    ({"finetuning_type": "freeze"}, "finetuning_type: 'freeze'"),
    ({"max_steps": 200}, "max_steps: 200 cannot be honoured.*num_train_epochs"),
    ({"optim": "sgd"}, "optim: 'sgd' cannot be honoured.*adamw_torch"),
    ({"num_train_epochs": 2.5}, "num_train_epochs: 2.5 .* use 2 or 3"),
    ({"learning_rate": "fast"}, "learning_rate must be a number"),
    ({"per_device_train_batch_size": 1.5}, "must be a whole number"),
    ({"lr_scheduler_type": "wsd"}, "lr_scheduler_type 'wsd' .* choose linear, cosine"),
    ({"warmup_ratio": 3}, "warmup_ratio must be below 1"),
    ({"val_size": 1.5}, "val_size must be a share below 1 or a whole number"),
    ({"template": "qwem"}, "template 'qwem' is not known here; did you mean 'qwen'.*chatml.*yi"),
    ({"ref_model_adapters": "x"}, "ref_model_adapters goes with ref_model"),
    ({"adapter_name_or_path": "x"}, "create_new_adapter: true"),
    ({"bf16": "yes please"}, "bf16 must be true or false"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED)
def test_what_cannot_be_honoured_is_an_error_with_the_key_and_the_way_out(
    translated, keys, message
):
    with pytest.raises(InputError, match=message):
        translated(**keys)


def test_keys_without_a_meaning_here_share_one_warning(translated):
    keys = {"output_dir": "x", "plot_loss": True, "deepspeed": "z3.json", "flash_attn": "fa2"}
    assert translated(**keys).warnings == (
        "without a meaning here, and ignored: output_dir, plot_loss, deepspeed, flash_attn",
    )


def test_an_unknown_key_is_a_warning_with_the_nearest_known_one(translated):
    assert translated(pref_betta=0.3).warnings == (
        "unknown key 'pref_betta' ignored; did you mean 'pref_beta'?",
    )


def test_a_key_that_is_no_text_is_unknown_too(directory):
    path = directory / "odd.yaml"
    path.write_text("1: 2\nstage: dpo\nmodel_name_or_path: some/model\ndataset: pairs\n")
    values = read_config(path)
    assert translate(values, directory).warnings == ("unknown key '1' ignored",)
    with pytest.raises(InputError, match="unknown configuration field '1'"):
        make_config(values)


def test_pure_bf16_makes_the_frozen_weights_bfloat16_and_says_what_stays_float32(translated):
    translation = translated(pure_bf16=True)
    assert translation.settings["weights"] == "bfloat16"
    assert "the adapter is float32" in translation.warnings[-1]


def test_a_quantized_reference_is_named_and_read_unquantized(translated):
    translation = translated(ref_model="a/b", ref_model_quantization_bit=4)
    assert "the reference is not quantized here" in translation.warnings[-1]


def test_a_loss_without_reference_does_not_load_one(translated):
    translation = translated(ref_model="a/b", pref_loss="simpo")
    assert "ref_model" not in translation.settings
    assert "simpo has no reference" in translation.warnings[-1]


def test_the_command_lines_options_win_over_the_files_keys():
    theirs, ours = overridden({"pref_beta": 0.1}, {"beta": 0.5, "pairs": 4, "held_out": 2})
    assert theirs == {"pref_beta": 0.5, "max_samples": 4}
    assert ours == {"held_out": 2}


def test_our_own_configuration_is_not_taken_for_llamafactorys():
    assert not is_llamafactory(RunConfig().as_dict())
    assert is_llamafactory({"stage": "dpo"})
    assert is_llamafactory({"model_name_or_path": "x"})


def test_json_with_comments_is_read(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(
        '// DPO\n{"stage": "dpo", # which\n "output_dir": "http://x/#y", /* β */ "pref_beta": 0.1,}'
    )
    assert read_config(path) == {"stage": "dpo", "output_dir": "http://x/#y", "pref_beta": 0.1}


def test_what_a_translated_run_writes_back_makes_the_same_configuration(translated):
    config = make_config(translated(pref_loss="simpo", val_size=2, ref_model=None).settings)
    assert make_config(yaml.safe_load(yaml.safe_dump(config.as_dict()))) == config


# --- the data ----------------------------------------------------------------------------------


def test_several_data_sets_are_read_one_after_the_other(directory):
    examples = load_examples(f"{directory}/data/dataset_info.json:pairs,more", max_samples=2)
    assert [e.id.split("/")[0] for e in examples] == ["pairs", "pairs", "more", "more"]
    assert examples[2].chosen == "0!"


def test_instruction_data_have_no_rejected_answer(directory):
    info = f"{directory}/data/dataset_info.json:told"
    examples = load_examples(info, demonstrations=True)
    assert [e.chosen for e in examples] == [f"So it is {i}." for i in range(6)]
    assert {e.rejected for e in examples} == {""}
    with pytest.raises(InputError, match="not preference data"):
        load_examples(info)


def test_all_rows_but_the_validation_share_are_trained_on(translated):
    pairs = Pairs.of(make_config(translated(val_size=0.25, template="qwen").settings))
    assert (len(pairs.train), len(pairs.held_out)) == (6, 2)
    assert not {e.prompt for e in pairs.train} & {e.prompt for e in pairs.held_out}
    assert {e.prompt[0].role for e in pairs.train} == {"system"}


# --- running -----------------------------------------------------------------------------------


def squeeze(monkeypatch, directory, keys, *options):
    """Run `squeeze replicate` on a configuration beside the data; returns the run's directory."""
    path, out = directory / f"{keys['stage']}.yaml", directory / f"run-{keys['stage']}"
    path.write_text(yaml.safe_dump(keys))
    arguments = ["squeeze", "replicate", "--config", str(path), "--out", str(out), *options]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    return out


SHORT = {
    "template": "chatml",
    "cutoff_len": 128,
    "val_size": 2,
    "per_device_train_batch_size": 3,
    "learning_rate": 1e-2,
    "output_dir": "saves",
}


def test_a_dpo_configuration_with_pref_ftx_and_another_reference_runs_with_probes(
    monkeypatch, capsys, directory, tiny_directory, tmp_path
):
    from tests.tiny_model import save_tiny_model

    other = save_tiny_model(tmp_path / "other", seed=1)
    keys = SHORT | {
        "stage": "dpo",
        "model_name_or_path": str(tiny_directory),
        "ref_model": str(other),
        "dataset": "pairs",
        "pref_ftx": 0.5,
        "num_train_epochs": 2.0,
    }
    out = squeeze(monkeypatch, directory, keys)
    assert "dpo.yaml: without a meaning here, and ignored: output_dir" in capsys.readouterr().err
    trajectory = Trajectory.read(out / "trajectory.parquet")
    assert [p.phase for p in trajectory.points("dpo")] == ["base", "dpo", "dpo"]
    run = json.loads((out / "run.json").read_text())
    assert run["config"]["loss_options"] == {"alpha": 0.5, "normalization": "token"}
    assert (run["data"]["n_train"], run["data"]["n_held_out"]) == (6, 2)
    # Before the first step DPO's part is not log 2, as the reference is another model.
    log = next((out / "work").glob("dpo-*/log.json"))
    first = json.loads(log.read_text())[0]
    assert abs(first["rewards/margins"]) > 1e-3


def test_an_sft_configuration_on_instruction_data_runs_with_probes(
    monkeypatch, directory, tiny_directory
):
    keys = SHORT | {
        "stage": "sft",
        "model_name_or_path": str(tiny_directory),
        "dataset": "told",
        "num_train_epochs": 2.0,
    }
    out = squeeze(monkeypatch, directory, keys)
    trajectory = Trajectory.read(out / "trajectory.parquet")
    assert [p.phase for p in trajectory.points("sft-2")] == ["base", "sft", "sft"]
    assert "rejected" not in set(trajectory.frame["kind"])
    chosen = trajectory.by_example("sft-2", "chosen", "train").mean()
    assert chosen.iloc[-1] > chosen.iloc[0]


def test_reference_adapters_that_are_not_there_are_named(tiny_directory, tmp_path):
    config = make_config({"ref_model": str(tiny_directory), "ref_model_adapters": str(tmp_path)})
    with pytest.raises(InputError, match=r"adapter .* is no directory with adapter_config\.json"):
        reference(config, load_model(str(tiny_directory)))
