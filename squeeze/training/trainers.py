"""One phase of an arm through TRL's own trainers: SFT or DPO, LoRA or all weights, resumable.

The reference of a DPO phase is the model the phase starts from (LoRA: its adapter switched off;
else a copy); what earlier phases learned is in the weights. Arms are `arms`' business.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from squeeze import interrupt
from squeeze.data.examples import PreferenceExample
from squeeze.distributed import main_only, on_main, processes, share_batch
from squeeze.errors import InputError
from squeeze.files import write_json
from squeeze.losses import Loss, get_loss
from squeeze.models import load_model, loading, with_adapter
from squeeze.training.arms import TRAINED_BY_TRL, Phase
from squeeze.training.config import RunConfig
from squeeze.training.loss_trainer import RegisteredLossTrainer
from squeeze.training.phase_place import PhasePlace
from squeeze.training.trl_compat import (
    answers_alone,
    checkpointing,
    restore_on_cpus,
    without_cards,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback


def quiet() -> None:
    """Silence the progress bars and notes of the libraries below; our own stay."""
    import datasets
    import transformers

    os.environ["TQDM_DISABLE"] = "1"
    # Their deprecation notes among themselves are nothing a user of ours can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|trl")
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _turns(example: PreferenceExample) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in example.prompt]


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def preference_dataset(examples: Sequence[PreferenceExample]) -> Dataset:
    """TRL's conversational preference format with explicit prompts."""
    from datasets import Dataset

    return Dataset.from_list(
        [
            {"prompt": _turns(e), "chosen": _answer(e.chosen), "rejected": _answer(e.rejected)}
            for e in examples
        ]
    )


def sft_dataset(examples: Sequence[PreferenceExample], on: str) -> Dataset:
    """TRL's conversational prompt-completion format: chosen answers, and rejected ones if asked."""
    from datasets import Dataset

    rows = []
    for e in examples:
        rows.append({"prompt": _turns(e), "completion": _answer(e.chosen)})
        if on == "chosen+rejected":
            rows.append({"prompt": _turns(e), "completion": _answer(e.rejected)})
    return Dataset.from_list(rows)


def _on_disk(dataset: Dataset, place: PhasePlace) -> Dataset:
    """The data from a directory that several processes read, if there are several.

    TRL's main process hands them the reference log-probs in a file beside the data; data in memory
    has a temporary directory for that, each process its own.
    """
    if processes() == 1:
        return dataset
    from datasets import load_from_disk

    def write() -> None:
        shutil.rmtree(place.data, ignore_errors=True)
        dataset.save_to_disk(place.data)

    on_main(write)
    found: Dataset = load_from_disk(place.data)
    return found


def lora_config(config: RunConfig) -> LoraConfig:
    """PEFT's configuration of the run's adapter."""
    from peft import LoraConfig

    targets = config.lora_targets
    return LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets if targets == "all-linear" else targets.split(","),
        task_type="CAUSAL_LM",
    )


def trainer_arguments(
    phase: Phase, config: RunConfig, place: PhasePlace, bf16: bool
) -> dict[str, Any]:
    """The fields of TRL's configurations that SFT and DPO share."""
    batch_size, accumulation = share_batch(phase.batch_size, phase.accumulation)
    return {
        "output_dir": str(place.directory),
        "num_train_epochs": phase.epochs,
        "learning_rate": phase.learning_rate,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
        "lr_scheduler_type": phase.schedule,
        "warmup_steps": phase.warmup,  # below 1: a share of all steps
        "weight_decay": phase.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        **checkpointing(config.gradient_checkpointing),
        "bf16": bf16,
        "use_cpu": not torch.cuda.is_available(),
        "seed": config.seed,
        "data_seed": config.seed,
        "max_length": config.max_length,
        "save_strategy": "no",  # but when `ProbeCallback` asks
        "save_total_limit": None,  # `PhasePlace` keeps the newest by step, where TRL goes by clock
        "logging_strategy": "steps",
        "logging_steps": 1,
        "report_to": "none",
        "ddp_find_unused_parameters": False,  # every part of the adapter has a gradient
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


@answers_alone()
def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[PreferenceExample],
    phase: Phase,
    config: RunConfig,
    place: PhasePlace,
    callbacks: Sequence[TrainerCallback],
    bf16: bool,
) -> Any:
    """TRL's trainer for one phase, of `model`'s weights or of a fresh LoRA adapter on it."""
    from transformers import PrinterCallback, set_seed
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    set_seed(config.seed)
    arguments = trainer_arguments(phase, config, place, bf16)
    common: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "peft_config": lora_config(config) if config.finetuning == "lora" else None,
        "callbacks": list(callbacks),
    }
    if phase.kind == "sft":
        args = SFTConfig(**arguments)
        trainer = SFTTrainer(
            args=args, train_dataset=_on_disk(sft_dataset(examples, phase.on), place), **common
        )
    else:
        common["train_dataset"] = _on_disk(preference_dataset(examples), place)
        common["ref_model"] = reference(config, model)
        arguments |= {
            "beta": phase.beta,
            "precompute_ref_log_probs": True,
            # Without gradients, a few batches at once need no more memory than one in training.
            "precompute_ref_batch_size": 4 * arguments["per_device_train_batch_size"],
        }
        loss = get_loss(phase.loss_type)
        options = loss_options(loss, phase)
        if loss.name in TRAINED_BY_TRL:  # their hyper-parameters have its names
            own = {**TRAINED_BY_TRL[loss.name], **loss.hyperparameters, **options}
            trainer = DPOTrainer(args=DPOConfig(**arguments | own), **common)
        else:
            trainer = RegisteredLossTrainer(
                args=DPOConfig(**arguments), loss=loss, loss_options=options, **common
            )
        trainer.ref_model = None  # its log-probs are in the data now
    trainer.remove_callback(PrinterCallback)
    return trainer


