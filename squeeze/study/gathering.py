"""Tables of what gathers the evidence of each observation, with and without the claim's cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from squeeze.study.study import Observatory

Evidence = TypeVar("Evidence", covariant=True)
Gather = Callable[[Observatory], Any]
OBSERVATIONS: dict[str, Gather] = {}
COUNTERFACTUALS: dict[str, Gather] = {}


def observation(
    claim: str,
) -> Callable[[Callable[[Observatory], Evidence]], Callable[[Observatory], Evidence]]:
    """Decorate what trains a claim's arms and returns the evidence that its check takes."""

    def put(gather: Callable[[Observatory], Evidence]) -> Callable[[Observatory], Evidence]:
        OBSERVATIONS[claim] = gather
        return gather

    return put


def counterfactual(
    claim: str,
) -> Callable[[Callable[[Observatory], Evidence]], Callable[[Observatory], Evidence]]:
    """Decorate what gives the evidence of a claim with its cause removed."""

    def put(gather: Callable[[Observatory], Evidence]) -> Callable[[Observatory], Evidence]:
        COUNTERFACTUALS[claim] = gather
        return gather

    return put
