"""A failing property test must hand out Python that fails in the same way."""

from __future__ import annotations

import contextlib
import io

import pytest
import torch

from squeeze.claims.situations import Situation, Softmax
from squeeze.claims.softmax import check_pushed_down_label_falls
from squeeze.theory.softmax import negative_step, positive_step
from tests.reproduce import reproducible, snippet

pytestmark = pytest.mark.cpu


def run(code: str) -> str:
    """Execute a snippet's Python (all but its headline) and return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.partition("\n")[2], {})
    return printed.getvalue().strip()


def test_a_snippet_repeats_the_failing_call_with_its_verdict() -> None:
    situation = Situation(vocab=3, rank=1, eta=0.1, label_probability=1e-30)
    verdict = check_pushed_down_label_falls(Softmax([situation], step=positive_step))
    code = snippet(check_pushed_down_label_falls, Softmax([situation], step=positive_step))
    assert verdict.outcome == "contradicted"
    assert run(code) == repr(verdict)


def test_tensors_survive_the_snippet_to_the_last_bit() -> None:
    logits = torch.tensor([[1 / 3, -1e-30, 40.0]], dtype=torch.float64)
    labels = torch.tensor([2])
    assert run(snippet(negative_step, logits, labels, eta=0.1)) == repr(
        negative_step(logits, labels, eta=0.1)
    )


def test_a_failure_carries_the_snippet_as_a_note() -> None:
    with pytest.raises(AssertionError) as caught, reproducible(max, 1, 2):
        raise AssertionError
    assert caught.value.__notes__ == [snippet(max, 1, 2)]


def test_success_passes_silently() -> None:
    with reproducible(max, 1, 2):
        assert run(snippet(max, 1, 2)) == "2"
