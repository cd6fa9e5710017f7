"""SqueezeCallback in real trainers: what watchers see, what is recorded, when it warns or stops."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from squeeze import SqueezeCallback
from squeeze.data.loading import load_examples
from squeeze.data.probe_set import build_probe_set
from squeeze.diagnosis import VERDICTS, diagnose, load
from squeeze.diagnosis.alarm import Alarm
from squeeze.diagnosis.callback import SqueezeWarning
from squeeze.diagnosis.pace import Pace
from squeeze.diagnosis.page import write_report
from squeeze.errors import InputError
from squeeze.models import load_tokenizer
from squeeze.training.trainers import preference_dataset, sft_dataset
from squeeze.trajectory import Trajectory

pytestmark = [
    pytest.mark.cpu,
    # transformers and TRL to each other, while TRL switches checkpointing off for its own passes.
    pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning"),
]

PAIRS = load_examples("enthusiastic_en")[:6]
LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
QUIET: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "report_to": "none",
    "disable_tqdm": True,
    "learning_rate": 1e-3,
}


class Watcher(TrainerCallback):
    """Stands where TensorBoard's callback does: before the user's own."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, Any]]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.seen.append((state.global_step, dict(logs)))


def dpo(model: Path, out: Path, callbacks: list[TrainerCallback], **options: Any) -> DPOTrainer:
    chosen = {"save_strategy": "no", "max_steps": 4, "logging_steps": 2} | options
    more = {name: chosen.pop(name, None) for name in ("peft_config", "ref_model")}
    change = chosen.pop("change", lambda data: data)
    args = DPOConfig(output_dir=str(out), **QUIET | chosen)
    return DPOTrainer(
        str(model),
        args=args,
        train_dataset=change(preference_dataset(PAIRS)),
        eval_dataset=change(preference_dataset(PAIRS[:2])),
        callbacks=callbacks,
        **more,
    )


def steps(directory: Path) -> list[int]:
    """The optimizer steps of a recorded trajectory's probes, in order."""
    points = Trajectory.read(directory / "trajectory.parquet").points("run")
    return [p.step for p in points]


@pytest.fixture(scope="module")
def watched(
    tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DPOTrainer, Watcher, Path]:
    out, watcher = tmp_path_factory.mktemp("dpo"), Watcher()
    trainer = dpo(tiny_directory, out, [watcher, SqueezeCallback(every=2, examples=3)])
    trainer.train()
    return trainer, watcher, out / "squeeze"


def test_watchers_before_the_callback_and_the_log_history_see_its_metrics(watched: Any) -> None:
    trainer, watcher, _ = watched
    logged = [(step, logs) for step, logs in watcher.seen if "squeeze/chosen" in logs]
    assert [step for step, _ in logged] == [0, 2, 4]
    history = [line for line in trainer.state.log_history if "squeeze/chosen" in line]
    assert [line["squeeze/argmax"] for line in history] == [x["squeeze/argmax"] for _, x in logged]
    wanted = ("rejected", "margin", "entropy", "severity", "overhead", "held_out/chosen")
    assert {f"squeeze/{name}" for name in wanted} <= set(logged[-1][1])


def test_training_and_its_own_log_are_the_same_without_the_callback(
    watched: Any, tiny_directory: Path, tmp_path: Path
) -> None:
    alone = dpo(tiny_directory, tmp_path, [])
    alone.train()
    for a, b in zip(alone.model.parameters(), watched[0].model.parameters(), strict=True):
        assert torch.equal(a, b)
    lines = [[line for line in t.state.log_history if "loss" in line] for t in (alone, watched[0])]
    assert len(lines[0]) == 2
    assert lines[0] == lines[1]


def test_the_directory_is_a_run_that_diagnose_and_report_read(watched: Any, tmp_path: Path) -> None:
    directory = watched[2]
    (run,) = load(directory)
    assert run.phase == "dpo"
    assert set(run.splits()) == {"train", "held_out"}
    about = json.loads((directory / "run.json").read_text())
    assert about["status"] == "finished"
    assert about["every"] == 2
    assert about["overhead"]["seconds"] > 0
    assert about["verdict"] == diagnose(run).verdict
    page = write_report([diagnose(run)], tmp_path / "report", tmp_path)
    assert about["headline"] in page.read_text()
    assert diagnose(run).reason in page.read_text()


