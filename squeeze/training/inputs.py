"""Inputs of a run: pairs that fit the model, the encoded probe set, the pretrained model.

Shared by the main job (`replicate`) and by claims and comparisons (`study.seed_run`), so that every
field of `RunConfig` that concerns data and model means the same in both. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from squeeze.data.encoding import EncodedItem, encode_item, encode_prompt, with_system
from squeeze.data.examples import PreferenceExample
from squeeze.data.loading import load_examples, split, split_validation
from squeeze.data.probe_set import ProbeItem, build_probe_set
from squeeze.errors import InputError
from squeeze.training.config import RunConfig
from squeeze.training.trainers import load_merged

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Pairs:
    """The pairs of a run: trained on, and held out."""

    train: Sequence[PreferenceExample]
    held_out: Sequence[PreferenceExample]

    @classmethod
    def of(cls, config: RunConfig) -> Pairs:
        """The main job's pairs under this configuration."""
        examples = load_examples(
            config.data,
            None if config.data_format == "auto" else config.data_format,
            max_samples=config.max_samples,
            demonstrations=config.demonstrations,
        )
        if config.val_size is None:
            parts = split(examples, config.pairs, config.held_out, seed=config.data_seed)
        else:
            parts = split_validation(examples, config.val_size, config.held_out, config.data_seed)
        return cls(*[[with_system(e, config.system) for e in part] for part in parts])

    def fitting(self, tokenizer: PreTrainedTokenizerBase, config: RunConfig) -> Pairs:
        """With `too_long: cut`, those whose prompt leaves room for an answer, as TRL keeps them.

        Raises `InputError` when no pair of a part is left.
        """
        if config.too_long != "cut":
            return self
        limit = config.max_length

        def kept(examples: Sequence[PreferenceExample]) -> Sequence[PreferenceExample]:
            fit = [e for e in examples if len(encode_prompt(tokenizer, e.prompt)) < limit]
            if examples and not fit:
                raise InputError(
                    f"every prompt takes {limit} tokens or more; raise --max-length (cutoff_len)"
                )
            return fit

        return Pairs(kept(self.train), kept(self.held_out))

    def __len__(self) -> int:
        return len(self.train) + len(self.held_out)


def encode(tokenizer: PreTrainedTokenizerBase, item: ProbeItem, config: RunConfig) -> EncodedItem:
    """Tokenize an item; answers beyond `max_length` are cut or refused, as `too_long` says."""
    return encode_item(tokenizer, item, config.max_length, cut=config.too_long == "cut")


def probe_items(
    tokenizer: PreTrainedTokenizerBase, pairs: Pairs, config: RunConfig
) -> list[EncodedItem]:
    """The probe set of these pairs, tokenized; raises `InputError` as `encode_item` does."""
    train, held_out = list(pairs.train), list(pairs.held_out)
    probe = build_probe_set(train, held_out, config.data_seed, config.probe_train)
    return [encode(tokenizer, item, config) for item in probe.items]


def pretrained(config: RunConfig) -> PreTrainedModel:
    """The model with `adapters` merged, its frozen `weights` in their type, on the GPU if any.

    Raises `InputError` where the run asks of the model what it has not: LoRA targets, positions.
    """
    model: Any = load_merged(config.model, config.adapters)
    if config.finetuning == "lora":
        _require_targets(model, config.lora_targets)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and config.max_length > limit:
        raise InputError(
            f"--max-length {config.max_length} is more than the {limit} tokens that "
            f"{config.model} can read"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = config.weights if config.finetuning == "lora" else "float32"
    return model.to(device=device, dtype=getattr(torch, weights))  # type: ignore[no-any-return]


def _require_targets(model: PreTrainedModel, targets: str) -> None:
    """Raise `InputError` unless every LoRA target is the name of a layer with a weight matrix."""
    found = model.named_modules()
    layers = {n: layer for n, layer in found if getattr(getattr(layer, "weight", 0), "ndim", 0) > 1}
    for target in () if targets == "all-linear" else targets.split(","):
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            linear = [name for name, layer in layers.items() if isinstance(layer, torch.nn.Linear)]
            known = dict.fromkeys(name.rpartition(".")[2] for name in linear)
            raise InputError(
                f"--lora-targets: the model has no layer {target!r}; choose all-linear, or of "
                f"{', '.join(known)}"
            )
