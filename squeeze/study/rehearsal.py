"""Scale rehearsal: a few steps and one evaluation of a big architecture with random weights.

It tells what the full run takes in memory and time before its weights are downloaded. What the
random model predicts means nothing and is not reported.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from squeeze.data.encoding import TEMPLATES, encode_item
from squeeze.data.examples import PreferenceExample
from squeeze.data.probe_set import build_probe_set
from squeeze.provenance import environment, peak_memory_mb
from squeeze.scoring import score
from squeeze.training.arms import Phase
from squeeze.training.config import RunConfig
from squeeze.training.phase_place import PhasePlace
from squeeze.training.probe_callback import StepCallback
from squeeze.training.runner import phases_key
from squeeze.training.trainers import make_trainer, quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

# Qwen3-4B-Base as its config.json has it.
QWEN3_4B: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
}


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer of single bytes, which needs no download; it makes texts longer than a real one.

    English has about 4 bytes a token of Qwen's, Chinese about 4 to 5: projections are pessimistic.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(symbols)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATES["unmarked"]
    return tokenizer


def rehearse(
    architecture: PretrainedConfig,
    examples: Sequence[PreferenceExample],
    config: RunConfig,
    work: Path,
    steps: int = 8,
) -> dict[str, Any]:
    """Train `steps` optimizer steps of each phase of `config`, evaluate, and project the whole.

    `examples` stand in for the run's `pairs` training pairs. Returns JSON-serialisable seconds a
    step and an evaluated example, peak memory, and the projected hours; `InputError` when an
    example is too long.
    """
    from transformers import AutoModelForCausalLM

    quiet()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weights = getattr(torch, config.weights)
    fast = weights if config.dtype == "auto" else getattr(torch, config.dtype)
    tokenizer = byte_tokenizer()
    with device:
        model = AutoModelForCausalLM.from_config(architecture, dtype=weights)
    parameters = sum(p.numel() for p in model.parameters())
    probe = build_probe_set(examples[:2], [])
    items = [encode_item(tokenizer, item, config.max_length) for item in probe.items]
    # A run keeps the untrained model beside the one it trains; so does this, for its memory.
    untrained = copy.deepcopy(model)
    score(model, items, dtype=fast)  # warms up: the same packs
    start = time.perf_counter()
    score(model, items, dtype=fast)
    per_example = (time.perf_counter() - start) / len(items)

    found: dict[str, float] = {}
    for kind, phase in _phases(config).items():
        rows_a_pair = 2 if phase.on == "chosen+rejected" else 1
        rows = steps * phase.batch_size * phase.accumulation
        pairs = [examples[i % len(examples)] for i in range(-(-rows // rows_a_pair))]
        short = replace(phase, epochs=1)
        ends: list[float] = []
        trainer = make_trainer(
            model,
            tokenizer,
            pairs,
            short,
            config,
            PhasePlace(work / kind),
            [StepCallback(lambda ends=ends: ends.append(_now(device)))],  # type: ignore[misc]
            bf16=fast == torch.bfloat16,
        )
        trainer.train()
        # The first steps allocate and compile; a median, as a batch of another length does so too.
        found[kind] = median(b - a for a, b in pairwise(ends[(len(ends) - 1) // 2 :]))
        model = trainer.model.unload()
    del untrained
    return {
        "parameters": parameters,
        "seconds_per_step": found,
        "seconds_per_evaluated_example": per_example,
        "peak_memory_mb": peak_memory_mb(),
        "projected_hours": projected_hours(config, found, per_example),
        "tokens": "bytes: longer sequences than the real tokenizer's",
        **environment(),
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _phases(config: RunConfig) -> dict[str, Phase]:
    """One phase of each kind."""
    return {phase.kind: phase for arm in config.phase_arms() for phase in arm.phases}


def projected_hours(
    config: RunConfig, seconds_per_step: dict[str, float], seconds_per_example: float
) -> float:
    """Hours that the phases of a run take: their steps, and their evaluations of every prompt.

    A phase that several arms begin with is trained once.
    """
    seconds, seen = 0.0, set[str]()
    evaluated = min(config.probe_train, config.pairs) + config.held_out
    for arm in config.phase_arms():
        for length in range(1, len(arm.phases) + 1):
            key = phases_key(arm.phases[:length])
            if key in seen:
                continue
            seen.add(key)
            phase = arm.phases[length - 1]
            rows = config.pairs * (2 if phase.on == "chosen+rejected" else 1)
            steps = -(-rows // (phase.batch_size * phase.accumulation)) * phase.epochs
            probes = -(-phase.epochs // phase.probe_every)
            seconds += steps * seconds_per_step[phase.kind]
            seconds += probes * evaluated * seconds_per_example
    return (seconds + evaluated * seconds_per_example) / 3600