def test_the_log_alone_gives_the_same_verdict_on_the_probe(watched: Any, tmp_path: Path) -> None:
    watched[0].state.save_to_json(tmp_path / "trainer_state.json")
    (run,) = load(tmp_path)
    assert {"probe", "probe held_out", "train"} == set(run.splits())
    assert run.get("argmax_logp", "probe").values.size == 3


def test_resumed_training_continues_the_trajectory_without_a_repeated_step(
    tiny_directory: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "peft_config": LORA,
        "gradient_accumulation_steps": 3,
        "per_device_train_batch_size": 1,
        "save_strategy": "steps",
        "save_steps": 3,
        "logging_steps": 1,
    }
    # Killed at step 4, after the probe there; the last checkpoint is of step 3.
    first = dpo(tiny_directory, tmp_path, [SqueezeCallback(every=2)], max_steps=4, **options)
    first.train()
    assert steps(tmp_path / "squeeze") == [0, 2, 4]
    before = Trajectory.read(tmp_path / "squeeze" / "trajectory.parquet").frame
    second = dpo(tiny_directory, tmp_path, [SqueezeCallback(every=2)], max_steps=7, **options)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert steps(tmp_path / "squeeze") == [0, 2, 4, 6, 7]
    after = Trajectory.read(tmp_path / "squeeze" / "trajectory.parquet").frame
    kept = after[after["step"] <= 2]
    assert kept["logp"].tolist() == before[before["step"] <= 2]["logp"].tolist()
    logged = [x["step"] for x in second.state.log_history if "squeeze/chosen" in x]
    assert logged == [0, 2, 4, 6, 7]