def load_merged(name: str, adapters: str | None) -> PreTrainedModel:
    """Load a model and merge adapters (directories, with commas) into its weights, in order.

    Raises `InputError` naming the model or the adapter that cannot be loaded.
    """
    model: Any = load_model(name)
    for path in adapter_paths(adapters):
        if not (Path(path) / "adapter_config.json").is_file():
            raise InputError(
                f"adapter {path!r} is no directory with adapter_config.json; give the directory "
                "that PEFT's save_pretrained wrote"
            )
        with loading(path):
            model = with_adapter(model, path).merge_and_unload()
    return model  # type: ignore[no-any-return]


def adapter_paths(adapters: str | None) -> list[str]:
    """The directories of a list with commas."""
    return [path.strip() for path in (adapters or "").split(",") if path.strip()]


def reference(config: RunConfig, start: PreTrainedModel) -> PreTrainedModel | None:
    """The reference that the configuration names, or else the model that the phase starts from.

    That is None with LoRA (the adapter switched off) and a copy without: TRL would load the
    pretrained model anew, which a phase after SFT does not start from.
    """
    if config.ref_model is None:
        return None if config.finetuning == "lora" else copy.deepcopy(start)
    return load_merged(config.ref_model, config.ref_model_adapters)


def loss_options(loss: Loss, phase: Phase) -> dict[str, Any]:
    """A phase's hyper-parameters for a registered loss: β (IPO's τ) and its own `loss_options`."""
    names = [name for name in ("beta", "tau") if name in loss.hyperparameters]
    return dict.fromkeys(names[:1], phase.beta) | dict(phase.loss_options)


def _finite(row: dict[str, float]) -> dict[str, float | None]:
    """A row of the trainer's log for strict JSON, which has no NaN."""
    return {key: value if math.isfinite(value) else None for key, value in row.items()}


@answers_alone()
def train_phase(trainer: Any, place: PhasePlace, resume_step: int | None) -> None:
    """Train to the end, from a checkpoint if told; store TRL's log and, last, what was learned.

    Raises `Interrupted` where a signal ended the training before; its last step is saved then.
    """
    checkpoint = str(place.checkpoint(resume_step)) if resume_step else None
    if checkpoint:
        restore_on_cpus()
    with without_cards(trainer):
        trainer.train(resume_from_checkpoint=checkpoint)
        if trainer.state.global_step < trainer.state.max_steps:
            interrupt.stop_if_requested()
        _store(trainer, place)


@main_only
def _store(trainer: Any, place: PhasePlace) -> None:
    write_json(place.directory / "log.json", [_finite(row) for row in trainer.state.log_history])
    scratch = place.directory / "adapter.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    trainer.model.save_pretrained(scratch)
    scratch.rename(place.adapter)
    place.keep_until(None)
    shutil.rmtree(place.data, ignore_errors=True)


def merge_adapter(model: PreTrainedModel, place: PhasePlace) -> PreTrainedModel:
    """The model with a finished phase's adapter merged into its weights, or with its weights."""
    from peft import PeftModel

    if not (place.adapter / "adapter_config.json").exists():  # all weights were trained
        trained: Any = load_model(str(place.adapter))
        return trained.to(device=model.device, dtype=model.dtype)  # type: ignore[no-any-return]
    tuned: Any = PeftModel.from_pretrained(model, str(place.adapter))
    return tuned.merge_and_unload()  # type: ignore[no-any-return]
