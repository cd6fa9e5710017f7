"""DPO by hand on a toy Llama: one prompt, one good response, two bad ones of different lengths.

Policy and reference are the same random model, so every log-ratio is 0 and the loss is ln 2.
Run it: python examples/toy_llama_dpo.py
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from squeeze.losses import packed_loss, sequence_logps

BETA = 0.1
PAD = 0
PROMPT = [11, 12, 13, 14, 15, 16]
RESPONSES = [  # the good one first; the last is padded
    [21, 22, 23, 24],
    [31, 32, 33, 34],
    [41, 42],
]


def toy_llama(seed: int = 0) -> LlamaForCausalLM:
    """Return a one-layer Llama with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=1000,
        num_hidden_layers=1,
        hidden_size=128,
        intermediate_size=256,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    return LlamaForCausalLM(config).eval()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Return input ids, attention mask and labels (−100 on prompt and padding), [3, 10] each."""
    width = max(map(len, RESPONSES))
    padding = [width - len(response) for response in RESPONSES]
    ids, mask, labels = [], [], []
    for response, n in zip(RESPONSES, padding, strict=True):
        ids.append(PROMPT + response + [PAD] * n)
        mask.append([1] * len(PROMPT + response) + [0] * n)
        # The mask comes from the lengths: token 0 is a word of this vocabulary, not only the pad.
        labels.append([-100] * len(PROMPT) + response + [-100] * n)
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(labels)


def dpo_loss(policy: LlamaForCausalLM, reference: LlamaForCausalLM) -> Tensor:
    """Return −log σ(β·margin) of the good response against each bad one, averaged."""
    ids, mask, labels = batch()
    policy_logps, _ = sequence_logps(policy(ids, attention_mask=mask).logits, labels)
    with torch.no_grad():
        reference_logps, _ = sequence_logps(reference(ids, attention_mask=mask).logits, labels)
    group = torch.tensor([0, len(RESPONSES)])
    return packed_loss(policy_logps, reference_logps, group, against="best", beta=BETA).mean()


def main() -> None:
    """Print the loss before training: 0.6931, whatever the random weights."""
    loss = dpo_loss(toy_llama(), toy_llama())
    loss.backward()
    print(f"{loss.item():.4f}")


if __name__ == "__main__":
    main()
