"""A claim of your own: one decorated function, checked on a system and on its counterfactual.

Run it: `python examples/claim_of_my_own.py`. In the package the function would stand in a module of
squeeze/claims and the counterfactual in tests/meta; nothing else names the claim.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from squeeze.claims import Verdict, catalogue
from squeeze.claims.catalogue import claim
from squeeze.claims.statistics import mean, verdict_from_interval
from squeeze.theory.softmax import entropy, negative_step, positive_step


@dataclass(frozen=True)
class Steps:
    """Evidence of MY-1: random softmaxes, and the gradient step under test."""

    step: Callable[[Tensor, Tensor, float], Tensor] = negative_step
    n: int = 500
    vocab: int = 30


@claim(
    "MY-1",
    sentence="A negative gradient on the least likely label lowers a softmax's entropy on average.",
    source="after Ren & Sutherland, arXiv 2407.10490, §3.3",
    kind="trend",
    levels=("toy",),
    counterfactual="positive gradient on the least likely label",
    primary="mean change of entropy, nats",
    math="z ~ N(0, 1)^30, y− = argmin π, η = 1: E[H(π') − H(π)] < 0",
    run="python examples/claim_of_my_own.py",
)
def check_entropy_falls(system: Steps) -> Verdict:
    """MY-1: the mean change of entropy over random softmaxes lies below 0."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(system.n, system.vocab, dtype=torch.float64, generator=generator)
    moved = system.step(logits, logits.argmin(-1), 1.0)
    change = (entropy(logits + moved) - entropy(logits)).numpy()
    return verdict_from_interval(
        "MY-1",
        "toy",
        "mean change of entropy, nats",
        mean(change),
        side="below",
        seeds=(0,),
        min_seeds=1,
    )


def main() -> None:
    """Print how the claim comes out, and how it does once its cause is removed."""
    mine = catalogue.get("MY-1")
    for name, system in {
        "negative gradient": Steps(),
        mine.counterfactual: replace(Steps(), step=positive_step),
    }.items():
        (row,) = mine.check(system)
        print(f"{name}: {row.outcome}, {row.effect:+.4f} nats {row.interval}")


if __name__ == "__main__":
    main()
