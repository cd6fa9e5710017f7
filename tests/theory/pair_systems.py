"""The models and preference pairs on which gradient entanglement is checked, in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from squeeze.claims.policy_gradient_checks import PairSystem
from squeeze.theory.entk import module_logits, trainable_parameters
from tests.theory.systems import (
    N_PROMPT,
    VOCAB,
    convolutional,
    digits,
    linear,
    mlp,
    sequence,
    transformer,
    with_lora,
)


def digit_pair(name: str, build: Callable[[], nn.Module], seed: int) -> PairSystem:
    """One image's label raised, another's lowered."""
    torch.manual_seed(seed)
    model = build().double().eval()
    images, labels = digits()
    chosen, rejected = torch.randperm(len(images))[:2].split(1)
    return PairSystem(
        name,
        module_logits(model, images[chosen]),
        labels[chosen],
        module_logits(model, images[rejected]),
        labels[rejected],
        trainable_parameters(model),
    )


def sequence_pair(name: str, model: nn.Module, seed: int) -> PairSystem:
    """Two answers to one prompt, of five and four tokens."""
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(VOCAB, (N_PROMPT,), generator=generator)
    chosen, rejected = (
        torch.cat([prompt, torch.randint(VOCAB, (n,), generator=generator)]) for n in (5, 4)
    )
    return PairSystem(
        name,
        sequence(model, chosen),
        chosen[N_PROMPT:],
        sequence(model, rejected),
        rejected[N_PROMPT:],
        trainable_parameters(model),
    )


PAIRS: dict[str, Callable[[int], PairSystem]] = {
    "linear model": lambda seed: digit_pair("linear model", linear, seed),
    "MLP": lambda seed: digit_pair("MLP", mlp, seed),
    "convolutional net": lambda seed: digit_pair("convolutional net", convolutional, seed),
    "transformer": lambda seed: sequence_pair("transformer", transformer(seed), seed),
    "transformer with LoRA": lambda seed: sequence_pair(
        "transformer with LoRA", with_lora(transformer(seed)), seed
    ),
}
