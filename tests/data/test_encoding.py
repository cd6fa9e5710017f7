"""Templates and the boundary between prompt and response, on the level of tokens."""

import pytest

from squeeze.data.encoding import apply_template, encode_item, with_system
from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.probe_set import ProbeItem
from squeeze.errors import InputError
from tests.tiny_model import tiny_tokenizer

pytestmark = pytest.mark.cpu

PROMPT = (Message("user", "Why is the sky blue?"),)
ITEM = ProbeItem("e1", "train", PROMPT, {"chosen": "Light scatters!", "rejected": "It is."})


def encoded(template, item=ITEM, **options):
    tokenizer = tiny_tokenizer()
    apply_template(tokenizer, template)
    result = encode_item(tokenizer, item, **options)
    whole = (
        tokenizer.decode(result.prompt_ids),
        {kind: tokenizer.decode(ids) for kind, ids in result.response_ids.items()},
    )
    return whole


@pytest.mark.parametrize("template", ["model", "chatml"])
def test_chatml_ends_a_response_with_its_end_token_and_newline(template):
    prompt, responses = encoded(template)
    assert prompt == "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n"
    assert responses["chosen"] == "Light scatters!<|im_end|>\n"


def test_the_seeds_template_has_a_system_text_and_no_role_markers():
    prompt, responses = encoded("unmarked")
    assert prompt == "You are a helpful assistant.<|im_end|>Why is the sky blue?"
    assert responses == {"chosen": "Light scatters!<|im_end|>", "rejected": "It is.<|im_end|>"}


def test_the_seeds_template_keeps_a_given_system_text():
    item = ProbeItem("e1", "train", (Message("system", "Be brief."), *PROMPT), ITEM.responses)
    assert encoded("unmarked", item)[0] == "Be brief.<|im_end|>Why is the sky blue?"


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("unmarked", "Be brief.<|im_end|>Why is the sky blue?"),
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy is the sky blue?"
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("plain", "Be brief.Why is the sky blue?"),
    ],
)
def test_a_configured_system_text_goes_before_the_prompt_in_every_template(template, prompt):
    example = with_system(PreferenceExample("e1", PROMPT, "Yes!", "No."), "Be brief.")
    item = ProbeItem("e1", "train", example.prompt, ITEM.responses)
    assert encoded(template, item)[0] == prompt


def test_a_prompts_own_system_text_wins_over_the_configured_one():
    own = PreferenceExample("e1", (Message("system", "Sing."), *PROMPT), "La.", "No.")
    assert with_system(own, "Be brief.") is own


@pytest.mark.parametrize(
    ("template", "after"),
    [("unmarked", ""), ("plain", ""), ("chatml", "\n"), ("model", "\n")],
)
def test_a_response_is_its_text_one_end_token_and_what_the_template_writes_after(template, after):
    tokenizer = tiny_tokenizer()
    apply_template(tokenizer, template)
    item = ProbeItem("e1", "train", PROMPT, {"chosen": "hi"})
    ids = encode_item(tokenizer, item).response_ids["chosen"]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids == [*tokenizer("hi")["input_ids"], end, *tokenizer(after)["input_ids"]]


def test_plain_is_the_texts_alone():
    prompt, responses = encoded("plain")
    assert (prompt, responses["rejected"]) == ("Why is the sky blue?", "It is.<|im_end|>")


def test_tokens_that_merge_across_the_boundary_belong_to_the_response():
    # In "plain" nothing separates prompt and answer; BPE may merge the "?" with what follows.
    tokenizer = tiny_tokenizer()
    apply_template(tokenizer, "plain")
    item = ProbeItem("e1", "train", (Message("user", "so th"),), {"chosen": "ere", "rejected": "x"})
    result = encode_item(tokenizer, item)
    for kind, text in item.responses.items():
        joined = tokenizer("so th" + text)["input_ids"] + [tokenizer.eos_token_id]
        assert result.prompt_ids + result.response_ids[kind] == joined


def test_too_long_names_example_kind_and_limit():
    with pytest.raises(InputError, match=r"example 'e1', chosen: .* more than the 5 "):
        encoded("chatml", max_length=5)


def test_cutting_keeps_the_prompt_and_the_first_tokens_of_every_response():
    tokenizer = tiny_tokenizer()
    apply_template(tokenizer, "chatml")
    whole = encode_item(tokenizer, ITEM)
    limit = len(whole.prompt_ids) + 2
    cut = encode_item(tokenizer, ITEM, limit, cut=True)
    assert cut.prompt_ids == whole.prompt_ids
    assert cut.response_ids == {kind: ids[:2] for kind, ids in whole.response_ids.items()}


def test_an_unknown_template_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown template 'alpaca'.*unmarked, chatml, plain"):
        apply_template(tiny_tokenizer(), "alpaca")


def test_a_tokenizer_without_template_needs_one_named():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template; choose one with --template"):
        apply_template(tokenizer, "model")
