"""Sampling answers: what a seed fixes, what batching may not change, what is left untouched."""

import pytest
import torch

from squeeze.generation import generate_answers
from tests.tiny_model import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.cpu
PROMPTS = ["Why?", "Tell me of the sea, and of ships.", "How do birds fly so high?"]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen3")


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return tokenizer(PROMPTS)["input_ids"]


def test_padding_a_batch_changes_no_greedy_answer(model, tokenizer, prompts):
    options = {"max_new_tokens": 12, "temperature": 0.0}
    together = generate_answers(model, tokenizer, prompts, **options)
    alone = [generate_answers(model, tokenizer, [p], **options)[0] for p in prompts]
    assert together == alone
    assert generate_answers(model, tokenizer, prompts, **options, batch_size=2) == alone


def test_a_seed_fixes_the_samples_and_another_gives_others(model, tokenizer, prompts):
    first, again, other = (
        generate_answers(model, tokenizer, prompts, max_new_tokens=12, seed=s) for s in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_sampling_leaves_random_state_and_mode_of_training_as_they_were(model, tokenizer, prompts):
    model.train()
    before = torch.get_rng_state()
    generate_answers(model, tokenizer, prompts, max_new_tokens=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_an_empty_prompt_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="at least one token"):
        generate_answers(model, tokenizer, [[]], max_new_tokens=4)


def test_an_answer_ends_at_the_models_own_end_of_text(model, tokenizer, prompts, monkeypatch):
    """The third token of a greedy answer is made the end of text: two at most stand before it."""
    options = {"max_new_tokens": 6, "temperature": 0.0}
    monkeypatch.setattr(model.generation_config, "eos_token_id", [])
    said = model.generate(torch.tensor([prompts[0]]), max_new_tokens=6, do_sample=False)
    row = said[0, len(prompts[0]) :].tolist()
    (whole,) = generate_answers(model, tokenizer, prompts[:1], **options)
    assert (whole.n_tokens, whole.ended) == (6, tokenizer.eos_token_id in row)
    monkeypatch.setattr(model.generation_config, "eos_token_id", row[2])
    (cut,) = generate_answers(model, tokenizer, prompts[:1], **options)
    assert (cut.n_tokens, cut.ended) == (row.index(row[2]), True)
