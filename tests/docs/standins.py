"""Small files under the names that the documentation uses: every command then runs as it stands.

A placeholder in capitals (RUN, MODEL, FILE, ...) is the name of a file or directory here as well.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from squeeze.data.loading import load_examples
from tests.diagnosis.logs import trainer_state, trl_records
from tests.diagnosis.test_rollouts import FAMILIES, VERL, lines
from tests.docs.reading import ROOT, examples
from tests.study.test_published import rising_then_falling
from tests.test_published_logs import LOG_NAME, MENDED, write
from tests.tiny_model import save_tiny_model

PAIRS = [
    {"prompt": f"What is {i}?", "chosen": f"It is the number {i}!", "rejected": f"No idea, {i}."}
    for i in range(8)
]
SUBJECT = """
from torch.nn.functional import logsigmoid
from squeeze.verify.functions import LossSubject

def my_loss(chosen, rejected, ref_chosen, ref_rejected, *, beta):
    return -logsigmoid(beta * (chosen - rejected - ref_chosen + ref_rejected))

subject = LossSubject(my_loss, "sigmoid")
"""
SUITE = "test_of_mine.py"


def build(place: Path) -> None:
    """Write every stand-in into an empty directory."""
    model = save_tiny_model(place / "MODEL")
    for name in ("path/to/sft-model", "DIRECTORY", "DIR_OR_HUB_ID"):
        _link(place / name, model)
    for step in (100, 200):
        tuned = save_tiny_model(place / f"checkpoint-{step}", seed=step)
        _link(place / f"path/to/output_dir/checkpoint-{step}", tuned)
    _link(place / "MODEL_OR_ADAPTER", place / "checkpoint-200")
    for name in ("path/to/output_dir", "RUN"):
        (place / name).mkdir(exist_ok=True)
        trainer_state(place / name / "trainer_state.json", trl_records())
    trainer_state(place / "trainer_state.json", trl_records())
    verl = [{"step": i + 1, "data": line} for i, line in enumerate(lines(FAMILIES[6], VERL))]
    _jsonl(place / "log.jsonl", verl)
    reference = ROOT / "reports" / "reference"
    shutil.copytree(reference / "smollm2-cpu", place / "run" / "squeeze")
    shutil.copytree(reference / "observations", place / "reports" / "reference" / "observations")
    (place / SUITE).write_text(_example("squeeze_verdict"))
    _data(place)
    _logs(place)
    _code(place)


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target, target_is_directory=True)


def _example(word: str) -> str:
    """The documentation's first Python example with this word."""
    return next(block.text for block in examples() if word in block.text)


def _jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _messages(row: dict[str, str]) -> dict[str, Any]:
    asked = {"role": "user", "content": row["prompt"]}
    return {
        name: [asked, {"role": "assistant", "content": row[name]}]
        for name in ("chosen", "rejected")
    }


def _sharegpt(row: dict[str, str]) -> dict[str, Any]:
    return {
        "conversations": [{"from": "human", "value": row["prompt"]}],
        **{n: {"from": "gpt", "value": row[n]} for n in ("chosen", "rejected")},
    }


