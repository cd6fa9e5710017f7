"""The search for counterexamples, so that a test's body is the theorem and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squeeze.claims.situations import Situation, Softmax
from squeeze.claims.softmax import pool
from squeeze.claims.types import Verdict
from tests.examples import examples
from tests.reproduce import reproducible


class Ledger(Protocol):
    """What tests need of the fixture `ledger`."""

    def record(self, *verdicts: Verdict) -> None:
        """Put verdicts into the ledger."""


def search_for_counterexample(
    check: Callable[..., Verdict],
    situations: st.SearchStrategy[Situation],
    ledger: Ledger,
    usual_examples: int = 150,
    system: Callable[[list[Situation]], Any] = Softmax,
) -> None:
    """Run a theorem's check on situations until one refutes it; record one verdict for them all."""
    verdicts: list[Verdict] = []

    # Large vocabularies are slow to draw by nature; the verdicts are for this test alone.
    @settings(
        max_examples=examples(usual_examples),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(situations)
    def look_at(situation: Situation) -> None:
        with reproducible(check, system([situation])):
            verdict = check(system([situation]))
            verdicts.append(verdict)
            assert verdict.outcome != "contradicted", f"counterexample: {situation}"

    look_at()
    ledger.record(pool(verdicts))
