"""TRL's own losses as functions of our inputs: log-probs fed to its trainers, or a tiny real model.

One trainer per kind, built once and reused with changed loss types. Nothing of TRL is rewritten:
the number comes out of its `_compute_loss`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from squeeze.claims.preference import FLOAT64_BOUND, Measured
from squeeze.losses import PairLogps, get_loss, sequence_logps
from squeeze.training.trl_compat import checkpointing

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

WORDS = [
    *("<pad>", "<eos>", "<unk>", "<user>", "<assistant>"),
    *("who", "are", "you", "i", "am", "a", "robot", "cat", "dog", "and", "the", "best"),
]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %} <eos>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
# TRL 1.16's own list, from its error message for an unknown loss type.
TRL_LOSS_TYPES = [
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard"),
    *("aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with a chat template, built offline."""
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>"
    )
    made.chat_template = TEMPLATE
    return made


def tiny_model(family: str, seed: int = 0) -> nn.Module:
    """A randomly initialised real architecture, float32: "qwen3" or "llama"."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,  # far from uniform predictions
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
    }
    if family == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(head_dim=8, **shape))
    return LlamaForCausalLM(LlamaConfig(**shape))


def rows() -> list[dict[str, Any]]:
    """Two conversations whose responses differ in length."""
    texts = [
        ("who are you", "i am a robot", "the cat and the dog and i"),
        ("who am i", "you are the best cat", "a dog"),
    ]
    return [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for prompt, chosen, rejected in texts
    ]


def _settings() -> dict[str, Any]:
    return {
        "output_dir": mkdtemp(),
        "per_device_train_batch_size": 2,
        "report_to": [],
        "bf16": False,
        "use_cpu": True,
        **checkpointing(False),
        "dataloader_pin_memory": False,
    }


@cache
def dpo_trainer(family: str = "qwen3") -> DPOTrainer:
    """TRL's DPOTrainer with a tiny policy and an equal reference."""
    args = DPOConfig(**_settings())
    trainer = DPOTrainer(
        model=tiny_model(family),
        ref_model=tiny_model(family),
        args=args,
        train_dataset=Dataset.from_list(rows()),
        processing_class=tokenizer(),
    )
    Path(args.output_dir).rmdir()
    return trainer


@cache
def kto_trainer() -> KTOTrainer:
    """TRL's KTOTrainer on the same rows, unpaired."""
    args = KTOConfig(**_settings())
    unpaired = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows()
        for side in ("chosen", "rejected")
    ]
    trainer = KTOTrainer(
        model=tiny_model("qwen3"),
        ref_model=tiny_model("qwen3"),
        args=args,
        train_dataset=Dataset.from_list(unpaired),
        processing_class=tokenizer(),
    )
    Path(args.output_dir).rmdir()
    return trainer


def configure(
    trainer: DPOTrainer,
    loss_types: list[str],
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    weights: list[float] | None = None,
    precomputed: bool = False,
) -> DPOTrainer:
    """Set what `_compute_loss` reads of the configuration."""
    trainer.loss_types = loss_types
    trainer.loss_weights = weights or [1.0] * len(loss_types)
    trainer.beta = beta
    trainer.label_smoothing = label_smoothing
    trainer.precompute_ref_logps = precomputed
    return trainer


class Fed(nn.Module):
    """Stands where the model is and returns given token log-probs, in any dtype."""

    def __init__(self, log_probs: Tensor) -> None:
        super().__init__()
        self.log_probs = log_probs

    def forward(self, **inputs: Any) -> SimpleNamespace:
        zeros = torch.zeros_like(self.log_probs.detach())
        return SimpleNamespace(
            log_probs=self.log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
        )


def trl_loss(logps: PairLogps, loss_types: list[str], **settings: Any) -> Tensor:
    """TRL's batch loss at given sequence log-probs, a scalar that carries the gradient.

    Each response's log-prob sits on its first token; the completion mask has its length.
    """
    trainer = configure(dpo_trainer(), loss_types, precomputed=True, **settings)
    lengths = torch.cat([logps.n_chosen_tokens, logps.n_rejected_tokens])
    width = int(lengths.max())
    sums = torch.cat([logps.chosen, logps.rejected])
    log_probs = torch.cat([sums[:, None], sums.new_zeros(len(sums), width - 1)], dim=1)
    mask = (torch.arange(width) < lengths[:, None]).long()
    mask = torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1)  # a prompt of one token
    inputs = {
        "input_ids": torch.ones_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": logps.ref_chosen,
        "ref_rejected_logps": logps.ref_rejected,
    }
    return trainer._compute_loss(Fed(log_probs), inputs, return_outputs=False)


