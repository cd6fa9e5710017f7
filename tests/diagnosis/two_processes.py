"""A DPO training that two processes share and the callback watches; see `test_callback_ddp`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.training.processes import run_pair


def run(model: Path, out: Path, **options: object) -> None:
    """Train in two processes, which leave rank-0.json and rank-1.json in `out`.

    `options` are the training's own. Raises `RuntimeError` with what they printed if one fails.
    """
    run_pair(_train, out, model, options, preload="trl.trainer.dpo_trainer")


def _train(out: Path, rank: int, model: Path, options: dict[str, object]) -> None:
    if "deepspeed" in options:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import torch
    from trl import DPOConfig, DPOTrainer

    from squeeze import SqueezeCallback
    from squeeze.data.loading import load_examples
    from squeeze.diagnosis import VERDICTS
    from squeeze.distributed import leave
    from squeeze.training.trainers import preference_dataset

    torch.set_num_threads(1)
    # Every verdict alarms, so that both processes have to stop at the same step, the first.
    callback = SqueezeCallback(every=1, on_squeeze="stop", alarming=VERDICTS, patience=1)
    args = DPOConfig(
        output_dir=str(out),
        max_steps=6,
        per_device_train_batch_size=1,
        learning_rate=1e-3,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        **options,
    )
    pairs = preference_dataset(load_examples("enthusiastic_en")[:5])
    trainer = DPOTrainer(str(model), args=args, train_dataset=pairs, callbacks=[callback])
    trainer.train()
    history = [line for line in trainer.state.log_history if "squeeze/chosen" in line]
    result = {"world": trainer.accelerator.num_processes, "history": history}
    (out / f"rank-{rank}.json").write_text(json.dumps(result))
    leave()
    # No destructors: DDP's waits with the interpreter's lock for a thread of gloo that wants it.
    sys.stdout.flush()
    os._exit(0)
