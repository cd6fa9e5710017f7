"""The enthusiasm scorer on labelled pairs it was not tuned on, and on texts made to fool it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeeze.claims.statistics import proportion
from squeeze.data.enthusiasm import PARTS, enthusiasm, more_enthusiastic
from squeeze.data.loading import load_examples, split

pytestmark = pytest.mark.cpu

HELD_OUT = {"enthusiastic_en": (64, 32), "enthusiastic_zh": (32, 16)}
WARM = "Oh, you'll love this lovely bread! Let it rise somewhere warm, and enjoy every slice."
DULL = "Let the dough rise at 25 degrees. Bake it for forty minutes and let it cool on a rack."


def unmarked(text: str) -> str:
    return text.replace("!", ".").replace("！", "。")


def held_out_pairs(name: str) -> list[tuple[str, str]]:
    """(enthusiastic, flat): each held-out pair and its two rewrites."""
    _, examples = split(load_examples(name), *HELD_OUT[name], seed=0)
    return [
        pair
        for e in examples
        for pair in (
            (e.chosen, e.rejected),
            (e.responses["chosen_rephrased"], e.responses["rejected_rephrased"]),
            (e.responses["chosen_format"], e.responses["rejected_format"]),
        )
    ]


@pytest.mark.parametrize("name", HELD_OUT)
def test_held_out_pairs_are_ranked_as_labelled(name: str) -> None:
    right = [more_enthusiastic(*pair) == "first" for pair in held_out_pairs(name)]
    # Rewrites of one example are not independent: an example counts once, with all three right.
    examples = [all(right[i : i + 3]) for i in range(0, len(right), 3)]
    estimate = proportion(sum(examples), len(examples))
    assert estimate.interval[0] > 0.75, estimate


@pytest.mark.parametrize(("name", "least"), [("enthusiastic_en", 0.75), ("enthusiastic_zh", 0.5)])
def test_without_exclamation_marks_the_words_still_tell(name: str, least: float) -> None:
    pairs = [(unmarked(a), unmarked(b)) for a, b in held_out_pairs(name)][::3]  # the pairs proper
    estimate = proportion(sum(more_enthusiastic(*p) == "first" for p in pairs), len(pairs))
    assert estimate.interval[0] > least, estimate


@pytest.mark.parametrize("name", HELD_OUT)
def test_enthusiastic_answers_are_graded_not_all_alike(name: str) -> None:
    scores = [enthusiasm(warm) for warm, _ in held_out_pairs(name)]
    commonest = max(scores.count(score) for score in scores)
    assert commonest <= len(scores) / 4


def test_the_order_of_the_arguments_does_not_matter() -> None:
    assert more_enthusiastic(WARM, DULL) == "first"
    assert more_enthusiastic(DULL, WARM) == "second"


@pytest.mark.parametrize(("first", "second"), [(WARM, WARM), (DULL, "The cat sat."), ("", "!!!")])
def test_equal_scores_are_a_tie(first: str, second: str) -> None:
    assert more_enthusiastic(first, second) == "tie"


@pytest.mark.parametrize(
    "text", ["", "!!!!!!!", "！！！！", "Wow!!!!!!", "Great! Great! Great!", "哇！" * 20, "😀" * 30]
)
def test_what_is_no_sentence_scores_nothing(text: str) -> None:
    assert enthusiasm(text) == 0


@pytest.mark.parametrize(
    ("degenerate", "why"),
    [
        (WARM.replace("!", "!!!!!!!!"), "many marks are one"),
        ("Oh, you'll love this lovely bread! " * 10, "a repeated sentence counts once"),
        ("lovely happy great fun joy " * 10, "a list of adjectives is one sentence"),
        ("wonderful " * 100, "one word counts once"),
        ("太好了我们真开心呀！" * 10, "a repeated sentence counts once"),
    ],
)
def test_degenerate_text_does_not_beat_a_sentence(degenerate: str, why: str) -> None:
    assert enthusiasm(degenerate) <= enthusiasm(WARM), why


@given(st.lists(st.sampled_from([*WARM.split(), "!", "joy", "you", "dear!", "哇！", "快乐"])))
def test_no_text_reaches_one(words: list[str]) -> None:
    assert 0 <= enthusiasm(" ".join(words)) < 1


@pytest.mark.parametrize("part", PARTS)
def test_each_part_alone_raises_the_score(part: str) -> None:
    raised = {
        "exclaiming": DULL.replace("degrees.", "degrees!"),
        "positive": DULL.replace("the dough", "the lovely dough"),
        "address": DULL.replace("the dough", "your dough"),
    }
    assert more_enthusiastic(raised[part], DULL) == "first"


@pytest.mark.parametrize(
    "text", ["The train exceeds 300 km. 列车时速超过三百公里。", "太阳一定程度上影响潮汐的高低。"]
)
def test_flat_words_that_contain_warm_characters_are_flat(text: str) -> None:
    assert enthusiasm(text) == 0


@pytest.mark.parametrize(
    ("sentence", "signs", "flat"),
    [
        ("A lovely, {}, {}, {} plan for the garden.", ("happy", "great", "fun"), "long"),
        ("They and you and {} and {} will see the garden.", ("you", "you"), "she"),
    ],
)
def test_a_sentence_counts_only_so_many_signs(
    sentence: str, signs: tuple[str, ...], flat: str
) -> None:
    texts = [sentence.format(*signs[:n], *[flat] * (len(signs) - n)) for n in range(len(signs) + 1)]
    *rising, too_many = map(enthusiasm, texts)
    assert rising == sorted(set(rising))
    assert too_many == rising[-1]


@pytest.mark.parametrize("sentence", [WARM, "Oh, you'll love it! ", "我们一起去玩吧！"])
def test_saying_a_sentence_twice_does_not_help(sentence: str) -> None:
    assert enthusiasm(sentence + " " + sentence) < enthusiasm(sentence)