def kto_loss(logps: PairLogps, *, kl: float, beta: float, weights: tuple[float, float]) -> Tensor:
    """TRL's KTO batch loss, the KL estimate given through the log-probs it comes from."""
    trainer = kto_trainer()
    trainer.beta, trainer.precompute_ref_logps = beta, True
    trainer.desirable_weight, trainer.undesirable_weight = weights
    sums = torch.cat([logps.chosen, logps.rejected])
    references = torch.cat([logps.ref_chosen, logps.ref_rejected])
    trainer._compute_kl_logps = lambda model, batch: torch.full_like(sums.detach(), kl)
    ones = torch.ones(len(sums), 2, dtype=torch.long)
    batch = {
        "input_ids": ones,
        "attention_mask": ones,
        "completion_mask": torch.tensor([[0, 1]]).expand(len(sums), 2),
        "label": torch.tensor([True] * len(logps.chosen) + [False] * len(logps.rejected)),
        "ref_logps": references,
        "ref_KL_logps": torch.zeros_like(references),
    }
    return trainer._compute_loss(Fed(sums[:, None]), batch, return_outputs=False)


def batch_of(trainer: DPOTrainer) -> dict[str, Tensor]:
    """The trainer's own first batch, as it collates it."""
    return next(iter(trainer.get_eval_dataloader(trainer.train_dataset)))


def model_logps(trainer: DPOTrainer, batch: dict[str, Tensor]) -> PairLogps:
    """The same batch's log-probs from plain logits, by `sequence_logps`: no TRL in it."""
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    sums, lengths = sequence_logps(_logits(trainer.model, batch), labels)
    with torch.no_grad():
        references, _ = sequence_logps(_logits(trainer.ref_model, batch), labels)
    halves = [half for each in (sums, references, lengths) for half in each.chunk(2)]
    return PairLogps(*halves)


def _logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def parameter_gradient(trainer: DPOTrainer, loss: Tensor) -> Measured:
    """The loss and its gradient with respect to the policy's parameters, float64 copies."""
    gradients = torch.autograd.grad(loss, list(trainer.model.parameters()))
    flat = torch.cat([g.flatten() for g in gradients]).double()
    return Measured(loss.detach().double(), flat)


def fed_gradient(loss: Tensor, logps: PairLogps) -> Measured:
    """The loss and its gradient with respect to the policy's sequence log-probs."""
    gradients = torch.autograd.grad(loss, (logps.chosen, logps.rejected), materialize_grads=True)
    return Measured(loss.detach(), torch.cat(gradients))


@contextmanager
def moved_policy(trainer: DPOTrainer, scale: float = 0.02, seed: int = 1) -> Iterator[DPOTrainer]:
    """The trainer with its policy's weights moved off the reference's, put back afterwards."""
    generator = torch.Generator().manual_seed(seed)
    parameters = list(trainer.model.parameters())
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p in parameters:
            p += scale * torch.randn(p.shape, generator=generator)
    yield trainer
    with torch.no_grad():
        for p, old in zip(parameters, before, strict=True):
            p.copy_(old)


