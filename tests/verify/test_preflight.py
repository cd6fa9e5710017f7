"""The preflight finds what is planted in data and template, and nothing in sound data."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from squeeze.errors import InputError
from squeeze.verify.loading import preflight, read_rows
from squeeze.verify.preflight import DataSubject
from squeeze.verify.runner import failures, verify
from squeeze.verify.tiny import tiny_rows, tiny_tokenizer

pytestmark = pytest.mark.cpu

OTHER_START = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>bot: {% endif %}"
)
NO_END = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def rows_with(**changes):
    rows = tiny_rows()
    return [*rows[:3], rows[3] | changes]


def answer(text):
    return [{"role": "assistant", "content": text}]


def rendered_rows(tokenizer):
    """Rows of plain text that the template has written already, its first token included."""
    return [
        {
            "prompt": tokenizer.apply_chat_template(
                row["prompt"], tokenize=False, add_generation_prompt=True
            ),
            "chosen": row["chosen"][0]["content"],
            "rejected": row["rejected"][0]["content"],
        }
        for row in tiny_rows()
    ]


def failed(subject):
    return [result.check.id for result in failures(verify(subject))]


def test_sound_rows_pass():
    assert failed(DataSubject(tiny_rows(), tiny_tokenizer())) == []


def test_double_beginning_of_text_is_found(bos_directory):
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(bos_directory)
    assert failed(DataSubject(rendered_rows(tokenizer), tokenizer)) == []
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="~ $A", special_tokens=[("~", tokenizer.bos_token_id)]
    )
    assert failed(DataSubject(rendered_rows(tokenizer), tokenizer)) == ["one-bos"]


def test_missing_end_of_text_is_found():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = NO_END
    assert failed(DataSubject(tiny_rows(), tokenizer)) == ["end-of-text"]


def test_template_that_differs_at_inference_is_found():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = OTHER_START
    assert failed(DataSubject(tiny_rows(), tokenizer)) == ["inference-tokens"]


def test_training_with_another_template_than_the_models_is_found(plain_directory, tmp_path):
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in tiny_rows()), encoding="utf-8")
    assert failed(preflight(str(data), str(plain_directory))) == []
    assert failed(preflight(str(data), str(plain_directory), template="plain")) == [
        "inference-tokens"
    ]


def test_tokens_that_merge_across_the_boundary_are_found():
    tokenizer = tiny_tokenizer()
    assert tokenizer.tokenize("Hello and") != [*tokenizer.tokenize("Hello a"), "nd"]
    row = {"prompt": "Hello a", "chosen": "nd so on", "rejected": "nd no"}
    assert failed(DataSubject([row], tokenizer)) == ["inference-tokens"]


@pytest.mark.parametrize("empty", ["chosen", "rejected"])
def test_answers_emptied_by_truncation_are_found(empty):
    long = [{"role": "user", "content": "green " * 40}]
    assert failed(DataSubject(rows_with(prompt=long), tiny_tokenizer(), max_length=64)) == [
        "not-emptied"
    ]
    # a template that writes nothing for an empty answer
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}"
        "{% if m['content'] and m['role'] == 'assistant' %}<|im_end|>{% endif %}{% endfor %}"
    )
    subject = DataSubject(rows_with(**{empty: answer("")}), tokenizer)
    assert failed(subject) == ["not-emptied"]


def test_share_of_cut_answers_is_measured():
    rows = rows_with(chosen=answer("blue " * 40))
    (result,) = failures(verify(DataSubject(rows, tiny_tokenizer(), max_length=80)))
    assert (result.check.id, result.deviation) == ("uncut", 1 / 8)
    assert "row 4, chosen" in result.what


@pytest.mark.parametrize("scores", [("score_chosen", "score_rejected")])
def test_columns_swapped_are_told_by_their_scores(scores):
    rows = rows_with(**dict(zip(scores, (2.0, 9.0), strict=True)))
    (result,) = failures(verify(DataSubject(rows, tiny_tokenizer())))
    assert result.check.id == "not-swapped"
    assert "row 4" in result.what


def test_columns_swapped_are_told_by_a_row_that_says_the_opposite():
    rows = tiny_rows()
    turned = rows[0] | {"chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}
    assert failed(DataSubject([*rows, turned], tiny_tokenizer())) == ["not-swapped"]


def test_equal_answers_are_found_also_where_truncation_makes_them_so():
    same = rows_with(rejected=tiny_rows()[3]["chosen"])
    assert failed(DataSubject(same, tiny_tokenizer())) == ["distinct"]
    text = "blue " * 30
    rows = rows_with(chosen=answer(text + "sky"), rejected=answer(text + "sea"))
    found = failed(DataSubject(rows, tiny_tokenizer(), max_length=60))
    assert "distinct" in found


def test_bad_rows_say_where_and_the_way_out(tmp_path):
    with pytest.raises(InputError, match="no rows"):
        DataSubject([], tiny_tokenizer())
    subject = DataSubject([*tiny_rows(), {"prompt": "a", "chosen": "b"}], tiny_tokenizer())
    with pytest.raises(InputError, match="row 5"):
        verify(subject)
    broken = tmp_path / "pairs.jsonl"
    broken.write_text('{"prompt": "a"\n', encoding="utf-8")
    with pytest.raises(InputError, match="row 1 is not JSON"):
        read_rows(str(broken))


def test_embedded_data_are_read_as_conversations():
    rows = read_rows("enthusiastic_en")
    assert rows[0]["prompt"][0]["role"] in ("user", "system")
    assert failed(DataSubject(rows[:20], tiny_tokenizer())) == []
