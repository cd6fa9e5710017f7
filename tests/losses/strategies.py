"""Hypothesis strategies for pairs and hyper-parameters, and the fixed draws behind verdicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st

from squeeze.claims.preference import LogitCase, ResidualCase
from squeeze.losses import LOSSES, Loss, PairLogps, get_loss

# Every loss of the table, and the gate on each.
# Of these ∂L/∂s+ is a difference of nearly equal terms, or vanishes, where ∂L/∂s− does not: once
# that is gated nothing is left to tell a relative error against. Ungated they are tried.
CANCELLING = ("apo_down", "f_dpo")
ALL = [*LOSSES, *(f"gated_{name}" for name in LOSSES if name not in CANCELLING)]
WITH_INIT = [name for name in ALL if get_loss(name).init is not None]
WITH_REFERENCE = [name for name in ALL if get_loss(name).needs_reference]

HYPERPARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "beta": st.floats(1e-3, 10),
    "tau": st.floats(1e-2, 10),
    "label_smoothing": st.floats(0, 0.45),
    "gamma": st.floats(0, 5),
    "lam": st.floats(0, 60),
    "alpha": st.floats(0, 5),
    "shift": st.floats(0.1, 1),
    "kl": st.floats(0, 50),
    "desirable_weight": st.floats(0.1, 3),
    "undesirable_weight": st.floats(0.1, 3),
    "discopop_tau": st.floats(1e-2, 2),
    "divergence": st.sampled_from(
        ["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]
    ),
    "divergence_alpha": st.floats(0.1, 0.9),
    "ld_alpha": st.floats(0, 1),
    "length_normalized": st.booleans(),
    "normalization": st.sampled_from(["sequence", "token", "batch"]),
    "gate_alpha": st.floats(0.1, 50),
    "gate_tau": st.floats(0, 1),
    "gate_statistic": st.sampled_from(["geometric_mean", "quantile"]),
    "gate_quantile": st.floats(0, 1),
}
LOGP = st.floats(-400, -0.05)
SHIFT = st.one_of(st.just(0.0), st.floats(-60, 60), st.floats(-1e-6, 1e-6))


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def pairs(draw: st.DrawFn, *, at_init: bool = False, max_batch: int = 3) -> PairLogps:
    """Float64 pairs: likely and unlikely responses, one token long or a hundred, ties included."""
    n = draw(st.integers(1, max_batch))

    def column(element: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(element, min_size=n, max_size=n))

    chosen = tensor(column(LOGP))
    lengths = torch.tensor(column(st.integers(1, 100)))
    mask = torch.arange(4) < torch.tensor(column(st.integers(1, 4)))[:, None]
    tokens = tensor(column(st.lists(st.floats(-20, 0), min_size=4, max_size=4)))
    rejected = tensor(column(LOGP))
    moved = [0.0] * n, [0.0] * n
    if not at_init:
        moved = column(SHIFT), column(SHIFT)
    return PairLogps(
        chosen=chosen,
        rejected=rejected,
        ref_chosen=chosen - tensor(moved[0]),
        ref_rejected=rejected - tensor(moved[1]),
        chosen_length=lengths,
        rejected_length=torch.tensor(column(st.integers(1, 100))),
        rejected_token_logps=tokens,
        rejected_mask=mask,
        margin_beyond=tensor([0.0] * n if at_init else column(SHIFT)),
        pair_weight=tensor(column(st.floats(1e-2, 4))),
    )


@st.composite
def hyperparameters(draw: st.DrawFn, loss: Loss) -> dict[str, Any]:
    """A value for each of the loss's hyper-parameters."""
    drawn = {name: draw(HYPERPARAMETERS[name]) for name in loss.hyperparameters}
    if loss.name.endswith("exo_pair"):  # the logarithm of ε
        drawn["label_smoothing"] = max(drawn["label_smoothing"], 1e-4)
    return drawn


