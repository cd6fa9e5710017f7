"""Policy-gradient losses of sampled responses: REINFORCE, RLOO, GRPO and kin, one table for all.

They differ in how rewards become advantages, in the ratio that is clipped, and in the average over
tokens (`squeeze.theory.policy_gradient.Surrogate`, which has their residuals as formulas). Sampling
and training are not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from squeeze.theory.policy_gradient import (
    Rollouts,
    Sign,
    Surrogate,
    group_advantages,
    only,
    rloo_advantages,
)

Advantages = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PolicyGradient:
    """A named loss: its paper, rewards [groups, size] → advantages, and its surrogate."""

    name: str
    paper: str
    advantages: Advantages
    surrogate: Surrogate


def policy_loss(rollouts: Rollouts, surrogate: Surrogate) -> Float[Tensor, ""]:
    """Return −Σ w·min(rA, clip(r, 1 − low, 1 + high)·A) over response tokens, or −Σ w·A·log π."""
    a = rollouts.advantages
    if surrogate.ratio == "none":
        terms = a * rollouts.logps.masked_fill(~rollouts.mask, 0.0)
    else:
        ratio = surrogate.log_ratio(rollouts).exp()
        terms = torch.min(ratio * a, ratio.clamp(1 - surrogate.low, 1 + surrogate.high) * a)
        if surrogate.ratio == "token":
            terms = terms * rollouts.mask
    total: Tensor = -(surrogate.weights(rollouts.mask).to(a) * terms).sum()
    return total


def _same(rewards: Tensor) -> Tensor:
    return rewards


def _of_sign(rewards: Tensor, sign: Sign) -> Tensor:
    return only(group_advantages(rewards), sign)


_PPO = Surrogate("token", 0.2, 0.2, "response")
_GRPO = "Shao et al. 2024, arXiv 2402.03300, Eq. 3"
_TABLE = (
    PolicyGradient("reinforce", "Williams 1992", _same, Surrogate("none", average="sum")),
    PolicyGradient(
        "rloo",
        "Ahmadian et al. 2024, arXiv 2402.14740; clipped as TRL's RLOOTrainer",
        rloo_advantages,
        Surrogate("sequence", 0.2, 0.2, "sum"),
    ),
    PolicyGradient("grpo", _GRPO, group_advantages, _PPO),
    PolicyGradient(
        "dr_grpo",
        "Liu et al. 2025, arXiv 2503.20783",
        partial(group_advantages, scale="none"),
        Surrogate("token", 0.2, 0.2, "length", 256),
    ),
    PolicyGradient(
        "dapo",
        "Yu et al. 2025, arXiv 2503.14476, Eq. 8 to 12",
        group_advantages,
        Surrogate("token", 0.2, 0.28, "batch"),
    ),
    PolicyGradient(
        "positive_only", "PSR of arXiv 2506.01347", partial(_of_sign, sign="positive"), _PPO
    ),
    PolicyGradient(
        "negative_only", "NSR of arXiv 2506.01347", partial(_of_sign, sign="negative"), _PPO
    ),
)
POLICY_GRADIENTS: Mapping[str, PolicyGradient] = MappingProxyType({row.name: row for row in _TABLE})
