"""Claim SM-5, which holds on average and not always: its distribution of inputs and its check.

The theorems are in `softmax`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.claims import statistics
from squeeze.claims.catalogue import claim
from squeeze.claims.situations import Softmax
from squeeze.claims.softmax import SOURCE, TESTS
from squeeze.claims.types import Verdict
from squeeze.theory import softmax as theory

TEMPERATURES = (2.0, 1.5, 1.2, 1.0, 0.8, 0.65, 0.5)
VOCAB = 50


def gaussian_draws(
    generator: torch.Generator, n: int
) -> tuple[Float[Tensor, "draws vocab"], Int[Tensor, " draws"]]:
    """Draw z ~ N(0, 2²)^50 and y− uniform among the labels that are not the most likely."""
    logits = 2 * torch.randn(n, VOCAB, dtype=torch.float64, generator=generator)
    rank = torch.randint(1, VOCAB, (n, 1), generator=generator)
    return logits, logits.argsort(-1, descending=True).gather(-1, rank)[:, 0]


@claim(
    "SM-5",
    sentence="A peakier π squeezes more: sharpening adds falling labels and share for y*.",
    source=SOURCE,
    kind="trend",
    levels=("toy",),
    counterfactual="flat π, which no temperature sharpens",
    primary="mean paired difference between temperature 1/2 and 1",
    math="over z ~ N(0, 2²)^50, y− uniform among labels that are not the most likely, η = 0.5: "
    "mean paired difference between temperature ½ and 1, its 95% interval above 0. Where "
    "y− is the most likely label, π(y−) ≥ ‖π‖², and to first order no other label ever falls",
    run=f"{TESTS} peakier",
)
def check_peakier_squeezes_more(system: Softmax) -> list[Verdict]:
    """SM-5: falling labels and y*'s share of the gains, temperature ½ against 1, paired.

    Two rows; the evidence has the share of draws whose series over `TEMPERATURES` is not
    monotone, since this is a trend and no theorem.
    """
    draw, eta, n, seed = system.draw or gaussian_draws, 0.5, 1000, 0
    generator = torch.Generator().manual_seed(seed)
    logits, labels = draw(generator, n)
    falling = torch.stack([_falling(logits / t, labels, eta) for t in TEMPERATURES])
    shares = torch.stack([_share(logits / t, labels, eta) for t in TEMPERATURES])
    return [
        _verdict("falling labels", "labels", falling, seed),
        _verdict("share of gained mass to y*", "share", shares, seed),
    ]


def _falling(logits: Tensor, labels: Tensor, eta: float) -> Tensor:
    return theory.falling_set(logits, labels, eta).sum(-1).double()


def _share(logits: Tensor, labels: Tensor, eta: float) -> Tensor:
    moved = theory.negative_step(logits, labels, eta)
    return theory.captured_share(logits, moved, labels)


def _verdict(
    comparison: str, unit: str, series: Float[Tensor, "temperatures draws"], seed: int
) -> Verdict:
    gains = (series[TEMPERATURES.index(0.5)] - series[TEMPERATURES.index(1.0)]).numpy()
    # A share that stays the same still moves by the rounding of a quotient of sums.
    noise = 1e-12
    gain = statistics.mean(np.where(np.abs(gains) > noise, gains, 0.0))
    return statistics.verdict_from_interval(
        "SM-5",
        "toy",
        f"mean of ({comparison} at temperature 1/2 − at 1), {unit}",
        gain,
        seeds=(seed,),
        min_seeds=1,
        comparison=comparison,
        evidence={
            "mean by temperature": dict(
                zip(map(str, TEMPERATURES), series.mean(1).tolist(), strict=True)
            ),
            "share of draws not monotone in temperature": float(
                (series.diff(dim=0) < -noise).any(0).double().mean()
            ),
        },
    )