@st.composite
def residual_cases(draw: st.DrawFn, name: str) -> ResidualCase:
    """The named loss at drawn pairs and hyper-parameters, with its formula."""
    loss = get_loss(name)
    return ResidualCase(
        name, loss.function, loss.residual, draw(pairs()), draw(hyperparameters(loss))
    )


def fixed_pairs(seed: int = 0, batch: int = 6, spread: float = 4.0) -> PairLogps:
    """Seeded pairs of usual size, for verdicts: −80 ± 30 nats, log-ratios of a few nats."""
    generator = torch.Generator().manual_seed(seed)

    def normal(mean: float, scale: float) -> torch.Tensor:
        draw = torch.randn(batch, generator=generator, dtype=torch.float64)
        return mean + scale * draw

    chosen = normal(-80, 10)
    rejected = normal(-90, 10)
    tokens = torch.randn(batch, 5, generator=generator, dtype=torch.float64).abs().neg()
    return PairLogps(
        chosen=chosen,
        rejected=rejected,
        ref_chosen=chosen + normal(0, spread),
        ref_rejected=rejected + normal(0, spread),
        chosen_length=torch.randint(20, 60, (batch,), generator=generator),
        rejected_length=torch.randint(20, 60, (batch,), generator=generator),
        rejected_token_logps=tokens,
        rejected_mask=torch.arange(5).expand(batch, 5) < 4,
        margin_beyond=normal(0, spread),
        pair_weight=normal(0, 0.5).exp(),
    )


def fixed_cases(name: str, seeds: int = 5) -> list[ResidualCase]:
    """The named loss with its default hyper-parameters at seeded pairs."""
    loss = get_loss(name)
    return [
        ResidualCase(name, loss.function, loss.residual, fixed_pairs(seed)) for seed in range(seeds)
    ]


def logit_case(case: ResidualCase, seed: int = 0, vocab: int = 50) -> LogitCase:
    """The case's first pair, its policy log-probs now coming from random logits."""
    generator = torch.Generator().manual_seed(seed)
    n = 7, 5

    def logits(tokens: int) -> torch.Tensor:
        return 3 * torch.randn(tokens, vocab, generator=generator, dtype=torch.float64)

    def target(tokens: int) -> torch.Tensor:
        return torch.randint(vocab, (tokens,), generator=generator)

    z, y = (logits(n[0]), logits(n[1])), (target(n[0]), target(n[1]))
    sums = [
        logits.log_softmax(-1).gather(-1, target[:, None]).sum()[None]
        for logits, target in zip(z, y, strict=True)
    ]
    logps = PairLogps(
        chosen=sums[0],
        rejected=sums[1],
        ref_chosen=sums[0] - 0.7,
        ref_rejected=sums[1] + 0.4,
        chosen_length=torch.tensor([n[0]]),
        rejected_length=torch.tensor([n[1]]),
        rejected_token_logps=z[1].log_softmax(-1).gather(-1, y[1][:, None]).T,
        rejected_mask=torch.ones(1, n[1], dtype=torch.bool),
        margin_beyond=sums[0].new_tensor([0.3]),
        pair_weight=sums[0].new_tensor([0.8]),
    )
    return LogitCase(replace(case, logps=logps), z[0], y[0], z[1], y[1])


def reproduce(case: ResidualCase) -> str:
    """A snippet that recomputes the case, for failure messages."""
    fields = {name: value.tolist() for name, value in vars(case.logps).items() if value is not None}
    return (
        "import torch\n"
        "from squeeze.losses import PairLogps, get_loss\n"
        "torch.set_default_dtype(torch.float64)\n"
        f"logps = PairLogps(**{{k: torch.tensor(v) for k, v in {fields!r}.items()}})\n"
        f"loss, hyper = get_loss({case.loss!r}), {dict(case.hyper)!r}\n"
        "print(loss(logps, **hyper), loss.residuals(logps, **hyper))"
    )
