"""The story model's trainings: from scratch by transformers, then by the main job's trainers.

All weights are trained, in float32. A story stands in its prompt's chat as it is: the template adds
nothing but the end of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from squeeze.data.examples import Message, PreferenceExample
from squeeze.study.stories.generator import Story
from squeeze.study.stories.recipe import Schedule, StoryRecipe
from squeeze.training.arms import Phase
from squeeze.training.config import RunConfig
from squeeze.training.phase_place import PhasePlace
from squeeze.training.trainers import trainer_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

END, PAD = "<|endoftext|>", "<|pad|>"
TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
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
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, pad_token=PAD)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


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


def load(place: PhasePlace) -> PreTrainedModel:
    """The model that a finished phase left in its directory."""
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(place.adapter, dtype=torch.float32)
    return model.to(device)  # type: ignore[no-any-return]


def examples(
    stories: Sequence[Story], rejected: Sequence[str] | None = None
) -> list[PreferenceExample]:
    """The stories as chosen answers to their prompts, with rejected ones if there are any."""
    worse = rejected if rejected is not None else [""] * len(stories)
    return [
        PreferenceExample(str(i), (Message("user", s.prompt),), s.text, text)
        for i, (s, text) in enumerate(zip(stories, worse, strict=True))
    ]


def sft_phase(schedule: Schedule) -> Phase:
    """SFT on the stories; of pretraining too, whose data are its own."""
    s = schedule
    return Phase("sft", "chosen", s.epochs, s.learning_rate, s.batch_size, warmup=0.05)


def dpo_phase(recipe: StoryRecipe, rejected_weight: float) -> Phase:
    """DPO; a `rejected_weight` other than 1 scales the gradient through the rejected stories."""
    phase = replace(sft_phase(recipe.dpo), kind="dpo", on="pairs", beta=recipe.beta)
    if rejected_weight == 1.0:
        return phase
    options = {"rejected_weight": rejected_weight}
    return replace(phase, loss_type="weighted_sigmoid", loss_options=options)


def run_config(recipe: StoryRecipe) -> RunConfig:
    """What the phases share. Nothing is cut: a rejected story may be longer than those given."""
    longest = recipe.max_length + recipe.max_new_tokens
    return RunConfig(seed=recipe.seed, max_length=longest, finetuning="full", dtype="float32")


def pretrainer(
    model: Any,
    tokenizer: Any,
    stories: Sequence[Story],
    recipe: StoryRecipe,
    place: PhasePlace,
    callbacks: Sequence[TrainerCallback],
) -> Any:
    """transformers' trainer on instructions and stories, end to end in blocks."""
    from datasets import Dataset
    from transformers import PrinterCallback, Trainer, TrainingArguments, default_data_collator

    texts = (tokenizer(s.prompt + s.text)["input_ids"] for s in stories)
    ids = [i for text in texts for i in [*text, tokenizer.eos_token_id]]
    blocks = [ids[i : i + _BLOCK] for i in range(0, len(ids) - _BLOCK + 1, _BLOCK)]
    rows = Dataset.from_list([{"input_ids": block, "labels": block} for block in blocks])
    given = trainer_arguments(sft_phase(recipe.pretraining), run_config(recipe), place, bf16=False)
    del given["max_length"]  # TRL's alone
    trainer = Trainer(
        model,
        TrainingArguments(**given),
        data_collator=default_data_collator,
        train_dataset=rows,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
