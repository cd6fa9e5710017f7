"""The tiny language model: its world's kinds mean what they say, and the model knows its facts."""

import pytest

from squeeze.data.probe_set import build_probe_set
from squeeze.errors import InputError
from squeeze.generation import generate_answers
from squeeze.models import load
from squeeze.study.tiny_lm import tiny_examples, tiny_lm
from squeeze.study.tiny_lm.grammar import (
    SLOTS,
    STYLES,
    corpus,
    facts,
    vocabulary,
)

pytestmark = pytest.mark.cpu

KINDS = ("chosen", "rejected")

FACTS = {f"{fact.animal}-{fact.attribute}": fact for fact in facts()}
CONTENT = {fact.animal for fact in facts()} | {fact.value for fact in facts()}
SLOT_WORDS = {word for words in SLOTS.values() for word in words}


def content(text):
    """The words of a text that tell a fact: an animal and a value."""
    return {word for word in text.split() if word in CONTENT}


def frame(text):
    """The text with its fact left out."""
    return [word for word in text.split() if word not in CONTENT]


@pytest.fixture(scope="module")
def tiny_lm_directory():
    return tiny_lm()


@pytest.fixture(scope="module")
def examples():
    train, held_out = tiny_examples(24, 8, seed=0)
    return [*train, *held_out]


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others():
    assert tiny_examples(8, 4, seed=0) == tiny_examples(8, 4, seed=0)
    assert tiny_examples(8, 4, seed=0) != tiny_examples(8, 4, seed=1)


def test_every_pair_is_about_a_fact_of_its_own(examples):
    assert len({example.id for example in examples}) == len(examples)


def test_chosen_rejected_and_their_rephrasings_state_the_example_s_fact(examples):
    for e in examples:
        fact = FACTS[e.id]
        told = [e.chosen, e.rejected, *(e.responses[f"{k}_rephrased"] for k in KINDS)]
        assert all(content(text) == {fact.animal, fact.value} for text in told)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rephrasing_shares_no_slot_word_and_no_template(examples, kind):
    for e in examples:
        first, second = getattr(e, kind).split(), e.responses[f"{kind}_rephrased"].split()
        assert not set(first) & set(second) & SLOT_WORDS
        assert first != second


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_format_says_another_fact_in_the_same_words(examples, kind):
    for e in examples:
        text, other = getattr(e, kind), e.responses[f"{kind}_format"]
        assert frame(text) == frame(other)
        assert not content(text) & content(other)


def test_the_preferred_answer_is_told_from_the_other_by_its_kind_words(examples):
    kind, unkind = ({*SLOTS[a], *SLOTS[b]} for a, b in (("lovely", "friend"), ("dull", "fool")))
    for e in examples:
        assert set(e.chosen.split()) & kind
        assert not set(e.chosen.split()) & unkind
        assert set(e.rejected.split()) & unkind
        assert not set(e.rejected.split()) & kind


def test_the_probe_set_has_every_kind_and_only_words_of_the_world():
    train, held_out = tiny_examples(8, 4, seed=0)
    probes = build_probe_set(train, held_out)
    wanted = "chosen chosen_rephrased chosen_format rejected rejected_rephrased rejected_format "
    wanted += "other_answer unseen_answer human permuted random"
    assert probes.kinds() == wanted.split()
    used = {w for item in probes.items for text in item.responses.values() for w in text.split()}
    assert used <= set(vocabulary())


def test_more_pairs_than_facts_are_refused():
    with pytest.raises(InputError, match="60 facts"):
        tiny_examples(70, 10, seed=0)


def test_the_text_mixes_styles_by_their_shares():
    styles = [text.style for text in corpus(1500, seed=1) if text.question]
    for name, style in STYLES.items():
        share = styles.count(name) / len(styles)
        # Five standard deviations of a share of more than 1000 draws.
        assert abs(share - style.share) < 5 * (style.share * (1 - style.share) / 1000) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_has_no_opening_of_a_pair_s_answers(examples, kind):
    heard = [text.answer for text in corpus(1500, seed=1)]
    for e in examples:
        opening = " ".join(getattr(e, kind).split()[:4])
        assert not any(opening in text for text in heard)


def test_the_checkpoint_is_trained_once(tiny_lm_directory):
    weights = tiny_lm_directory / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert tiny_lm() == tiny_lm_directory
    assert weights.stat().st_mtime_ns == written


def test_it_loads_as_any_local_model_and_has_about_a_million_parameters(tiny_lm_directory):
    model, tokenizer = load(str(tiny_lm_directory))
    assert model.config.model_type == "qwen3"
    assert 0.7e6 < model.num_parameters() < 1.5e6
    text = corpus(3, seed=5)[0].answer
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_its_greedy_answers_state_the_right_facts(tiny_lm_directory):
    model, tokenizer = load(str(tiny_lm_directory))
    train, _ = tiny_examples(len(FACTS), 0, seed=0)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": e.prompt[0].content}],
            add_generation_prompt=True,
            return_dict=True,
        )["input_ids"]
        for e in train
    ]
    answers = generate_answers(model, tokenizer, prompts, max_new_tokens=24, temperature=0.0)
    right = [
        content(answer.text) == {FACTS[e.id].animal, FACTS[e.id].value}
        for e, answer in zip(train, answers, strict=True)
    ]
    assert sum(right) >= 0.9 * len(right)