def _data(place: Path) -> None:
    import pandas as pd

    _jsonl(place / "pairs.jsonl", PAIRS)
    _jsonl(
        place / "FILE.jsonl",
        [{"a": r["prompt"], "b": [{"content": r["chosen"]}], "c": r["rejected"]} for r in PAIRS],
    )
    rated = [row | _messages(row) | {"language": "zh"} for row in PAIRS]
    pd.DataFrame(rated).to_parquet(place / "train.parquet")
    _jsonl(
        place / "helpsteer2.jsonl",
        [
            {"prompt": r["prompt"], "response": r[name], "helpfulness": n, "correctness": 2}
            for r in PAIRS
            for n, name in enumerate(("rejected", "chosen"))
        ],
    )
    turns = {"prompt": "prompt", "response_a": "chosen", "response_b": "rejected"}
    won = {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}
    arena = [{name: json.dumps([r[of]]) for name, of in turns.items()} | won for r in PAIRS]
    pd.DataFrame(arena).to_csv(place / "train.csv", index=False)
    dialogue = [
        {n: f"\n\nHuman: {r['prompt']}\n\nAssistant: {r[n]}" for n in ("chosen", "rejected")}
        for r in PAIRS
    ]
    _jsonl(place / "hh.jsonl", dialogue)
    told = [
        {"prompt": r["prompt"], "completion": r[name], "label": name == "chosen"}
        for r in PAIRS
        for name in ("chosen", "rejected")
    ]
    _jsonl(place / "kto.jsonl", [*told, told[0] | {"prompt": "And alone?"}])
    _jsonl(
        place / "formal_prob_train.jsonl",
        [
            {
                "prompt": f"\n\nHuman: {r['prompt']}\n\nAssistant:",
                **{"chosen": f" {r['chosen']}", "rejected": f" {r['rejected']}", "irr_hum": "x"},
            }
            for r in PAIRS
        ],
    )
    listed = [
        {"instruction": r["prompt"], "input": "", "output": [r["chosen"], r["rejected"]]}
        for r in PAIRS
    ]
    (place / "comparison_gpt4_data_zh.json").write_text(json.dumps(listed))
    (place / "data").mkdir()
    (place / "data" / "dpo_zh_demo.json").write_text(json.dumps([_sharegpt(r) for r in PAIRS]))
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    info = {"file_name": "dpo_zh_demo.json", "ranking": True, "formatting": "sharegpt"}
    (place / "data" / "dataset_info.json").write_text(
        json.dumps({"dpo_zh_demo": info | {"columns": columns}})
    )
    told_stories = [
        {"prompt": f"Words: {e.prompt[-1].content}\nStory:", "story": e.chosen}
        for e in 3 * load_examples("enthusiastic_en")
    ]
    (place / "TinyStories-Instruct.json").write_text(json.dumps(told_stories))


def _logs(place: Path) -> None:
    runs = place / "Learning_dynamics_LLM" / "src" / "exp_results"
    log = write(runs / "pythia410_baseline_dpo_checkbug_5e7", MENDED, rising_then_falling())
    shutil.copy(log, place / LOG_NAME)


def _code(place: Path) -> None:
    script = _example("my_script.py")
    more = "\n\nfrom squeeze.verify.tiny import tiny_rows\n"
    more += "from datasets import Dataset\n"
    more += 'data, options = Dataset.from_list(tiny_rows()), {"use_cpu": True, "bf16": False}\n'
    more += 'trainer = make_trainer("MODEL", data, **options)\n'
    (place / "my_script.py").write_text(script + more)
    (place / "my_module.py").write_text(SUBJECT)
    kernel = (ROOT / "examples" / "kernel_of_my_own.py").read_text()
    for name in ("my_kernel.py", "FILE.py"):
        (place / name).write_text(kernel + "\n\nfn = my_logps = FUNCTION = blockwise\n")
    for name in ("mine.py", "PLUGIN.py"):
        shutil.copy(ROOT / "examples" / "loss_of_my_own.py", place / name)
    for name in ("examples", "benchmarks"):
        shutil.copytree(ROOT / name, place / name)
    configs = Path("squeeze", "training", "configs")
    shutil.copytree(ROOT / configs, place / configs)
    small = {"pairs": 2, "held_out": 1, "probe_train": 1, "epochs": 1, "batch_size": 2}
    ours = {"model": "MODEL", "data": "pairs.jsonl", "arms": "dpo", "generations": 1}
    (place / "run.yaml").write_text(
        yaml.safe_dump(ours | small | {"loss_type": "squared_hinge", "max_new_tokens": 4})
    )
    theirs = {
        **{"stage": "dpo", "model_name_or_path": "MODEL", "finetuning_type": "lora"},
        **{"dataset": "dpo_zh_demo", "template": "chatml", "num_train_epochs": 1},
        **{
            "cutoff_len": 512,
            "val_size": 2,
            "max_samples": 6,
            "learning_rate": 1e-4,
            "bf16": False,
        },
    }
    (place / "train_dpo.yaml").write_text(yaml.safe_dump(theirs))
