"""The toy inputs that checks of the softmax claims run on: one distribution, one label, one step.

A situation is a recipe of a few numbers, so its repr is Python that rebuilds it, whatever the
vocabulary. The checks themselves are in `softmax` and `softmax_trend`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, product
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.theory.softmax import Step, combined_step, negative_step, squeezing_threshold

Shape = Literal["flat", "gaussian", "peaky", "ties", "two peaks", "zipf"]
SHAPES: tuple[Shape, ...] = ("flat", "gaussian", "peaky", "ties", "two peaks", "zipf")


@dataclass(frozen=True)
class Situation:
    """Logits of `vocab` labels, the label to push, and the step size η.

    `rank` places the label among all of them, 0 the most likely and `vocab` − 1 the least;
    `label_probability` then sets π(label), the others keeping their odds. `listed` gives the
    logits themselves instead of a shape.
    """

    vocab: int
    rank: int
    eta: float
    shape: Shape = "gaussian"
    seed: int = 0
    label_probability: float | None = None
    listed: Collection[float] = ()

    @cached_property
    def labels(self) -> Int[Tensor, " 1"]:
        """The label, as a batch of one."""
        order: Tensor = self._base.argsort(dim=-1, descending=True)
        return order[:, self.rank]

    @cached_property
    def logits(self) -> Float[Tensor, "1 vocab"]:
        """The logits in float64, as a batch of one."""
        if self.label_probability is None:
            return self._base
        p = self.label_probability
        others = self._base.index_fill(-1, self.labels, -torch.inf).logsumexp(-1)
        logits = self._base.clone()
        logits[0, self.labels] = others + math.log(p) - math.log1p(-p)
        return logits

    @cached_property
    def _base(self) -> Float[Tensor, "1 vocab"]:
        if self.listed:
            return torch.tensor([[*self.listed]], dtype=torch.float64)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(1, self.vocab, dtype=torch.float64, generator=generator)
        places = torch.randperm(self.vocab, generator=generator)
        match self.shape:
            case "flat":
                return torch.zeros_like(noise)
            case "gaussian":
                return 3 * noise
            case "peaky":  # one logit 40 above all the rest
                return noise.index_fill(-1, places[:1], noise.max().item() + 40)
            case "ties":
                return noise.round()
            case "two peaks":
                return noise.index_fill(-1, places[:2], noise.max().item() + 10)
            case "zipf":
                return -(places.double() + 1).log()[None]


def hold_odds_fixed(
    others: Float[Tensor, " others"], label_probabilities: Float[Tensor, " family"]
) -> Float[Tensor, "family vocab"]:
    """Return logits with π(label 0) = p for each p, the others' relative odds as in `others`."""
    p = label_probabilities[:, None]
    rest = others.log_softmax(-1).expand(len(p), -1)
    return torch.cat([p.log() - torch.log1p(-p), rest], -1)


Draw = Callable[[torch.Generator, int], tuple[Tensor, Tensor]]
"""(generator, number of draws) → logits [draws, vocab] and the labels to push down [draws]."""


@dataclass(frozen=True)
class Softmax:
    """What the claims SM-1 … SM-9 are asked of: inputs, and the steps and formulas under test.

    The defaults are the theory's own, on `standard_situations`; a counterfactual replaces one of
    them. `step` None is the claim's: the negative one, of SM-8 the positive. `steps` are repeated
    in turn, `n_steps` in all (SM-7); `family` makes logits of the others' odds and the label's
    probabilities (SM-6); `draw` gives random inputs (SM-5), `pair_step` moves two labels (SM-9).
    """

    situations: Sequence[Situation] | None = None
    step: Step | None = None
    pair_step: Callable[[Tensor, Tensor, Tensor, float], Tensor] = combined_step
    threshold: Callable[[Tensor, Tensor], Tensor] = squeezing_threshold
    family: Callable[[Tensor, Tensor], Tensor] = hold_odds_fixed
    steps: Sequence[Step] = (negative_step,)
    n_steps: int = 50
    draw: Draw | None = None


def standard_situations() -> list[Situation]:
    """Return about a hundred nasty situations, what a check runs on when it is given none."""
    etas = cycle((1e-6, 1e-3, 0.1, 1.0, 10.0))
    probabilities = cycle((None, 1e-30, 1e-9, 0.3, 0.999, 1 - 1e-12))
    grid = product(SHAPES, (2, 3, 10, 1000), (0.0, 0.1, 0.5, 1.0))
    return [
        Situation(vocab, round(where * (vocab - 1)), next(etas), shape, seed, next(probabilities))
        for seed, (shape, vocab, where) in enumerate(grid)
    ]
