"""Pairs that differ in one word: what they are, and where the tokens after the edit begin."""

import pytest

from squeeze.data.encoding import encode_item
from squeeze.data.probe_set import ProbeItem
from squeeze.models import load_tokenizer
from squeeze.study.one_edit import edit_position, one_edit_pairs
from squeeze.study.tiny_lm import tiny_lm

pytestmark = pytest.mark.cpu


def test_a_pair_differs_in_one_word_and_its_counterfactual_in_many():
    edited, reworded = (one_edit_pairs(10, 4, 0, reworded=r) for r in (False, True))
    for a, b in zip(
        [*edited.train, *edited.held_out], [*reworded.train, *reworded.held_out], strict=True
    ):
        words = list(zip(a.chosen.split(), a.rejected.split(), strict=True))
        assert sum(x != y for x, y in words) == 1
        assert (a.prompt, a.chosen) == (b.prompt, b.chosen)
        shared = set(b.chosen.split()) & set(b.rejected.split())
        assert len(shared) < len(set(b.chosen.split())) / 2


def test_the_edit_is_where_the_answers_tokens_first_differ():
    tokenizer = load_tokenizer(str(tiny_lm()))
    for e in one_edit_pairs(6, 0, 1).train:
        pair = {"chosen": e.chosen, "rejected": e.rejected}
        item = encode_item(tokenizer, ProbeItem(e.id, "train", e.prompt, pair), None)
        words = zip(e.chosen.split(), e.rejected.split(), strict=True)
        assert edit_position(item) == next(i for i, (a, b) in enumerate(words) if a != b)
