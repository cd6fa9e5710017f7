"""Pairs that differ in one word: what they are, and where the tokens after the edit begin."""

import pytest

from squeeze.data.encoding import encode_item
from squeeze.data.probe_set import ProbeItem
from squeeze.models import load_tokenizer
from squeeze.study.one_edit import edit_position, one_edit_pairs
from squeeze.study.tiny_lm import tiny_lm

pytestmark = pytest.mark.cpu


def test_a_pair_differs_in_one_word_and_its_counterfactuals_in_many():
    edited, *reworded = ([*p.train, *p.held_out] for p in (pairs(words=n) for n in range(3)))
    assert [e.rejected for e in reworded[0]] != [e.rejected for e in reworded[1]]
    for a, *others in zip(edited, *reworded, strict=True):
        words = list(zip(a.chosen.split(), a.rejected.split(), strict=True))
        assert sum(x != y for x, y in words) == 1
        for b in others:
            assert (a.prompt, a.chosen) == (b.prompt, b.chosen)
            shared = set(b.chosen.split()) & set(b.rejected.split())
            assert len(shared) < len(set(b.chosen.split())) / 2


def pairs(words):
    return one_edit_pairs(10, 4, 0, words=words)


def test_the_edit_is_where_the_answers_tokens_first_differ():
    tokenizer = load_tokenizer(str(tiny_lm()))
    for e in one_edit_pairs(6, 0, 1).train:
        pair = {"chosen": e.chosen, "rejected": e.rejected}
        item = encode_item(tokenizer, ProbeItem(e.id, "train", e.prompt, pair), None)
        words = zip(e.chosen.split(), e.rejected.split(), strict=True)
        assert edit_position(item) == next(i for i, (a, b) in enumerate(words) if a != b)
