"""Pretraining of the tiny language model on the grammar's text, once; later calls reuse it.

The directory is laid out as by `save_pretrained`, so that it loads as any local model does.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from squeeze.cache import cache_directory, kept
from squeeze.study.tiny_lm.grammar import Text, corpus, vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

SPECIAL = ["<pad>", "<unk>", "<eos>", "<user>", "<assistant>"]
PAD, UNKNOWN, EOS, USER, ASSISTANT = SPECIAL
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %} {{ eos_token }}{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ARCHITECTURE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
}


@dataclass(frozen=True)
class Recipe:
    """How the tiny model is pretrained; `batch_size` counts texts, the schedule is one cycle."""

    steps: int = 220
    batch_size: int = 32
    learning_rate: float = 4e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    seed: int = 0


RECIPE = Recipe()
WINDOW = 4  # batches in which texts are sorted by length


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, split at spaces."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(SPECIAL + vocabulary())}
    inner = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=EOS,
        extra_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """The untrained model: transformers' Qwen3 of about a million parameters."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **ARCHITECTURE,
    )
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config)


def rendered(text: Text) -> str:
    """A text as the model reads it: in the chat's layout, or a sentence by itself."""
    if text.question is None:
        return f"{text.answer} {EOS}"
    return f"{USER} {text.question} {ASSISTANT} {text.answer} {EOS}"


def _batches(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> list[Int[Tensor, "batch length"]]:
    """The pretraining text as padded token ids, a batch a step.

    Texts of a few batches are sorted by length, which saves a third of the tokens: padding.
    """
    texts = [rendered(text) for text in corpus(recipe.steps * recipe.batch_size, recipe.seed)]
    ids = [torch.tensor(row) for row in tokenizer(texts)["input_ids"]]
    size, batches = recipe.batch_size, []
    for start in range(0, len(ids), WINDOW * size):
        rows = sorted(ids[start : start + WINDOW * size], key=len)
        window = [rows[i : i + size] for i in range(0, len(rows), size)]
        random.Random(start).shuffle(window)
        batches += window
    pad = float(tokenizer.pad_token_id)
    pad_sequence = torch.nn.utils.rnn.pad_sequence
    return [pad_sequence(rows, batch_first=True, padding_value=pad) for rows in batches]


def pretrain(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe = RECIPE
) -> tuple[Qwen3ForCausalLM, list[float]]:
    """Train from scratch in one pass over the text; returns the model and its loss at every step.

    Loss in nats a token. The caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        model = make_model(tokenizer, recipe.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        total_steps=recipe.steps,
        pct_start=recipe.warmup,
        cycle_momentum=False,
        final_div_factor=1e3,
    )
    losses = []
    for ids in _batches(tokenizer, recipe):
        padding = ids == tokenizer.pad_token_id
        loss = model(
            input_ids=ids, attention_mask=~padding, labels=ids.masked_fill(padding, -100)
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return model.eval(), losses


@functools.cache
def checkpoint_key(recipe: Recipe = RECIPE) -> str:
    """Hash of all that the weights depend on: text, architecture, recipe and torch's version."""
    sample = "\n".join(rendered(text) for text in corpus(2000, recipe.seed))
    parts = [sample, SPECIAL, vocabulary(), TEMPLATE, ARCHITECTURE, asdict(recipe)]
    value = json.dumps([*parts, torch.__version__], sort_keys=True)
    return hashlib.sha256(value.encode()).hexdigest()[:16]


def tiny_lm() -> Path:
    """The directory of the pretrained tiny model, trained on first use (some 20 s on one core).

    Safe when several processes call it at once: one trains, the others wait.
    """

    def make(scratch: Path) -> None:
        tokenizer = make_tokenizer()
        model, _ = pretrain(tokenizer)
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)

    return kept(cache_directory() / "tinylm" / checkpoint_key(), make)
