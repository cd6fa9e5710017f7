"""Checkable questions: rewards, one-step effects through TRL's trainer, rows over seeds."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from squeeze.claims.group_relative import OneStep
from squeeze.errors import InputError
from squeeze.study.group_relative import (
    Recipe,
    SignedGRPOTrainer,
    group_loss,
    one_steps,
    run_seed,
    shape,
    trained,
)
from squeeze.study.records import kept
from squeeze.study.tiny_lm.grammar import facts
from squeeze.study.verifiable import (
    names_the_value,
    says_the_sum,
    sums,
    world_questions,
)

pytestmark = [
    pytest.mark.cpu,
    # TRL 1.16 reads an attribute that transformers 5.23 has renamed
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
SMALL = Recipe(
    questions=16,
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
    return one_steps("tinylm", 0, SMALL)


@pytest.mark.parametrize("questions", [world_questions, sums])
def test_every_question_is_asked_once_and_the_seed_sets_wording_and_order(questions) -> None:  # type: ignore[no-untyped-def]
    asked = questions(0, len(facts()))
    assert len({str(row["prompt"]) for row in asked}) == len(facts())
    assert asked == questions(0, len(facts())) != questions(1, len(facts()))


def test_an_answer_is_right_if_it_has_the_value_as_a_word_or_begins_with_the_sum() -> None:
    said = [[{"role": "assistant", "content": text}] for text in ("in the river .", "a riverbed")]
    assert names_the_value(said, ["river", "river"]) == [1.0, 0.0]
    assert says_the_sum([" 7\n5", " 17\n", " none"], ["7", "7", "7"]) == [1.0, 0.0, 0.0]


def test_a_group_step_without_its_wrong_answers_raises_the_right_ones(
    measured: tuple[OneStep, ...],
) -> None:
    """Only positive gradients on the right answers: to first order their mean can but rise."""
    assert len(measured) > 5
    assert all(step.masked > 0 for step in measured)
    assert all(1 <= step.n_right < SMALL.group for step in measured)


def test_one_step_effects_are_first_order_in_the_step(measured: tuple[OneStep, ...]) -> None:
    """The same rollouts at half the step: half the change, to a few percent."""
    half = one_steps("tinylm", 0, replace(SMALL, step=SMALL.step / 2))
    ratio = [a.masked / b.masked for a, b in zip(measured, half, strict=True)]
    assert 1.8 < float(np.median(ratio)) < 2.2


def test_a_seed_is_read_where_it_was_run(tmp_path: Path) -> None:
    recipe = replace(SMALL, questions=6)
    records, made = tmp_path / "records", []

    def make() -> dict[str, Any]:
        made.append(1)
        return run_seed("tinylm", 0, recipe)

    known, cache = asdict(recipe), tmp_path / "cache"
    of = {"shape": shape(recipe)}
    once = kept("0.json", known, make, cache, records, **of)
    assert set(once.entropy) == {"positive", "negative", "positive blind", "negative blind"}
    assert kept("0.json", known, make, cache, **of) == once
    none = tmp_path / "none"
    assert kept("0.json", known, make, none, records, recorded=True, **of) == once
    assert len(made) == 1
    with pytest.raises(InputError, match=r"1\.json is not in"):
        kept("1.json", known, make, cache, records, recorded=True)


def test_leaving_out_answers_without_advantage_changes_no_gradient() -> None:
    """What `group_loss` leaves out has no part in TRL's loss of the whole group."""
    seen: list[float] = []

    class Checked(SignedGRPOTrainer):
        inside = False

        def compute_loss(self, model, inputs, *args, **kwargs):  # type: ignore[no-untyped-def]
            if self.inside:
                return super().compute_loss(model, inputs, *args, **kwargs)
            self.inside = True
            group = {
                name: inputs[name]
                for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
            } | {"advantages": torch.tensor([1.0, -1.0, 0.0, 0.0])}
            weight = next(p for p in model.parameters() if p.requires_grad)
            both = group_loss(self, group), super().compute_loss(model, group)
            first, second = (torch.autograd.grad(loss, weight)[0] for loss in both)
            seen.append(float((first - second).abs().max() / second.abs().max()))
            self.inside = False
            return super().compute_loss(model, inputs, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("squeeze.study.group_relative.SignedGRPOTrainer", Checked)
        trained("tinylm", 0, SMALL, None)
    assert max(seen) < 1e-5
