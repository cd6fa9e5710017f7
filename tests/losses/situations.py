"""The systems on which LD-4 and DP-1 … DP-3 are judged, each with the knob of its counterfactual.

At their defaults they are what the claims speak of (`test_claims.py` records the verdicts); turned,
they are the counterfactuals (`tests/meta/test_preference_counterfactuals.py`).
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from squeeze.claims.preference import (
    Gradient,
    InitValue,
    LogitCase,
    Measured,
    ResidualCase,
)
from squeeze.losses import PairLogps, get_loss
from tests.losses.strategies import fixed_cases, fixed_pairs, logit_case
from tests.losses.trl_peer import (
    EPSILON32,
    batch_of,
    configure,
    dpo_trainer,
    model_logps,
    moved_policy,
    parameter_gradient,
)

TOY_LLAMA = Path(__file__).parents[2] / "examples" / "toy_llama_dpo.py"
# TRL's fused head and a plain log-softmax both work in float32 and sum in different orders: some
# 10³ roundings (17 words, 13 positions, 16 channels) lie between the two gradients.
MODEL_BOUND = 1e3 * EPSILON32

# Loss types of TRL's whose start has a closed form, with ours of the same value there.
TRL_STARTS = {
    "sigmoid": "sigmoid",
    "hinge": "hinge",
    "ipo": "ipo",
    "robust": "robust",
    "sppo_hard": "sppo_hard",
    **{name: name for name in ("nca_pair", "bco_pair", "aot", "aot_unpaired", "apo_zero")},
    **{name: name for name in ("apo_down", "discopop", "sigmoid_norm")},
}
# Compared with TRL on the model: its loss types and weights, our loss and its constants.
MODEL_PEERS: dict[str, tuple[list[str], list[float], dict[str, object], str]] = {
    "sigmoid": (["sigmoid"], [1.0], {"beta": 0.3}, "beta"),
    "hinge": (["hinge"], [1.0], {"beta": 0.3}, "beta"),
    "ipo": (["ipo"], [1.0], {"tau": 0.3, "length_normalized": True}, "tau"),
    "robust": (["robust"], [1.0], {"beta": 0.3, "label_smoothing": 0.1}, "beta"),
    "sppo_hard": (["sppo_hard"], [1.0], {"beta": 0.3}, "beta"),
    "cal_dpo": (["sigmoid", "sppo_hard"], [1.0, 1.0], {"beta": 0.3}, "beta"),
    "rpo": (
        ["sigmoid", "sft"],
        [1.0, 0.7],
        {"beta": 0.3, "alpha": 0.7, "normalization": "batch"},
        "alpha",
    ),
}


def init_values(name: str, perturbation: float = 0.0) -> Iterator[InitValue]:
    """Our loss at policy = reference, or with the reference `perturbation` off, by constant."""
    loss = get_loss(name)
    for seed, scale in enumerate((0.5, 1.0, 4.0)):
        logps = fixed_pairs(seed)
        # by unequal amounts on both sides: APO-down is 1 wherever Δ− = 0
        logps = replace(
            logps,
            ref_chosen=logps.chosen + perturbation,
            ref_rejected=logps.rejected - 2 * perturbation,
            margin_beyond=torch.zeros_like(logps.chosen),
        )
        hyper = {
            k: scale * loss.hyperparameters[k] for k in ("beta", "tau") if k in loss.hyperparameters
        }
        expected = loss.at_init(**hyper)
        assert expected is not None
        yield InitValue(name, expected, loss(logps, **hyper))


def toy_llama_value(reference_seed: int = 0) -> InitValue:
    """One good and two bad responses on the toy Llama of the tutorial notebook."""
    toy = runpy.run_path(str(TOY_LLAMA))
    loss = toy["dpo_loss"](toy["toy_llama"](0), toy["toy_llama"](reference_seed))
    return InitValue("toy Llama", float(get_loss("sigmoid").at_init() or 0), loss.detach())


def trl_init_values(family: str, policy_moved: float = 0.0) -> Iterator[InitValue]:
    """TRL's own value on a tiny real model, its policy moved off the reference by noise."""
    trainer = dpo_trainer(family)
    batch = batch_of(trainer)
    with moved_policy(trainer, policy_moved):
        for loss_type, ours in TRL_STARTS.items():
            for beta in (0.05, 0.5):
                configure(trainer, [loss_type], beta=beta, label_smoothing=0.1)
                constant = "tau" if ours == "ipo" else "beta"
                expected = get_loss(ours).at_init(**{constant: beta})
                assert expected is not None
                with torch.no_grad():
                    value = trainer._compute_loss(trainer.model, batch, return_outputs=False)
                yield InitValue(f"{family} {loss_type}", expected, value)


