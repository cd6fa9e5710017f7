"""A DPO training that two processes share, watched by the callback; `test_callback_ddp` starts it.

A fork server imports torch, transformers and TRL once for both processes, which torchrun cannot.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import warnings
from pathlib import Path

from tests.training.processes import PATIENCE, environment, free_port


def run(model: Path, out: Path) -> None:
    """Train in two processes, which leave rank-0.json and rank-1.json in `out`.

    Raises `RuntimeError` with what they printed if one of them fails.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trl.trainer.dpo_trainer", "squeeze", __name__])
    port = free_port()
    processes = [
        context.Process(target=_train, args=(model, out, rank, port), daemon=True)
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    if [process.exitcode for process in processes] != [0, 0]:
        raise RuntimeError("\n".join(path.read_text()[-3000:] for path in out.glob("rank-*.out")))


def _train(model: Path, out: Path, rank: int, port: int) -> None:
    os.environ |= environment(rank, 2, port)
    output = os.open(out / f"rank-{rank}.out", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, sys.__stdout__.fileno())
    os.dup2(output, sys.__stderr__.fileno())
    warnings.simplefilter("ignore")
    import torch
    from trl import DPOConfig, DPOTrainer

    from squeeze import SqueezeCallback
    from squeeze.data.loading import load_examples
    from squeeze.diagnosis import VERDICTS
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
    )
    pairs = preference_dataset(load_examples("enthusiastic_en")[:5])
    trainer = DPOTrainer(str(model), args=args, train_dataset=pairs, callbacks=[callback])
    trainer.train()
    history = [line for line in trainer.state.log_history if "squeeze/chosen" in line]
    result = {"world": trainer.accelerator.num_processes, "history": history}
    (out / f"rank-{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()
