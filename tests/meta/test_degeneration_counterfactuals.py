"""RP-1 and SF-4's copied n-grams on made texts: the effect, and the same check with no cause.

Trained models' counterfactuals are in `test_finetuning_counterfactuals`.
"""

import random

import pytest

from squeeze.claims import catalogue
from squeeze.claims.degeneration import Texts
from squeeze.claims.sft import Copies
from squeeze.errors import InputError
from squeeze.study.stories.generator import make_stories

pytestmark = pytest.mark.cpu
SEEDS, PROMPTS = 5, 12
NAMES = ("repeated 4-grams", "distinct-2", "entropy")


def told(start):
    """Fluent stories, [seed][prompt]."""
    stories = make_stories(SEEDS * PROMPTS, seed=0, start=start)
    return [[s.text for s in stories[i::SEEDS]] for i in range(SEEDS)]


def looped(texts, words=12):
    """Each text's first words, over and over, as long as the text was."""

    def loop(text):
        start, count = text.split()[:words], len(text.split())
        return " ".join((start * count)[:count])

    return [[loop(text) for text in row] for row in texts]


def repetition(before, after, **more):
    """RP-1's rows on these texts."""
    return catalogue.get("RP-1").check(Texts(before, after, "tiny", range(SEEDS), **more))


def copying(before, after, own, sources):
    """SF-4's row on these texts."""
    texts = Texts(before, after, "tiny", range(SEEDS), own=own, sources=sources)
    return catalogue.get("SF-4").check(Copies(texts=texts))


def outcomes(verdicts):
    return [v.outcome for v in verdicts]


def test_loops_support_RP_1_in_all_its_parts():
    verdicts = repetition(told(0), looped(told(1000)))
    assert outcomes(verdicts) == ["supported"] * 3
    assert [v.comparison for v in verdicts] == list(NAMES)
    assert {v.n for v in verdicts} == {PROMPTS}


@pytest.mark.counterfactual("RP-1")
def test_RP_1_other_stories_as_fluent_as_before_are_not_supported():
    """λ = 0: the text changes, but it does not decay."""
    verdicts = repetition(told(0), told(1000))
    assert outcomes(verdicts) == ["inconclusive"] * 3


def test_RP_1_decay_beyond_the_counterfactuals_is_a_row_of_its_own():
    *_, contrast = repetition(told(0), looped(told(1000)), after_counterfactual=told(1000))
    assert (contrast.outcome, contrast.role) == ("supported", "secondary")
    *_, none = repetition(told(0), told(1000), after_counterfactual=told(2000))
    assert none.outcome == "inconclusive"


def test_RP_1_decay_undone_contradicts():
    verdicts = repetition(looped(told(1000)), told(0))
    assert outcomes(verdicts) == ["contradicted"] * 3


def test_RP_1_a_model_that_only_writes_more_does_not_repeat_itself():
    """Longer texts have a lower distinct-2 and more repeated n-grams whatever they say."""
    short = [[" ".join(text.split()[:25]) for text in row] for row in told(1000)]
    assert outcomes(repetition(short, told(0))) == ["inconclusive"] * 3


def test_RP_1_word_salad_is_not_repetition():
    """Words drawn at random from all stories: bad text, but neither repetitive nor poor."""
    rng = random.Random(0)
    words = [w for row in told(0) for text in row for w in text.split()]
    salad = [[" ".join(rng.sample(words, len(t.split()))) for t in row] for row in told(1000)]
    found = repetition(told(1000), salad)
    assert "supported" not in outcomes(found)


def test_RP_1_prompts_answered_with_next_to_nothing_are_left_out_and_counted():
    after = looped(told(1000))
    after[1][0] = "The end"
    verdicts = repetition(told(0), after)
    assert {v.n for v in verdicts} == {PROMPTS - 1}
    assert {v.evidence["prompts too short"] for v in verdicts} == {1}


def test_RP_1_without_two_prompts_to_compare_it_is_not_run_and_says_why():
    silent = [["" for _ in row] for row in told(0)]
    verdicts = repetition(told(0), silent)
    assert outcomes(verdicts) == ["not run"] * 3
    assert all("4 units" in v.reason for v in verdicts)


def test_RP_1_texts_of_different_prompts_are_refused():
    with pytest.raises(InputError, match="same prompts and seeds"):
        repetition(told(0), [row[1:] for row in told(0)])


def spliced(texts, sources):
    """The second half of each text replaced by that of another prompt's training answer."""

    def splice(i, text):
        half = len(text.split()) // 2
        other = sources[(i + 1) % len(sources)].split()
        return " ".join(text.split()[:half] + other[len(other) // 2 :])

    return [[splice(i, text) for i, text in enumerate(row)] for row in texts]


@pytest.fixture
def training():
    """Training stories in words that no other story has, and what each prompt may say anyway."""
    sources = [" ".join(f"{w}{i}" for w in "abcdefghijklmnop") for i in range(PROMPTS)]
    return sources, [[f"Say {i}.", source] for i, source in enumerate(sources)]


def test_answers_spliced_from_other_prompts_support_SF_4(training):
    sources, own = training
    (verdict,) = copying(
        told(0),
        spliced(told(0), sources),
        [own] * SEEDS,
        [sources] * SEEDS,
    )
    assert verdict.supported
    assert verdict.claim == "SF-4"


@pytest.mark.counterfactual("SF-4")
def test_SF_4_the_same_answers_when_those_were_not_trained_on_are_not_supported(training):
    """The other prompts' answers removed from training: nothing can be copied from them."""
    sources, own = training
    none: list[str] = []
    (verdict,) = copying(
        told(0),
        spliced(told(0), sources),
        [own] * SEEDS,
        [none] * SEEDS,
    )
    assert verdict.outcome == "inconclusive"


def test_SF_4_learning_ones_own_answers_is_not_copying(training):
    sources, own = training
    (verdict,) = copying(
        told(0),
        [sources] * SEEDS,
        [own] * SEEDS,
        [sources] * SEEDS,
    )
    assert verdict.outcome == "inconclusive"
    assert verdict.effect == pytest.approx(0)