def test_resuming_with_another_probe_is_refused(
    tiny_directory: Path, tmp_path: Path, watched: Any
) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    out = tmp_path / "squeeze"
    dpo(tiny_directory, tmp_path, [SqueezeCallback(PAIRS[:2], out=out)], **options).train()
    other = dpo(tiny_directory, tmp_path, [SqueezeCallback(PAIRS[2:], out=out)], **options)
    with pytest.raises(InputError, match="another probe"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def sft(model: Path, out: Path, callback: SqueezeCallback, **options: Any) -> SFTTrainer:
    args = SFTConfig(
        output_dir=str(out), max_steps=2, save_strategy="no", max_length=64, **QUIET | options
    )
    return SFTTrainer(
        str(model),
        args=args,
        train_dataset=sft_dataset(PAIRS, "chosen"),
        peft_config=LORA,
        callbacks=[callback],
    )


def test_packed_sft_is_scored_on_all_kinds_of_a_probe_set(
    tiny_directory: Path, tmp_path: Path
) -> None:
    probe = build_probe_set(PAIRS[:2], PAIRS[2:4])
    callback = SqueezeCallback(probe, every=1, out=tmp_path / "probe")
    trainer = sft(tiny_directory, tmp_path, callback, packing=True, packing_strategy="wrapped")
    trainer.train()
    (run,) = load(tmp_path / "probe")
    assert run.phase == "sft"
    assert steps(tmp_path / "probe") == [0, 1, 2]
    logged = trainer.state.log_history[0]
    assert {"squeeze/permuted", "squeeze/held_out/other_answer"} <= set(logged)


def test_data_without_pairs_are_explained_and_trained_on(
    tiny_directory: Path, tmp_path: Path
) -> None:
    callback = SqueezeCallback()
    trainer = sft(tiny_directory, tmp_path, callback)
    with pytest.warns(SqueezeWarning, match=r"watches nothing.*no preference pairs.*pass probe="):
        trainer.train()
    assert trainer.state.global_step == 2
    assert callback.diagnosis is None
    assert not (tmp_path / "squeeze").exists()


def kto(model: Path, out: Path, callback: SqueezeCallback, labels: list[bool]) -> KTOTrainer:
    rows = [
        {"prompt": f"q{i // 2}", "completion": f" answer {i} ", "label": label}
        for i, label in enumerate(labels)
    ]
    args = KTOConfig(output_dir=str(out), max_steps=1, save_strategy="no", **QUIET)
    data = Dataset.from_list(rows)
    return KTOTrainer(str(model), args=args, train_dataset=data, callbacks=[callback])


@pytest.mark.filterwarnings("ignore")  # of KTO about its few rows
def test_kto_prompts_with_both_labels_are_the_probe(tiny_directory: Path, tmp_path: Path) -> None:
    kto(tiny_directory, tmp_path, SqueezeCallback(every=1), [True, False] * 4).train()
    frame = Trajectory.read(tmp_path / "squeeze" / "trajectory.parquet").frame
    assert set(frame["kind"]) == {"chosen", "rejected"}
    assert frame["example"].nunique() == 4
    assert steps(tmp_path / "squeeze") == [0, 1]


@pytest.mark.filterwarnings("ignore")
def test_kto_prompts_with_one_label_each_are_explained(
    tiny_directory: Path, tmp_path: Path
) -> None:
    trainer = kto(tiny_directory, tmp_path, SqueezeCallback(), [True, True, False, False] * 2)
    with pytest.warns(SqueezeWarning, match="no prompt that has both"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_before_the_first_step_nothing_is_judged(watched: Any) -> None:
    first = next(logs for _, logs in watched[1].seen if "squeeze/severity" in logs)
    assert first["squeeze/severity"] == VERDICTS.index("undetermined")


def test_trainer_may_be_passed_as_to_trls_own_callbacks(
    tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> None:
        raise AssertionError("the call stack was walked")

    monkeypatch.setattr("squeeze.diagnosis.callback.calling_trainer", nobody)
    trainer = dpo(tiny_directory, tmp_path, [], max_steps=1)
    trainer.add_callback(SqueezeCallback(PAIRS[:2], every=1, trainer=trainer))
    trainer.train()
    assert steps(tmp_path / "squeeze") == [0, 1]


def test_model_at_the_turn_is_kept_and_can_choose_the_best_checkpoint(
    tiny_directory: Path, tmp_path: Path
) -> None:
    """A rate that first lifts chosen and then drives it down: the peak is inside the training."""
    trainer = dpo(
        tiny_directory,
        tmp_path,
        [SqueezeCallback(every=1, best_at_turn=True)],
        peft_config=LORA,
        learning_rate=2e-2,
        max_steps=5,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="squeeze/held_out/chosen",
    )
    trainer.train()
    frame = Trajectory.read(tmp_path / "squeeze" / "trajectory.parquet").frame
    held_out = frame[(frame["split"] == "held_out") & (frame["kind"] == "chosen")]
    means = held_out.groupby("step")["logp"].mean()
    about = json.loads((tmp_path / "squeeze" / "run.json").read_text())
    assert about["best"]["step"] == means.idxmax()
    assert about["best"]["chosen"] == pytest.approx(means.max(), abs=1e-3)
    trained = means[means.index > 0]
    assert trainer.state.best_metric == pytest.approx(trained.max(), abs=1e-3)
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{trained.idxmax()}")
    if means.idxmax() > 0:
        name = "adapter_model.safetensors"
        kept = (tmp_path / "squeeze" / "best" / name).read_bytes()
        assert kept == (tmp_path / f"checkpoint-{means.idxmax()}" / name).read_bytes()


@pytest.mark.parametrize(
    ("verdicts", "chosen", "acts"),
    [
        ([1, 0, 1, 0, 1], [0, 0, 0, 0, 0], [False] * 5),
        ([1, 1, 1], [-1, -2, -3], [False, True, True]),
        ([1, 1, 1, 1], [-3, -2, -1, -1.5], [False, False, False, True]),
        ([0, 1, 1], [0, -5, -5], [False, False, True]),
    ],
)
def test_alarm_needs_a_row_of_bad_verdicts_without_recovery(
    verdicts: list[int], chosen: list[float], acts: list[bool]
) -> None:
    alarm = Alarm(patience=2)
    pairs = zip(verdicts, chosen, strict=True)
    assert [alarm.add(bool(bad), mean) for bad, mean in pairs] == acts


@pytest.mark.parametrize(("action", "last"), [("stop", 2), ("warn", 4)])
def test_alarm_at_several_probes_in_a_row_warns_once_or_stops(
    action: Any, last: int, tiny_directory: Path, tmp_path: Path
) -> None:
    callback = SqueezeCallback(
        PAIRS[:2], every=1, on_squeeze=action, alarming=VERDICTS[1:], patience=3
    )
    trainer = dpo(tiny_directory, tmp_path, [callback], learning_rate=0.0)
    with pytest.warns(SqueezeWarning, match="step 2: no learning") as caught:
        trainer.train()
    assert len([w for w in caught if w.category is SqueezeWarning]) == 1
    assert trainer.state.global_step == last


def test_model_that_diverges_ends_the_watching_and_not_the_training(
    tiny_directory: Path, tmp_path: Path
) -> None:
    callback = SqueezeCallback(PAIRS[:2], every=1)
    trainer = dpo(tiny_directory, tmp_path, [callback], learning_rate=1e30, max_grad_norm=0)
    with pytest.warns(SqueezeWarning, match="watching ends: the log-prob of example"):
        trainer.train()
    assert trainer.state.global_step == 4
    assert steps(tmp_path / "squeeze")[0] == 0
    about = json.loads((tmp_path / "squeeze" / "run.json").read_text())
    assert "has diverged" in about["not_run"][0]["why"]


def test_healthy_training_is_not_disturbed(tiny_directory: Path, tmp_path: Path) -> None:
    trainer = dpo(tiny_directory, tmp_path, [SqueezeCallback(every=1, on_squeeze="stop")])
    with warnings.catch_warnings():
        warnings.simplefilter("error", SqueezeWarning)
        trainer.train()
    assert trainer.state.global_step == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every must be at least 1"),
        ({"on_squeeze": "panic"}, "'warn' or 'stop', not 'panic'"),
        ({"overhead": 0.0}, "share in"),
        ({"alarming": ["bad"]}, "no verdict is called 'bad'"),
    ],
)
def test_unusable_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SqueezeCallback(**arguments)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ([], "holds no examples"),
        ([PAIRS[0], PAIRS[0]], "twice"),
        ("nowhere.jsonl", "does not exist"),
        ([{"prompt": "a"}], "holds a dict"),
    ],
)
def test_unusable_probe_is_refused_before_the_first_step(
    probe: Any, message: str, tiny_directory: Path
) -> None:
    from squeeze.diagnosis.probe import given_items

    with pytest.raises(InputError, match=message):
        given_items(probe, load_tokenizer(str(tiny_directory)), 8, None)


