"""Tiny real model, tokenizer and pairs: what a trainer is verified with when nothing else is given.

transformers' own architectures with random weights and a byte-level BPE, made here, so that nothing
is downloaded and every check takes seconds on a CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from squeeze.data.encoding import TEMPLATES
from squeeze.data.loading import load_examples

VOCABULARY = 400

# Answers of different lengths, the chosen one the longer in half of the pairs.
_PAIRS = (
    ("Name a planet.", "Mars, the red one.", "No."),
    ("What is two plus two?", "Four.", "It might well be five, who knows?"),
    ("Say hello.", "Hello! How are you today?", "Go away."),
    ("Is the sky green?", "No, blue.", "Yes, it is as green as grass."),
)


def tiny_rows() -> list[dict[str, Any]]:
    """Four preference pairs in TRL's conversational format with explicit prompts."""
    return [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for prompt, chosen, rejected in _PAIRS
    ]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the embedded data, with the ChatML template."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([e.chosen for e in load_examples("enthusiastic_en")], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATES["chatml"]
    return tokenizer


def tiny_model(family: str = "llama", seed: int = 0, **options: Any) -> torch.nn.Module:
    """A randomly initialised model of one of three families, far from uniform predictions."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    } | options
    model: Any
    if family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape))
    elif family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**shape))
    else:
        model = Gemma3ForCausalLM(Gemma3TextConfig(**shape))
    found: torch.nn.Module = model.eval()
    return found


def save_tiny(directory: Path, family: str = "llama", **options: Any) -> Path:
    """Write model and tokenizer as `save_pretrained` does, in sharded safetensors with an index."""
    model: Any = tiny_model(family, **options)
    model.save_pretrained(directory, max_shard_size="60KB")
    tiny_tokenizer().save_pretrained(directory)
    return directory
