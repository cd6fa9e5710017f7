"""The verdicts' names, from best to worst; what each means is in `verdict` and `rollouts`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

# "undetermined" is no bad news, but no good news either. Lazy displacement and the collapses of
# entropy, length and repetition are of trainings that sample their answers (GRPO and its kin).
Name = Literal[
    "healthy",
    "undetermined",
    "no learning",
    "early",
    "displacement",
    "lazy displacement",
    "squeezing",
    "entropy collapse",
    "length collapse",
    "repetition collapse",
    "collapse",
]
VERDICTS: tuple[Name, ...] = get_args(Name)
# What is logged: those of sampled answers count as much as what is as bad on pairs.
SEVERITY: dict[Name, int] = {
    "healthy": 0,
    "undetermined": 1,
    "no learning": 2,
    "early": 3,
    "displacement": 4,
    "lazy displacement": 4,
    "squeezing": 5,
    "entropy collapse": 5,
    "length collapse": 5,
    "repetition collapse": 5,
    "collapse": 6,
}


def worst(verdicts: Iterable[Name]) -> Name:
    """The worst of several verdicts."""
    return max(verdicts, key=VERDICTS.index)