def test_callback_outside_a_trainer_says_where_it_works() -> None:
    with pytest.raises(InputError, match="inside a transformers or TRL Trainer"):
        SqueezeCallback().on_train_begin(None, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_steps", [3, 10, 40, 1000])
@pytest.mark.parametrize("probe_seconds", [0.01, 1.0, 20.0])
def test_interval_keeps_all_probes_within_the_share_of_time(
    n_steps: int, probe_seconds: float
) -> None:
    pace = Pace(None, 0.1)
    for seconds in (5.0, 1.0, 1.2):
        pace.add_step(seconds)
    pace.every = pace.settle(probe_seconds, n_steps)
    probes = 1 + sum(pace.due(step, n_steps) for step in range(1, n_steps + 1))
    assert probes == 2 or probes * probe_seconds <= 0.1 * n_steps * 1.0
    twice_as_often = 1 + n_steps // max(pace.every // 2, 1)
    assert pace.every == 1 or probes >= 50 or twice_as_often * probe_seconds > 0.1 * n_steps


def test_tensorboard_gets_its_metrics(tiny_directory: Path, tmp_path: Path) -> None:
    reading = "tensorboard.backend.event_processing.event_accumulator"
    reader = pytest.importorskip(reading, reason="tensorboard is not installed")
    callback = SqueezeCallback(every=2, examples=2)
    dpo(tiny_directory, tmp_path, [callback], report_to="tensorboard").train()
    (events,) = tmp_path.glob("**/events.out.tfevents*")
    scalars = reader.EventAccumulator(str(events)).Reload()
    shown = {e.step: e.value for e in scalars.Scalars("train/squeeze/argmax")}
    assert list(shown) == [0, 2, 4]
    assert callback.diagnosis is not None
    logged = callback.diagnosis.run.get("argmax_logp", "train")
    assert logged is not None
    assert list(shown.values()) == pytest.approx(logged.values.tolist(), rel=1e-5)