def simpo_loss(logps: PairLogps, *, beta: float, gamma: float) -> Tensor:
    """The simpo loss of TRL's experimental CPOTrainer, which averages log-probs over tokens."""
    # cpo_loss reads nothing else of a trainer, and building one would test nothing more
    settings = SimpleNamespace(
        loss_type="simpo",
        beta=beta,
        simpo_gamma=gamma,
        label_smoothing=0.0,
        alpha=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    chosen = logps.chosen / logps.n_chosen_tokens
    rejected = logps.rejected / logps.n_rejected_tokens
    return CPOTrainer.cpo_loss(settings, chosen, rejected)[0].mean()


def orpo_loss(logps: PairLogps, *, lam: float) -> Tensor:
    """SFT by token means minus the odds-ratio term of TRL's experimental ORPOTrainer (float32)."""
    settings = SimpleNamespace(beta=lam, accelerator=SimpleNamespace(device="cpu"))
    chosen = logps.chosen / logps.n_chosen_tokens
    rejected = logps.rejected / logps.n_rejected_tokens
    # TRL returns +λ log σ(o) and subtracts it from the negative log-likelihood
    return (-chosen - ORPOTrainer.odds_ratio_loss(settings, chosen, rejected)[0]).mean()


@dataclass(frozen=True)
class Peer:
    """A loss of ours, the hyper-parameters it is compared at, and TRL's function of the same.

    `constant` is the hyper-parameter that the counterfactual puts off by 1%.
    """

    loss: str
    hyper: dict[str, Any]
    theirs: Callable[[PairLogps], Tensor]
    constant: str = "beta"
    max_batch: int | None = None
    bound: float = FLOAT64_BOUND

    def ours(self, logps: PairLogps, off: float = 1.0) -> Tensor:
        """Our batch loss, the constant multiplied by `off`."""
        hyper = {**self.hyper, self.constant: off * self.hyper[self.constant]}
        return get_loss(self.loss)(logps, **hyper).mean()

    def measure(self, logps: PairLogps, off: float = 1.0) -> tuple[str, Measured, Measured]:
        """Value and gradient of both at the given pairs, as `check_agreement` takes them."""
        logps = _first(logps, self.max_batch)
        chosen = logps.chosen.detach().clone().requires_grad_()
        rejected = logps.rejected.detach().clone().requires_grad_()
        logps = replace(logps, chosen=chosen, rejected=rejected)
        ours = fed_gradient(self.ours(logps, off), logps)
        return self.loss, ours, fed_gradient(self.theirs(logps), logps)


def _first(logps: PairLogps, n: int | None) -> PairLogps:
    return PairLogps(**{k: None if v is None else v[:n] for k, v in vars(logps).items()})


def f_loss(logps: PairLogps, *, divergence: str, beta: float, alpha: float = 0.5) -> Tensor:
    """TRL's sigmoid loss under another divergence, put back afterwards."""
    trainer = dpo_trainer()
    trainer.f_divergence_type, trainer.f_alpha_divergence_coef = divergence, alpha
    try:
        return trl_loss(logps, ["sigmoid"], beta=beta)
    finally:
        trainer.f_divergence_type = "reverse_kl"


def _dpo(*loss_types: str, **settings: Any) -> Callable[[PairLogps], Tensor]:
    return lambda logps: trl_loss(logps, list(loss_types), **settings)


EPSILON64 = torch.finfo(torch.float64).eps
EPSILON32 = torch.finfo(torch.float32).eps
PEERS = [
    Peer("sigmoid", {"beta": 0.3}, _dpo("sigmoid", beta=0.3)),
    Peer("hinge", {"beta": 0.05}, _dpo("hinge", beta=0.05)),
    Peer("ipo", {"tau": 0.2, "length_normalized": True}, _dpo("ipo", beta=0.2), "tau"),
    Peer(
        "robust",
        {"beta": 0.3, "label_smoothing": 0.2},
        _dpo("robust", beta=0.3, label_smoothing=0.2),
    ),
    # AOT sorts the pairs; a batch of one is sorted, and what is left is cDPO.
    Peer(
        "cdpo",
        {"beta": 0.3, "label_smoothing": 0.2},
        _dpo("aot", beta=0.3, label_smoothing=0.2),
        max_batch=1,
    ),
    # TRL keeps ε in float32
    Peer(
        "exo_pair",
        {"beta": 0.3, "label_smoothing": 0.2},
        _dpo("exo_pair", beta=0.3, label_smoothing=0.2),
        bound=256 * EPSILON32,
    ),
    *(Peer(name, {"beta": 0.3}, _dpo(name, beta=0.3)) for name in ("nca_pair", "bco_pair")),
    *(
        Peer(
            name,
            {"beta": 0.3, "label_smoothing": 0.2},
            _dpo(name, beta=0.3, label_smoothing=0.2),
        )
        for name in ("aot", "aot_unpaired")
    ),
    # TRL's sigmoid loses digits as kto's below: log-ratios to 60, margins to 120.
    *(
        Peer(name, {"beta": 0.05}, _dpo(name, beta=0.05), bound=EPSILON64 * (1 + math.exp(6)))
        for name in ("apo_zero", "apo_down")
    ),
    Peer("discopop", {"beta": 0.05}, _dpo("discopop", beta=0.05), bound=1e3 * FLOAT64_BOUND),
    Peer("sigmoid_norm", {"beta": 3.0}, _dpo("sigmoid_norm", beta=3.0)),
    *(
        Peer(
            "f_dpo",
            {"beta": 0.3, "divergence": name},
            lambda logps, name=name: f_loss(logps, divergence=name, beta=0.3),
        )
        for name in ("forward_kl", "js_divergence")
    ),
    Peer("sppo_hard", {"beta": 0.3}, _dpo("sppo_hard", beta=0.3)),
    Peer("cal_dpo", {"beta": 0.3}, _dpo("sigmoid", "sppo_hard", beta=0.3)),
    Peer(
        "rpo",
        {"beta": 0.3, "alpha": 0.7, "normalization": "batch"},
        _dpo("sigmoid", "sft", beta=0.3, weights=[1.0, 0.7]),
        "alpha",
    ),
    Peer(
        "kto",
        {"beta": 0.3, "kl": 1.5, "desirable_weight": 1.2, "undesirable_weight": 0.8},
        lambda logps: kto_loss(logps, kl=1.5, beta=0.3, weights=(1.2, 0.8)),
        # TRL's gradient is torch's y(1 − y), whose relative rounding is ε/(1 − y) = ε·(1 + eˣ),
        # with x at most β(60 + kl) on our strategies' log-ratios.
        bound=EPSILON64 * (1 + math.exp(0.3 * (60 + 1.5))),
    ),
    Peer("simpo", {"beta": 2.0, "gamma": 0.8}, lambda x: simpo_loss(x, beta=2.0, gamma=0.8)),
    # TRL computes the odds ratio in float32: a dozen roundings of values of order 1.
    Peer("orpo", {"lam": 0.5}, lambda x: orpo_loss(x, lam=0.5), "lam", bound=16 * EPSILON32),
]
