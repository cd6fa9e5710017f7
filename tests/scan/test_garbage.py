"""Remarks on pairs, tables without formulas, and rows rendered as their training renders them."""

import pandas as pd
import pytest

from squeeze.data.encoding import apply_template
from squeeze.data.examples import Message, PreferenceExample
from squeeze.scan.ches import encode_pairs
from squeeze.scan.files import write_table
from squeeze.scan.garbage import remarks
from tests.tiny_model import tiny_tokenizer

pytestmark = pytest.mark.cpu


def pair(chosen, rejected, prompt="Why?"):
    return PreferenceExample(f"{chosen}/{rejected}", (Message("user", prompt),), chosen, rejected)


@pytest.mark.parametrize(
    ("chosen", "rejected", "remark"),
    [
        ("Because it is so.", "No idea.", None),
        ("...", "No idea.", "chosen is empty of words"),
        ("Yes.", "I can not say this. " * 9, "rejected is looped"),
        ("Yes  it is\n", "Yes it is", "chosen and rejected are the same up to white space"),
        ("Yes it is, and more.", "Yes it is", "the answers differ by length alone"),
        ("因为天空很蓝。", "不知道", None),
    ],
)
def test_a_pairs_garbage_is_named(chosen, rejected, remark):
    assert remarks([pair(chosen, rejected)]) == [[] if remark is None else [remark]]


def test_duplicates_and_contradicting_labels_name_the_earlier_row():
    one, other = pair("Yes.", "No idea."), pair("No idea.", "Yes.")
    found = remarks([one, pair("Yes.", "No idea.", "How?"), one, other])
    assert found == [[], [], ["duplicate of row 1"], ["swapped in row 1"]]


def test_a_csv_holds_no_formulas(tmp_path):
    ids = ["=1+1", "@sum", "-x", "plain"]
    write_table(pd.DataFrame({"example": ids, "ches": [-1.0, 1, 2, 3]}), tmp_path / "t.csv")
    read = pd.read_csv(tmp_path / "t.csv")
    assert list(read["example"]) == ["'=1+1", "'@sum", "'-x", "plain"]
    assert list(read["ches"]) == [-1, 1, 2, 3]


@pytest.mark.parametrize(
    ("template", "before", "between"), [("text", "", ""), ("hh", "\n\nHuman: ", "\n\nAssistant: ")]
)
def test_texts_are_encoded_as_trl_tokenizes_them(template, before, between):
    """TRL's DPOTrainer: tokenizer(prompt + answer + end of text), no chat template."""
    tokenizer = tiny_tokenizer()
    apply_template(tokenizer, template)
    (item,) = encode_pairs(tokenizer, [pair("Yes.", "No.")])
    for kind, answer in (("chosen", "Yes."), ("rejected", "No.")):
        whole = tokenizer(f"{before}Why?{between}{answer}{tokenizer.eos_token}")["input_ids"]
        assert item.prompt_ids + item.response_ids[kind] == whole
