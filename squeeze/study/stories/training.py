"""The story model and its four trainings: from scratch by transformers, then TRL's SFT and DPO.

All weights are trained, in float32. Each phase ends in a directory with its model, written last, so
what exists is complete; a phase that was stopped goes on from its newest checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from squeeze import interrupt
from squeeze.files import write_json
from squeeze.study.stories.generator import Story
from squeeze.study.stories.recipe import Schedule, StoryRecipe
from squeeze.training.phase_place import PhasePlace, is_whole
from squeeze.training.trl_compat import checkpointing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

END, PAD = "<|endoftext|>", "<|pad|>"
_BLOCK = 128  # tokens of a pretraining row


def make_tokenizer(stories: Sequence[Story], vocabulary: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE of at most `vocabulary` tokens, trained on the stories and their prompts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([s.prompt + s.text for s in stories], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, pad_token=PAD)


def make_model(tokenizer: PreTrainedTokenizerBase, recipe: StoryRecipe) -> PreTrainedModel:
    """A Qwen3 with random weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(recipe.seed)
    heads = max(recipe.hidden_size // 48, 2)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden_size,
            intermediate_size=10 * recipe.hidden_size // 3,
            num_hidden_layers=recipe.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads // 2,
            head_dim=48,
            max_position_embeddings=2 * recipe.max_length,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def load(place: Path) -> PreTrainedModel:
    """The model that a finished phase left in its directory."""
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(place / "model", dtype=torch.float32)
    return model.to(device)  # type: ignore[no-any-return]


class Watch(TrainerCallback):
    """Call `stepped()` after every update and `epoch_ended(epoch, model)` after every epoch.

    The latter comes before the epoch's checkpoint, so a checkpoint implies what it has written.
    """

    def __init__(
        self,
        stepped: Callable[[], None],
        epoch_ended: Callable[[int, Any], None] = lambda epoch, model: None,
    ) -> None:
        self.stepped, self.epoch_ended = stepped, epoch_ended

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tick for the updates of a resumed phase that were made before."""
        for _ in range(state.global_step):
            self.stepped()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tick; save and end the training if a signal asks for it."""
        self.stepped()
        if interrupt.requested():
            control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the model, unless a signal ended the epoch before its end."""
        if abs(state.epoch - round(state.epoch)) < 1e-6:
            self.epoch_ended(round(state.epoch), kwargs["model"])


def arguments(schedule: Schedule, recipe: StoryRecipe, place: Path) -> dict[str, Any]:
    """What the trainers of all phases are told."""
    return {
        "output_dir": str(place),
        "num_train_epochs": schedule.epochs,
        "learning_rate": schedule.learning_rate,
        "per_device_train_batch_size": schedule.batch_size,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.05,  # below 1: a share of all steps
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        **checkpointing(False),
        "save_strategy": "epoch",
        # The newest may be half written when the run is killed.
        "save_total_limit": 2,
        "logging_strategy": "epoch",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def pretrainer(
    model: Any, tokenizer: Any, stories: Sequence[Story], recipe: StoryRecipe, place: Path
) -> Any:
    """transformers' trainer on instructions and stories, end to end in blocks."""
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments, default_data_collator

    texts = (tokenizer(s.prompt + s.text)["input_ids"] for s in stories)
    ids = [i for text in texts for i in [*text, tokenizer.eos_token_id]]
    blocks = [ids[i : i + _BLOCK] for i in range(0, len(ids) - _BLOCK + 1, _BLOCK)]
    rows = Dataset.from_list([{"input_ids": block, "labels": block} for block in blocks])
    args = TrainingArguments(**arguments(recipe.pretraining, recipe, place))
    return Trainer(model, args, data_collator=default_data_collator, train_dataset=rows)


def sft_trainer(
    model: Any, tokenizer: Any, stories: Sequence[Story], recipe: StoryRecipe, place: Path
) -> Any:
    """TRL's SFTTrainer on instruction → story."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"prompt": s.prompt, "completion": s.text} for s in stories])
    args = SFTConfig(**arguments(recipe.sft, recipe, place), max_length=None)
    return SFTTrainer(model, args, train_dataset=rows, processing_class=tokenizer)


def dpo_trainer(
    model: Any,
    tokenizer: Any,
    stories: Sequence[Story],
    rejected: Sequence[str],
    recipe: StoryRecipe,
    place: Path,
    rejected_weight: float = 1.0,
) -> Any:
    """TRL's DPOTrainer against the model as it is given.

    A `rejected_weight` other than 1 scales the gradient through the rejected stories.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [
        {"prompt": s.prompt, "chosen": s.text, "rejected": worse}
        for s, worse in zip(stories, rejected, strict=True)
    ]
    args = DPOConfig(
        **arguments(recipe.dpo, recipe, place),
        beta=recipe.beta,
        max_length=None,
        precompute_ref_log_probs=True,
    )
    common: dict[str, Any] = {
        "model": model,
        "args": args,
        "train_dataset": Dataset.from_list(rows),
        "processing_class": tokenizer,
    }
    if rejected_weight == 1.0:
        return DPOTrainer(**common)
    from squeeze.losses import get_loss
    from squeeze.training.loss_trainer import RegisteredLossTrainer

    options = {"beta": recipe.beta, "rejected_weight": rejected_weight}
    return RegisteredLossTrainer(**common, loss=get_loss("weighted_sigmoid"), loss_options=options)


def train(trainer: Any, place: Path, watch: Watch) -> None:
    """Train to the end, from the newest whole checkpoint if there is one; store log and model."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch)
    phase = PhasePlace(place)
    whole = [step for step in phase.steps() if is_whole(phase.checkpoint(step), step)]
    phase.keep_until(max(whole, default=None))
    trainer.train(resume_from_checkpoint=str(phase.checkpoint(whole[-1])) if whole else None)
    if trainer.state.global_step < trainer.state.max_steps:
        interrupt.stop_if_requested()
    write_json(place / "log.json", trainer.state.log_history)
    scratch = place / "model.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(scratch)
    scratch.rename(place / "model")
    phase.keep_until(None)
