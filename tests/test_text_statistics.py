"""Statistics of generated text: closed forms, bounds, and scripts with and without spaces."""

import math
import unicodedata
from dataclasses import asdict

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from squeeze.text_statistics import (
    copied_ngrams,
    describe,
    distinct,
    ngrams,
    repeated_share,
    unigram_entropy,
    units,
)

pytestmark = pytest.mark.cpu

# Few different units, so that repetition is common.
UNITS = st.lists(st.sampled_from("abcde"), max_size=40)
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat, the CAT!", ["the", "cat", ",", "the", "cat", "!"]),
        ("!!!!", ["!", "!", "!", "!"]),
        ("don't stop", ["don't", "stop"]),
        ("我爱你。", ["我", "爱", "你", "。"]),
        ("今日はGPTの日", ["今", "日", "は", "gpt", "の", "日"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Привет, мир", ["привет", ",", "мир"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_units_are_words_or_characters_as_the_script_has_it(text, expected):
    assert units(text) == expected


@given(TEXTS)
def test_units_lose_nothing_but_space(text):
    folded = unicodedata.normalize("NFC", text).casefold()
    assert "".join(units(text)) == regex.sub(r"\s", "", folded)


@given(st.text(alphabet="eéàüöñ ", max_size=30))
def test_units_do_not_depend_on_unicodes_spelling_of_a_letter(text):
    assert units(unicodedata.normalize("NFD", text)) == units(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize("period", [1, 2, 5])
@pytest.mark.parametrize("length", [10, 33])
def test_a_loop_repeats_all_ngrams_but_one_period(period, length):
    """A text of length L with period p has L − 3 four-grams, p of them different."""
    loop = [str(i % period) for i in range(length)]
    assert repeated_share(loop, 4) == pytest.approx(1 - period / (length - 3))


@given(UNITS, st.integers(1, 5))
def test_repeated_share_counts_what_occurred_before(text, n):
    """Against the definition read literally: an n-gram repeats if an earlier one equals it."""
    grams = ngrams(text, n)
    seen_before = sum(gram in grams[:i] for i, gram in enumerate(grams))
    assert repeated_share(text, n) == pytest.approx(seen_before / len(grams) if grams else 0.0)


@given(UNITS, st.integers(1, 5))
def test_repetition_and_diversity_keep_their_bounds(text, n):
    assert 0 <= repeated_share(text, n) < 1
    assert 0 <= distinct([text], n) <= 1
    assert -1e-12 <= unigram_entropy(text) <= math.log(max(len(text), 1)) + 1e-12


@given(st.integers(1, 40), st.integers(1, 4))
def test_without_repetition_distinct_n_is_the_share_of_places_an_ngram_can_start(length, n):
    text = list(map(str, range(length)))
    assert distinct([text], n) == pytest.approx(max(length - n + 1, 0) / length)


def test_distinct_n_of_several_texts_sees_that_they_are_the_same():
    one = units("a b c d e")
    assert distinct([one, one], 2) == pytest.approx(distinct([one], 2) / 2)


@given(st.integers(1, 30), st.integers(1, 6))
def test_equally_frequent_units_have_the_entropy_of_their_number(kinds, times):
    text = [str(i) for i in range(kinds)] * times
    assert unigram_entropy(text) == pytest.approx(math.log(kinds))


@given(UNITS.filter(bool))
def test_entropy_does_not_change_when_a_text_is_said_twice(text):
    assert unigram_entropy(text * 2) == pytest.approx(unigram_entropy(text))


def test_an_answer_of_another_prompt_is_copied_whole_and_ones_own_is_not():
    first, second = "one two three four five six", "seven eight nine ten eleven twelve"
    shares = copied_ngrams([second, first], [["", first], ["", first]], [first, second])
    assert shares.tolist() == [1.0, 0.0]


def test_ngrams_of_the_prompt_are_not_copied():
    answer = "the red fox runs away"
    shares = copied_ngrams([answer], [["Say: the red fox runs away"]], [answer])
    assert shares.tolist() == [0.0]


def test_half_an_answer_copied_is_counted_by_its_ngrams():
    """Of the five 4-grams of a b c d w x y z, only a b c d stands in the source."""
    shares = copied_ngrams(["a b c d w x y z"], [[]], ["a b c d e f g h"])
    assert shares.tolist() == [1 / 5]


@given(st.lists(st.text(alphabet="ab c", max_size=20), min_size=1, max_size=3), TEXTS)
def test_copied_shares_are_shares_and_none_without_sources(texts, source):
    own = [[] for _ in texts]
    shares = copied_ngrams(texts, own, [source])
    assert shares.shape == (len(texts),)
    assert np.all((shares >= 0) & (shares <= 1))
    assert not copied_ngrams(texts, own, []).any()


def test_texts_without_their_own_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        copied_ngrams(["a", "b"], [[]], [])


def test_a_description_is_the_mean_of_its_texts():
    found = asdict(describe(["a b a b a b a b", "p q r s t u v w"]))
    assert found.pop("distinct_2_pooled") == pytest.approx((2 + 7) / 16)
    assert found == pytest.approx(
        {
            "n": 2,
            "length": 8,
            "repeated_4": (3 / 5 + 0) / 2,
            "distinct_1": (2 / 8 + 1) / 2,
            "distinct_2": (2 / 8 + 7 / 8) / 2,
            "entropy": (math.log(2) + math.log(8)) / 2,
        }
    )


def test_no_texts_are_not_described():
    with pytest.raises(ValueError, match="no texts"):
        describe([])