def residual_cases_at(name: str, off: float = 1.0) -> list[ResidualCase]:
    """The named loss at seeded pairs, its formula's numeric constants multiplied by `off`."""
    loss = get_loss(name)
    numbers = {k: v for k, v in loss.hyperparameters.items() if type(v) is float}
    hyper = {k: off * v for k, v in numbers.items()}

    def formula(logps: PairLogps) -> tuple[Tensor, Tensor]:
        # a formula without constants (SFT) is put off as a whole
        scale = 1.0 if any(not k.startswith("gate_") for k in numbers) else off
        chosen, rejected = loss.residuals(logps, **hyper)
        return scale * chosen, scale * rejected

    return [replace(case, residual=formula) for case in fixed_cases(name)]


def logit_cases_at(name: str, off: float = 1.0) -> list[LogitCase]:
    """The same on logits."""
    return [logit_case(case, seed) for seed, case in enumerate(residual_cases_at(name, off))]


def model_measurements(name: str, off: float = 1.0) -> tuple[str, Measured, Measured]:
    """Our loss and TRL's on a tiny Qwen3 that has moved: gradients of every parameter."""
    loss_types, weights, hyper, constant = MODEL_PEERS[name]
    trainer = dpo_trainer("qwen3")
    batch = batch_of(trainer)
    beta = float(hyper.get("beta", hyper.get("tau")))  # type: ignore[arg-type]
    smoothing = float(hyper.get("label_smoothing", 0.0))  # type: ignore[arg-type]
    configure(trainer, loss_types, beta=beta, weights=weights, label_smoothing=smoothing)
    wrong = {**hyper, constant: off * float(hyper[constant])}  # type: ignore[arg-type]
    with moved_policy(trainer):
        loss = get_loss(name)(model_logps(trainer, batch), **wrong).mean()
        ours = parameter_gradient(trainer, loss)
        theirs = trainer._compute_loss(trainer.model, batch, return_outputs=False)
        return name, ours, parameter_gradient(trainer, theirs)


def gradient_identity(off: float = 1.0, beta: float = 0.3, draws: int = 20) -> Gradient:
    """DP-2 on log-linear policies: token logits Wh, W drawn at random, responses of 3 tokens."""
    generator = torch.Generator().manual_seed(0)
    channels, vocab, batch, tokens = 6, 11, 3, 3

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden = draw(2, batch, tokens, channels)
    target = torch.randint(vocab, (2, batch, tokens), generator=generator)

    def logits_of(w: Tensor) -> tuple[Tensor, Tensor]:
        logps = (hidden @ w).log_softmax(-1).gather(-1, target[..., None]).sum((-1, -2))
        return logps[0], logps[1]

    def loss(logps: PairLogps, *, beta: float) -> Tensor:
        return get_loss("sigmoid")(logps, beta=off * beta)

    parameters = [draw(channels, vocab) for _ in range(draws)]
    references = [logits_of(draw(channels, vocab)) for _ in range(draws)]
    return Gradient(loss, logits_of, parameters, references, beta)


def same_constant(logps: PairLogps) -> PairLogps:
    """Both rewards plus a constant of the prompt."""
    return _shifted(logps, rejected=True)


def constant_on_chosen(logps: PairLogps) -> PairLogps:
    """Only the chosen reward plus a constant: the counterfactual."""
    return _shifted(logps, rejected=False)


def _shifted(logps: PairLogps, *, rejected: bool) -> PairLogps:
    assert logps.ref_chosen is not None
    assert logps.ref_rejected is not None
    constant = torch.linspace(-100, 100, len(logps.chosen), dtype=torch.float64)
    return replace(
        logps,
        ref_chosen=logps.ref_chosen - constant,
        ref_rejected=logps.ref_rejected - constant * rejected,
    )
