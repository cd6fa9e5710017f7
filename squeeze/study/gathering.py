"""Tables of what gathers the evidence of each observation, with and without the claim's cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from squeeze.study.study import Study

Evidence = TypeVar("Evidence", covariant=True)
Gather = Callable[[Study], Any]
OBSERVATIONS: dict[str, Gather] = {}
COUNTERFACTUALS: dict[str, Gather] = {}


def observation(
    claim: str, *, bare: bool = False
) -> Callable[[Callable[[Study], Evidence]], Callable[[Study], Evidence]]:
    """Decorate what trains a claim's arms and returns the evidence that its check takes.

    With `bare` its counterfactual is the same evidence `without_cause()`.
    """

    def put(gather: Callable[[Study], Evidence]) -> Callable[[Study], Evidence]:
        OBSERVATIONS[claim] = gather
        if bare:
            COUNTERFACTUALS[claim] = lambda o: OBSERVATIONS[claim](o).without_cause()
        return gather

    return put


def counterfactual(
    claim: str,
) -> Callable[[Callable[[Study], Evidence]], Callable[[Study], Evidence]]:
    """Decorate what gives the evidence of a claim with its cause removed."""

    def put(gather: Callable[[Study], Evidence]) -> Callable[[Study], Evidence]:
        COUNTERFACTUALS[claim] = gather
        return gather

    return put
