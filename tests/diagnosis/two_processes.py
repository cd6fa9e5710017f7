"""A DPO training that two processes share, watched by the callback; started by test_callback_ddp.

Not a test: `torchrun --nproc-per-node 2 two_processes.py MODEL OUT`.
"""

import json
import sys
import warnings
from pathlib import Path

import torch.distributed
from trl import DPOConfig, DPOTrainer

from squeeze import SqueezeCallback
from squeeze.data.loading import load_examples
from squeeze.diagnosis import VERDICTS
from squeeze.training.phases import preference_dataset

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    model, out = sys.argv[1:]
    pairs = load_examples("enthusiastic_en")[:5]
    # Every verdict alarms, so that both processes have to stop at the same step.
    callback = SqueezeCallback(every=1, on_squeeze="stop", alarming=VERDICTS, patience=3)
    args = DPOConfig(
        output_dir=out,
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
    trainer = DPOTrainer(
        model, args=args, train_dataset=preference_dataset(pairs), callbacks=[callback]
    )
    trainer.train()
    history = [line for line in trainer.state.log_history if "squeeze/chosen" in line]
    rank = torch.distributed.get_rank()
    result = {"world": trainer.accelerator.num_processes, "history": history}
    Path(out, f"rank-{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()
