"""CHES against its definition written out by hand, and the edit distance against recursion."""

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from squeeze.data.loading import load_examples
from squeeze.scan import ches, ches_scores, edit_distance
from tests.tiny_model import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.cpu


@pytest.fixture(scope="module")
def examples():
    return load_examples("enthusiastic_en")[:4]


@torch.no_grad()
def by_hand(model, tokenizer, example):
    """Definition 2 as it stands: the states h(x, y_<k), added up in a loop, one pass an answer."""
    sums, lengths = {}, {}
    for kind in ("chosen", "rejected"):
        turns = [{"role": m.role, "content": m.content} for m in example.prompt]
        answer = {"role": "assistant", "content": getattr(example, kind)}
        prompt = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=True, tokenize=True
        )["input_ids"]
        full = tokenizer.apply_chat_template([*turns, answer], return_dict=True, tokenize=True)
        ids = full["input_ids"]
        assert ids[: len(prompt)] == prompt
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
        total = torch.zeros(states.shape[-1], dtype=torch.float64)
        for place in range(len(prompt), len(ids)):
            total += states[0, place - 1].double()  # the state that predicts the token at `place`
        sums[kind], lengths[kind] = total, len(ids) - len(prompt)
    plus, minus = sums["chosen"], sums["rejected"]
    n, m = lengths["chosen"], lengths["rejected"]
    return (
        float((plus * minus).sum() - plus.norm() ** 2),
        float((plus * minus).sum() / (n * m) - plus.norm() ** 2 / n**2),
    )


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_ches_is_its_definition_written_out(family, examples):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    scores = ches_scores(model, tokenizer, examples)
    assert [s.example for s in scores] == [e.id for e in examples]
    for example, score in zip(examples, scores, strict=True):
        raw, normalised = by_hand(model, tokenizer, example)
        # float32 states, summed over some 50 tokens, then squared: 1e-4 of the score.
        assert score.ches == pytest.approx(raw, rel=1e-4)
        assert score.normalised == pytest.approx(normalised, rel=1e-4)


def test_a_score_does_not_depend_on_what_else_is_scored(examples):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    together = ches_scores(model, tokenizer, examples)
    alone = [ches_scores(model, tokenizer, [example])[0] for example in reversed(examples)]
    assert together == alone[::-1]


def test_scoring_leaves_the_model_in_the_mode_it_was_in(examples):
    model = tiny_model().train()
    ches_scores(model, tiny_tokenizer(), examples[:1])
    assert model.training


def test_equal_answers_score_zero_exactly():
    states = torch.randn(7, 16, generator=torch.Generator().manual_seed(1))
    assert ches(states, states.clone()) == (0.0, 0.0)


def test_an_answer_on_the_other_side_scores_minus_twice_its_square():
    states = torch.eye(3)
    assert ches(states, -states) == (-6.0, pytest.approx(-6 / 9))


def test_scaling_the_states_scales_both_forms_by_its_square():
    draw = torch.Generator().manual_seed(2)
    chosen, rejected = (torch.randn(n, 8, generator=draw).double() for n in (5, 9))
    for scaled, plain in zip(ches(3 * chosen, 3 * rejected), ches(chosen, rejected), strict=True):
        assert scaled == pytest.approx(9 * plain, rel=1e-12)


def test_repeating_both_answers_changes_the_raw_form_only():
    draw = torch.Generator().manual_seed(3)
    chosen, rejected = (torch.randn(n, 8, generator=draw).double() for n in (5, 9))
    raw, normalised = ches(chosen, rejected)
    twice = ches(chosen.repeat(2, 1), rejected.repeat(2, 1))
    assert twice == (pytest.approx(4 * raw), pytest.approx(normalised))


def levenshtein(first, second):
    """The textbook recursion."""

    @cache
    def distance(i, j):
        if not (i and j):
            return i + j
        same = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(same, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(first), len(second))


tokens = st.lists(st.integers(0, 3), max_size=12)


@given(tokens, tokens)
def test_the_edit_distance_is_levenshteins_over_the_longer_length(first, second):
    longer = max(len(first), len(second), 1)
    assert edit_distance(first, second) == pytest.approx(levenshtein(first, second) / longer)
