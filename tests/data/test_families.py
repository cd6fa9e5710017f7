"""The probe set: kinds that the data has, kinds derived from it, and their order."""

import random

import pytest

from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.loading import load_examples, split
from squeeze.data.probe_set import KINDS, build_probe_set, permuted_words, random_words
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu


def example(name, **responses):
    return PreferenceExample(
        name,
        (Message("user", f"q {name}"),),
        f"good answer {name}",
        f"bad answer {name}",
        responses,
    )


TRAIN, HELD_OUT = [example("a"), example("b"), example("c")], [example("x"), example("y")]


def test_an_answer_of_another_prompt_is_never_ones_own():
    for item in build_probe_set(TRAIN, HELD_OUT).items:
        assert item.responses["other_answer"] != item.responses["chosen"]
        assert item.responses["unseen_answer"] != item.responses["chosen"]


def test_other_answers_come_from_training_and_unseen_ones_from_held_out_prompts():
    trained, unseen = {e.chosen for e in TRAIN}, {e.chosen for e in HELD_OUT}
    for item in build_probe_set(TRAIN, HELD_OUT).items:
        assert item.responses["other_answer"] in trained
        assert item.responses["unseen_answer"] in unseen


def test_what_the_data_carries_is_not_replaced():
    item = build_probe_set([example("a", permuted="as given")], []).items[0]
    assert item.responses["permuted"] == "as given"


def test_kinds_without_material_are_left_out():
    assert build_probe_set(TRAIN[:1], []).kinds() == ["chosen", "rejected", "permuted", "random"]


def test_an_unknown_kind_is_kept_behind_the_known_ones():
    kinds = build_probe_set([example("a", house_style="x")], []).kinds()
    assert kinds[-1] == "house_style"
    assert "house_style" not in KINDS


def test_a_permutation_keeps_the_words_of_spaced_and_unspaced_text():
    for text in ("one two three four five six", "今天天气很好我们去公园"):
        shuffled = permuted_words(text, random.Random(0))
        assert shuffled != text
        assert sorted(shuffled) == sorted(text)


def test_random_words_come_from_the_texts_and_count_as_many():
    words = random_words(["Red green", "blue"], "one two three", random.Random(0)).split()
    assert len(words) == 3
    assert set(words) <= {"red", "green", "blue"}
    assert len(random_words(["今天好"], "很好很好", random.Random(0))) == 4


def test_the_same_seed_gives_the_same_probe_set():
    assert build_probe_set(TRAIN, HELD_OUT, 1) == build_probe_set(TRAIN, HELD_OUT, 1)
    assert build_probe_set(TRAIN, HELD_OUT, 1) != build_probe_set(TRAIN, HELD_OUT, 2)


def test_the_embedded_data_have_every_kind_but_human_and_initial():
    train, held_out = split(load_examples("enthusiastic_en"), 4, 2, seed=0)
    assert set(KINDS) - set(build_probe_set(train, held_out).kinds()) == {"human", "initial"}


def test_no_training_pair_is_an_error():
    with pytest.raises(InputError, match="--pairs"):
        build_probe_set([], HELD_OUT)
