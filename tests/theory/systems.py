"""The models, real digit images and token sequences on which the decomposition is checked.

All in float64, seeded, and small enough for dense kernels. Used by the checks and by the tests
that the checks can fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from peft import LoraConfig, get_peft_model
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from squeeze.claims.decomposition import System
from squeeze.theory.decomposition import UpdateTerm, logp_residual
from squeeze.theory.entk import (
    Logits,
    module_logits,
    response_positions,
    sequence_logits,
    trainable_parameters,
)

VOCAB = 13
N_PROMPT = 3


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's 1797 digit images, float64 [n, 1, 8, 8] in [0, 1], and their labels."""
    bunch = load_digits()
    return torch.tensor(bunch.images / 16)[:, None], torch.tensor(bunch.target)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10))


def convolutional() -> nn.Module:
    """A smooth net: a kink of ReLU or max-pooling crossed by the step would be no O(η²) error."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def digit_system(name: str, build: Callable[[], nn.Module], seed: int) -> System:
    """Six observed images; a step that raises the labels of three others and lowers a fourth's."""
    torch.manual_seed(seed)
    model = build().double().eval()
    images, labels = digits()
    chosen, rejected, observed = torch.randperm(len(images))[:10].split([3, 1, 6])
    terms = [
        UpdateTerm(module_logits(model, images[chosen]), logp_residual(labels[chosen], -1.0)),
        UpdateTerm(module_logits(model, images[rejected]), logp_residual(labels[rejected], 0.5)),
    ]
    return System(
        name, module_logits(model, images[observed]), terms, trainable_parameters(model), seed
    )


def transformer(seed: int) -> nn.Module:
    """A Qwen3 of two layers and random weights."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    # transformers' RMSNorm rounds to float32 whatever the model's dtype; torch's does not.
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "Qwen3RMSNorm":
                norm = nn.RMSNorm(len(child.weight), eps=child.variance_epsilon)
                setattr(parent, name, norm)
    return model.double().eval()


def with_lora(model: nn.Module) -> nn.Module:
    """Attach LoRA adapters (rank 2) whose second factor is no longer zero."""
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)
    return adapted.double().eval()


def sequence(model: nn.Module, ids: Tensor, causal: bool = True) -> Logits:
    """The logits that predict the response, after a prompt of three tokens."""
    positions = response_positions(N_PROMPT, len(ids))
    if causal:
        return sequence_logits(model, ids, positions)
    everywhere = torch.zeros(1, 1, len(ids), len(ids), dtype=torch.float64)
    return sequence_logits(model, ids, positions, attention_mask=everywhere)


def sequence_system(name: str, model: nn.Module, seed: int) -> System:
    """A preference pair's step (five chosen, four rejected tokens), seen on six other tokens."""
    generator = torch.Generator().manual_seed(seed)
    chosen, rejected, observed = (
        torch.randint(VOCAB, (N_PROMPT + n,), generator=generator) for n in (5, 4, 6)
    )
    terms = [
        UpdateTerm(sequence(model, chosen), logp_residual(chosen[N_PROMPT:], -0.5), "chosen"),
        UpdateTerm(sequence(model, rejected), logp_residual(rejected[N_PROMPT:], 0.5), "rejected"),
    ]
    return System(name, sequence(model, observed), terms, trainable_parameters(model), seed)


def with_later_tokens_replaced(causal: bool) -> tuple[System, System, int]:
    """A system, the same with other tokens late in the observed sequence, and how many rows agree.

    Position p has seen the tokens up to p: of six response positions 2 … 7, those up to 4 have seen
    the first five tokens, which both sequences share.
    """
    model = transformer(0)
    name = "causal transformer" if causal else "transformer without a mask"
    system = sequence_system(name, model, 0)
    ids = torch.randint(VOCAB, (N_PROMPT + 6,), generator=torch.Generator().manual_seed(1))
    other = torch.cat([ids[:5], (ids[5:] + 1) % VOCAB])
    ours, theirs = (
        replace(system, observed=sequence(model, tokens, causal)) for tokens in (ids, other)
    )
    return ours, theirs, 3


SYSTEMS: dict[str, Callable[[int], System]] = {
    "linear model": lambda seed: digit_system("linear model", linear, seed),
    "MLP": lambda seed: digit_system("MLP", mlp, seed),
    "convolutional net": lambda seed: digit_system("convolutional net", convolutional, seed),
    "transformer": lambda seed: sequence_system("transformer", transformer(seed), seed),
    "transformer with LoRA": lambda seed: sequence_system(
        "transformer with LoRA", with_lora(transformer(seed)), seed
    ),
}
