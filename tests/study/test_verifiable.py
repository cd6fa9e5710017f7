"""The checkable questions: rewards, one-step effects through TRL's trainer, rows over seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from squeeze.study.registration import verifiable_plan
from squeeze.study.tiny_lm.grammar import facts
from squeeze.study.verifiable import (
    OneStep,
    Recipe,
    SeedResult,
    judge,
    names_the_value,
    one_steps,
    questions,
    run_seed,
)

pytestmark = [
    pytest.mark.cpu,
    # TRL 1.16 reads an attribute that transformers 5.23 has renamed
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
SMALL = Recipe(
    group=4,
    tokens=16,
    temperature=1.0,
    step=1e-2,
    steps=1,
    questions_a_step=1,
    learning_rate=5e-4,
)


@pytest.fixture(scope="module")
def measured() -> tuple[OneStep, ...]:
    return one_steps(0, SMALL)


def test_every_fact_is_asked_once_and_the_seed_sets_wording_and_order() -> None:
    asked = questions(0)
    assert len(asked) == len(facts())
    assert len({row["prompt"][0]["content"] for row in asked}) == len(asked)
    assert asked == questions(0) != questions(1)


def test_an_answer_is_right_if_it_has_the_value_as_a_word() -> None:
    said = [[{"role": "assistant", "content": text}] for text in ("in the river .", "a riverbed")]
    assert names_the_value(said, ["river", "river"]) == [1.0, 0.0]


def test_a_group_step_without_its_wrong_answers_raises_the_right_ones(
    measured: tuple[OneStep, ...],
) -> None:
    """Only positive gradients on the right answers: to first order their mean can but rise."""
    assert len(measured) > 10
    assert all(step.masked > 0 for step in measured)
    assert all(1 <= step.n_right < SMALL.group for step in measured)


def test_one_step_effects_are_first_order_in_the_step(measured: tuple[OneStep, ...]) -> None:
    """The same rollouts at half the step: half the change, to a few percent."""
    half = one_steps(0, Recipe(**{**vars(SMALL), "step": SMALL.step / 2}))
    ratio = [a.masked / b.masked for a, b in zip(measured, half, strict=True)]
    assert 1.8 < float(np.median(ratio)) < 2.2


def test_a_seed_is_read_where_it_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = run_seed(0, SMALL, tmp_path)
    monkeypatch.setattr("squeeze.study.verifiable.one_steps", None)
    assert run_seed(0, SMALL, tmp_path) == once
    assert set(once.entropy) == {"positive", "negative"}


def result(seed: int, better: float) -> SeedResult:
    """Twenty questions; the masked step beats the full one on a share `better` of them."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(20, generator=generator).tolist()
    steps = tuple(
        OneStep(i, 4, 0.5, 0.6 if i < 20 * better else 0.4, 0.1, noise[i]) for i in range(20)
    )
    return SeedResult(seed, steps, {"positive": (0.5 + noise[0] / 10,) * 4, "negative": (0.9,) * 4})


def test_rows_are_the_registered_ones_and_follow_the_numbers() -> None:
    rows = {row.comparison: row for row in judge([result(s, 0.7 + s / 20) for s in range(5)])}
    assert list(rows) == [row["row"] for row in verifiable_plan()["statistics"]]
    assert rows["GR-1"].supported
    assert rows["GR-1"].effect == pytest.approx(0.3)
    assert rows["NS-1"].supported
    assert rows["GR-2"].outcome != "supported"  # scores drawn without regard to the changes


def test_the_counterfactual_that_masking_does_not_help_contradicts_gr_1() -> None:
    rows = judge([result(s, 0.1 + s / 20) for s in range(5)])
    assert rows[0].outcome == "contradicted"


def test_fewer_than_five_seeds_support_nothing() -> None:
    assert not any(row.supported for row in judge([result(s, 0.9 + s / 20) for s in range(2)]))
