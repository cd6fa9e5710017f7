"""The published Qwen3-4B replication: shipped configurations, its JSON and PNG, the rehearsal."""

import gc
import json
from importlib.resources import files

import pytest
from transformers import Qwen3Config, Qwen3ForCausalLM

from squeeze.data.loading import load_examples
from squeeze.models import load
from squeeze.scoring import ResponseScores
from squeeze.study import rehearsal
from squeeze.study.rehearsal import QWEN3_4B, projected_hours, rehearse
from squeeze.training.config import make_config, read_config
from squeeze.training.curves_output import draw_curves_png, write_curves_json
from squeeze.trajectory import ProbePoint, Trajectory

pytestmark = pytest.mark.cpu

CONFIGS = files("squeeze.training") / "configs"


def shipped(name):
    return make_config(read_config(CONFIGS / f"{name}.yaml"))


def test_the_first_run_has_the_published_hyper_parameters():
    ((dpo,),) = [arm.phases for arm in shipped("qwen3-4b-dpo").phase_arms()]
    assert (dpo.epochs, dpo.beta, dpo.learning_rate, dpo.warmup) == (100, 0.1, 5e-6, 0.1)
    assert (dpo.batch_size, dpo.accumulation, dpo.schedule) == (1, 1, "linear")
    assert dpo.probe_every == 4


def test_the_second_run_has_the_published_hyper_parameters_and_a_control():
    extended, control = shipped("qwen3-4b-extend-dpo").phase_arms()
    sft, dpo = extended.phases
    assert (sft.on, sft.epochs, sft.learning_rate) == ("chosen+rejected", 2, 2e-4)
    assert (sft.batch_size, sft.accumulation, sft.warmup, sft.weight_decay) == (2, 4, 5, 0.01)
    assert (dpo.epochs, dpo.batch_size, dpo.weight_decay) == (60, 1, 0.0)
    assert control.phases[0].on == "chosen"


def curves(chosen, argmax, arm="dpo", phase="dpo"):
    """A trajectory of four training prompts whose log-probs follow the given means."""
    trajectory = Trajectory.empty()
    for probe, (a, b) in enumerate(zip(chosen, argmax, strict=True)):
        point = ProbePoint(arm, "base" if probe == 0 else phase, probe, float(probe), probe)
        rows = [
            ResponseScores(f"e{i}", "train", kind, value + i / 10, b + i / 10, 1.0, 0.5, 10)
            for i in range(4)
            for kind, value in (("chosen", a), ("rejected", a - 20 * probe))
        ]
        trajectory = trajectory.append(point, rows)
    return trajectory


def test_the_curves_files_hold_configuration_and_the_three_series(tmp_path):
    trajectory = curves([-90, -80], [-40, -35])
    write_curves_json(tmp_path, {"beta": 0.1}, trajectory)
    draw_curves_png(tmp_path, trajectory)
    found = json.loads((tmp_path / "curves.json").read_text())
    assert found["config"] == {"beta": 0.1}
    assert found["arms"]["dpo"]["chosen"] == pytest.approx([-89.85, -79.85], abs=1e-4)
    assert found["arms"]["dpo"]["argmax"] == pytest.approx([-39.85, -34.85], abs=1e-4)
    assert found["arms"]["dpo"]["epoch"] == [0, 1]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


SMALL = QWEN3_4B | {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def rehearsed(out, arms, steps):
    config = make_config({"arms": arms, "batch_size": 1, "dtype": "float32"})
    return rehearse(Qwen3Config(**SMALL), load_examples("enthusiastic_en")[:2], config, out, steps)


def test_the_rehearsal_measures_every_phase_of_a_small_model_with_the_same_architecture(tmp_path):
    found = rehearsed(tmp_path, "extend-dpo", steps=2)
    assert set(found["seconds_per_step"]) == {"sft", "dpo"}
    assert min(found["seconds_per_step"].values()) > 0
    assert found["projected_hours"] > 0


def test_the_rehearsal_holds_both_models_of_a_run_and_counts_no_cold_step(tmp_path, monkeypatch):
    copies = []
    ends = iter([10.0, 20.0, 30.0, 31.0, 32.0, 33.0])  # the first three steps are slow

    def now(_):
        models = [o for o in gc.get_objects() if type(o) is Qwen3ForCausalLM]
        copies.append(sum(model.config.vocab_size == 300 for model in models))
        return next(ends)

    monkeypatch.setattr(rehearsal, "_now", now)
    found = rehearsed(tmp_path, "dpo", steps=6)
    assert set(copies) == {2}
    assert found["seconds_per_step"] == {"dpo": 1.0}


def test_the_projection_counts_steps_and_evaluations_of_every_phase_once():
    config = make_config(
        {"arms": "dpo", "pairs": 10, "batch_size": 1, "epochs": 6, "probe_every": 4}
        | {"probe_train": 10, "held_out": 0}
    )
    # 60 steps of 1 s; the base model and 2 probes, 10 examples of 2 s each
    assert projected_hours(config, {"dpo": 1.0}, 2.0) * 3600 == pytest.approx(60 + 60)


def test_a_directory_laid_out_as_a_hub_snapshot_loads(tiny_directory):
    names = {path.name for path in tiny_directory.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors.index.json"} <= names
    assert {"tokenizer.json", "tokenizer_config.json"} <= names
    assert len([name for name in names if name.endswith(".safetensors")]) > 1
    model, tokenizer = load(str(tiny_directory))
    assert model.get_input_embeddings().num_embeddings >= len(tokenizer)
