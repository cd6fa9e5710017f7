"""Reading: every format's published shape, recognition, and what is refused with which reason."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.formats import FORMATS
from squeeze.data.rows import RowError, RowReader
from squeeze.data.sources import open_source, recognise
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu

USER, YES, NO = (
    {"role": r, "content": c}
    for r, c in [("user", "Q?"), ("assistant", "yes"), ("assistant", "no")]
)
HUMAN, GPT_YES, GPT_NO = (
    {"from": f, "value": v} for f, v in [("human", "Q?"), ("gpt", "yes"), ("gpt", "no")]
)

# One row of every format as its documentation shows it; all say the same: Q?, yes, no.
ROWS: dict[str, list[dict[str, Any]]] = {
    "squeeze": [{"id": "a", "prompt": [USER], "chosen": "yes", "rejected": "no", "responses": {}}],
    "trl": [{"prompt": "Q?", "chosen": "yes", "rejected": "no"}],
    "trl-conversational": [{"prompt": [USER], "chosen": [YES], "rejected": [NO]}],
    "trl-conversational implicit": [{"chosen": [USER, YES], "rejected": [USER, NO]}],
    "trl-conversational repeated": [
        {"prompt": [USER], "chosen": [USER, YES], "rejected": [USER, NO]}
    ],
    "ultrafeedback": [
        {"prompt": "Q?", "chosen": [USER, YES], "rejected": [USER, NO], "score_chosen": 7.5}
    ],
    "ultrafeedback answers": [{"prompt": "Q?", "chosen": [YES], "rejected": [NO]}],
    "alpaca": [{"instruction": "Q?", "input": "", "chosen": "yes", "rejected": "no"}],
    "comparison": [{"instruction": "Q?", "input": "", "output": ["yes", "no"]}],
    "sharegpt": [{"conversations": [HUMAN], "chosen": GPT_YES, "rejected": GPT_NO}],
    "sharegpt list": [{"conversations": [HUMAN], "chosen": [GPT_YES], "rejected": [GPT_NO]}],
    "question": [{"question": "Q?", "chosen": "yes", "rejected": "no", "generations": 2}],
    "question rated besides": [
        {
            **{"system": "", "input": "Q?", "chosen": "yes", "rejected": "no"},
            **{"generations": ["yes", "no"], "rating": [9.0, 2.0]},
        }
    ],
    "question input": [{"input": "Q?", "chosen": "yes", "rejected": "no"}],
    "openai": [
        {
            "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [YES],
            "non_preferred_output": [NO],
        }
    ],
    "hh": [
        {"chosen": "\n\nHuman: Q?\n\nAssistant: yes", "rejected": "\n\nHuman: Q?\n\nAssistant: no"}
    ],
    "hh prompt": [{"prompt": "\n\nHuman: Q?\n\nAssistant:", "chosen": " yes", "rejected": " no"}],
    "paper": [
        {
            "prompt": "\n\nHuman: Q?\n\nAssistant:",
            "chosen": " yes",
            "rejected": " no",
            "irr_hum": "x",
        }
    ],
    "messages": [{"messages": [USER], "chosen": "yes", "rejected": NO}],
    "messages whole": [{"messages": [USER, YES], "chosen": [USER, YES], "rejected": [USER, NO]}],
    "rendered": [
        {
            "prompt": "<|im_start|>user\nQ?<|im_end|>\n<|im_start|>assistant\n",
            "chosen": "yes<|im_end|>\n",
            "rejected": "no<|im_end|>\n",
        }
    ],
    "rendered implicit": [
        {
            kind: "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nQ?<|eot_id|>"
            f"<|start_header_id|>assistant<|end_header_id|>\n\n{answer}<|eot_id|>"
            for kind, answer in (("chosen", "yes"), ("rejected", "no"))
        }
    ],
    "swift": [{"query": "Q?", "response": "yes", "rejected_response": "no"}],
    "swift messages": [{"messages": [USER, YES], "rejected_response": "no"}],
    "swift conversations": [{"messages": [USER, YES], "rejected_messages": [USER, NO]}],
    "pairs": [{"prompt": "Q?", "chosen_response": "yes", "rejected_response": "no"}],
    "pairs messages": [{"context": [USER], "chosen_messages": [YES], "rejected_messages": [NO]}],
    "pairs rendered": [
        {
            "prompt": "<extra_id_0>System\n\n<extra_id_1>User\nQ?\n<extra_id_1>Assistant\n",
            "chosen_response": "yes\n<extra_id_1>",
            "rejected_response": "no\n<extra_id_1>",
        }
    ],
    "pairs asked in a trajectory": [
        {"task": "Coding", "trajectory": [HUMAN], "chosen": "yes", "rejected": "no"}
    ],
    "pairs asked otherwise": [{"problem": "Q?", "chosen": "yes", "rejected": "no"}],
    "rated": [
        {"question": "Q?", "answers": [{"text": "no", "score": 1}, {"text": "yes", "score": "2"}]}
    ],
    "rated ranks": [
        {"prompt": [USER], "completions": [{"completion": [YES], "rank": 0}, NO | {"rank": 1}]}
    ],
    "step-dpo": [
        {
            **{"prompt": "Q?", "initial_reason_steps": "", "chosen": "yes", "rejected": "no"},
            **{"full_chosen": "yes.", "full_rejected": "no."},
        }
    ],
    "several": [{"prompt": "Q?", "chosen": ["yes"], "rejected": ["nay", "no"]}],
    "several beside one": [{"query": "Q?", "pos": "yes", "neg": ["no"]}],
    "rated-rows": [
        {"prompt": "Q?", "response": text, "helpfulness": n, "verbosity": 1}
        for n, text in enumerate(("no", "maybe", "yes"))
    ],
    "candidates": [
        {
            "system": [],
            "messages": [
                {"role": "user", "content": [{"text": "Q?"}]},
                {
                    "role": "assistant",
                    "candidates": [
                        {"content": [{"text": "no"}], "preferenceLabel": "non-preferred"},
                        {"content": [{"text": "yes"}], "preferenceLabel": "preferred"},
                    ],
                },
            ],
        }
    ],
    "rated completions of one turn": [
        {
            "contents": [{"role": "user", "parts": [{"text": "Q?"}]}],
            "completions": [
                {"score": n, "completion": {"role": "model", "parts": [{"text": text}]}}
                for n, text in enumerate(("no", "yes"))
            ],
        }
    ],
    "rated beside": [{"prompt": "Q?", "responses": ["no", "yes"], "scores": [0.1, 0.9]}],
    "two-answers": [
        {"prompt": "Q?", "response_0": "no", "response_1": "yes", "better_response_id": 1.0}
    ],
    "two-answers preference": [
        {"context": [USER], "response1": "yes", "response2": "no", "overall_preference": -2}
    ],
    "two-answers arena": [
        {
            "question": "Q?",
            "conversation_a": [USER, NO],
            "conversation_b": [USER, YES],
            "winner": "model_b",
        }
    ],
    "two-scores": [
        {
            "history": "Q?",
            "human_ref_a": "no",
            "human_ref_b": "yes",
            "score_a": 3,
            "score_b": 9,
            "labels": 0,
        }
    ],
    "two-scores within": [
        {
            "question": {"full_text": "Q?", "id": "1"},
            **{"answer_0": "yes", "score_0": 1.0, "answer_1": "no", "score_1": -1.0},
        }
    ],
    "two-conversations": [
        {"conversation_a": [USER, NO], "conversation_b": [USER, YES], "winner": "model_b"}
    ],
    "choice": [
        {"info": {"post": "Q?"}, "summaries": [{"text": "no"}, {"text": "yes"}], "choice": 1}
    ],
    "tree": [
        {
            "prompt": {
                "text": "Q?",
                "role": "prompter",
                "replies": [
                    {"text": "no", "role": "assistant", "rank": 1, "replies": []},
                    {"text": "yes", "role": "assistant", "rank": 0, "replies": []},
                ],
            }
        }
    ],
    "kto": [
        {"prompt": "Q?", "completion": "no", "label": False},
        {"prompt": "Q?", "completion": "yes", "label": True},
    ],
    "kto words": [
        {"prompt": "Q?", "completion": "no", "label": "undesirable"},
        {"prompt": "Q?", "completion": "yes", "label": "desirable"},
    ],
    "kto-sharegpt": [
        {"conversations": [HUMAN, GPT_YES], "label": True},
        {"conversations": [HUMAN, GPT_NO], "label": False},
    ],
    "kto-messages": [
        {"messages": [USER, YES], "label": 1.0},
        {"messages": [USER, NO], "label": 0.0},
    ],
    "kto-alpaca": [
        {"instruction": "Q?", "input": "", "output": "no", "kto_tag": "False"},
        {"instruction": "Q?", "input": "", "output": "yes", "kto_tag": "True"},
    ],
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, format: str | None = None) -> list[PreferenceExample | RowError]:
    return [item for _, item in open_source(path, format).examples()]


def test_every_format_has_a_documented_row() -> None:
    assert {name.split()[0] for name in ROWS} == set(FORMATS)


@pytest.mark.parametrize("shape", ROWS)
def test_a_documented_row_is_recognised_and_read(shape: str, tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", ROWS[shape])
    assert recognise(path) == shape.split()[0]
    (example,) = read(path)
    assert isinstance(example, PreferenceExample)
    assert example.prompt == (Message("user", "Q?"),)
    assert (example.chosen, example.rejected) == ("yes", "no")


def test_every_format_is_read_the_same_from_an_array_from_gzip_and_from_lines(
    tmp_path: Path,
) -> None:
    rows = [*ROWS["trl"], {"prompt": "中文 \u2028?", "chosen": "是", "rejected": "否"}]
    lines = write(tmp_path / "data.jsonl", rows)
    array = tmp_path / "data.json"
    array.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    packed = tmp_path / "data.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    assert read(lines) == read(array) == read(packed)
    assert len(read(lines)) == 2


def test_an_implicit_text_prompt_ends_at_a_whole_word(tmp_path: Path) -> None:
    row = {"chosen": "The sky is blue.", "rejected": "The sky is black."}
    (example,) = read(write(tmp_path / "d.jsonl", [row]))
    assert isinstance(example, PreferenceExample)
    assert example.prompt == (Message("user", "The sky is"),)
    assert (example.chosen, example.rejected) == (" blue.", " black.")


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "answers"),
    [
        (
            "问：天是什么颜色？答：蓝色",
            "问：天是什么颜色？答：绿色",
            "问：天是什么颜色？答：",
            ("蓝色", "绿色"),
        ),
        ("Q: hi\nA:Yes", "Q: hi\nA:No", "Q: hi\nA:", ("Yes", "No")),
        ("How? It's so", "How? It isn't", "How?", (" It's so", " It isn't")),
        ("Why? yes", "Why? yes, indeed", "Why?", (" yes", " yes, indeed")),
    ],
)
def test_an_implicit_text_prompt_ends_at_unicodes_word_boundary(
    chosen: str, rejected: str, prompt: str, answers: tuple[str, str], tmp_path: Path
) -> None:
    row = {"chosen": chosen, "rejected": rejected}
    (example,) = read(write(tmp_path / "d.jsonl", [row]))
    assert isinstance(example, PreferenceExample)
    assert example.prompt == (Message("user", prompt),)
    assert (example.chosen, example.rejected) == answers


def test_a_prompt_column_of_an_unknown_name_is_not_taken_for_no_prompt(tmp_path: Path) -> None:
    """Both answers begin alike, so they could be read as texts that hold their own prompt."""
    row = {"messages": "Q?", "chosen": "The one.", "rejected": "The other."}
    with pytest.raises(InputError, match=r"no format .*messages, chosen.*prompt=messages.*info"):
        recognise(write(tmp_path / "d.jsonl", [row]))


def test_two_formats_that_fit_and_read_alike_are_no_question(tmp_path: Path) -> None:
    same = {**ROWS["swift"][0], "chosen": "yes", "rejected": "no"}
    assert recognise(write(tmp_path / "d.jsonl", [same])) == "question"
    turns = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "yes"}]
    other = [turns[0], {"role": "assistant", "content": "no"}]
    asked = [{"input": "Q?", "output": None}]  # Capybara: no messages, so no prompt
    path = write(
        tmp_path / "d.jsonl", [{"conversation": asked, "chosen": turns, "rejected": other}]
    )
    assert recognise(path) == "trl-conversational"


def test_two_formats_that_fit_are_an_error_that_lists_both(tmp_path: Path) -> None:
    row = {**ROWS["swift"][0], "chosen": "perhaps", "rejected": "no"}
    path = write(tmp_path / "d.jsonl", [row])
    with pytest.raises(InputError, match=r"could be question or swift .*--from"):
        recognise(path)
    assert read(path, "swift")


def test_an_unknown_shape_is_an_error_that_lists_its_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [{"question": "Q?", "good": "yes"}])
    with pytest.raises(InputError, match=r"question, good.*prompt=question,chosen=good,rejec"):
        recognise(path)


def test_single_answers_say_what_they_lack(tmp_path: Path) -> None:
    row = {"prompt": "Q?", "response": "yes", "coherence": 4, "verbosity": 1}
    path = write(tmp_path / "data.jsonl", [row])
    with pytest.raises(InputError, match="rated by 'coherence', 'verbosity'"):
        open_source(path)


def test_a_misspelt_format_name_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'sharegpt'"):
        open_source(write(tmp_path / "d.jsonl", ROWS["trl"]), "shargpt")


def test_a_bad_first_row_does_not_hide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("{broken\n" + json.dumps({"x": 1}) + "\n" + json.dumps(ROWS["alpaca"][0]))
    assert recognise(path) == "alpaca"


GOOD = ROWS["trl"][0]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Q?", "chosen": "yes"}, "no 'rejected'"),
        (GOOD | {"chosen": " \n"}, "empty chosen"),
        (GOOD | {"rejected": ["no"]}, "not a string"),
        (GOOD | {"rejected": "yes"}, "chosen equals rejected"),
        (GOOD | {"prompt": " "}, "empty prompt"),
        (GOOD | {"chosen": "\ud800"}, "not Unicode"),
    ],
)
def test_a_bad_row_is_refused_with_its_number_and_reason(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "d.jsonl", [GOOD, row])
    (_, (number, error)) = open_source(path, "trl").examples()
    assert isinstance(error, RowError)
    assert (number, error.reason, error.row) == (2, reason, row)


@pytest.mark.parametrize(
    ("format", "row", "reason"),
    [
        (
            "trl-conversational",
            {"chosen": [USER, YES, USER], "rejected": [USER, NO]},
            "not one answer",
        ),
        (
            "trl-conversational",
            {"prompt": [USER, YES], "chosen": [YES], "rejected": [NO]},
            "prompt ends with an answer",
        ),
        (
            "trl-conversational",
            {"prompt": [USER | {"role": "critic"}], "chosen": [YES], "rejected": [NO]},
            "unsupported message",
        ),
        ("comparison", {"instruction": "Q?", "output": ["yes"]}, "fewer than two outputs"),
        (
            "openai",
            ROWS["openai"][0] | {"input": {"messages": [USER], "tools": [{"type": "x"}]}},
            "unsupported tools",
        ),
        (
            "hh",
            {
                "chosen": "\n\nHuman: A\n\nAssistant: yes",
                "rejected": "\n\nHuman: B\n\nAssistant: no",
            },
            "conversations diverge",
        ),
        ("kto", {"prompt": "Q?", "completion": "x", "label": 2}, "bad label"),
    ],
)
def test_a_row_that_is_no_pair_in_its_format_is_refused(
    format: str, row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    (error,) = read(write(tmp_path / "d.jsonl", [row]), format)
    assert isinstance(error, RowError)
    assert error.reason == reason


def test_unpaired_rows_pair_by_prompt_and_the_rest_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    def row(prompt: str, completion: str, label: bool) -> dict[str, Any]:
        return {"prompt": prompt, "completion": completion, "label": label}

    rows = [
        row("A", "a+", True),
        row("B", "b-", False),
        row("A", "a2+", True),
        row("A", "a-", False),
    ]
    items = list(open_source(write(tmp_path / "d.jsonl", rows)).examples())
    (four, pair), (two, alone), (three, more) = items
    assert isinstance(pair, PreferenceExample)
    assert (four, pair.chosen, pair.rejected) == (4, "a+", "a-")
    assert isinstance(alone, RowError)
    assert isinstance(more, RowError)
    assert (two, alone.reason) == (2, "unpaired: no chosen (label true) answer")
    assert (three, more.reason) == (3, "unpaired: no rejected (label false) answer")


def test_outputs_between_best_and_worst_are_kept_as_ranks(tmp_path: Path) -> None:
    (example,) = read(
        write(tmp_path / "d.jsonl", [{"instruction": "Q?", "output": ["a", "b", "c", "d"]}])
    )
    assert isinstance(example, PreferenceExample)
    assert (example.chosen, example.rejected) == ("a", "d")
    assert example.responses == {"rank_2": "b", "rank_3": "c"}


def test_alpaca_joins_system_history_instruction_and_input_as_llamafactory_does(
    tmp_path: Path,
) -> None:
    row = ROWS["alpaca"][0] | {"input": "in", "system": "S", "history": [["q", "a"]]}
    (example,) = read(write(tmp_path / "d.jsonl", [row]))
    assert isinstance(example, PreferenceExample)
    assert [(m.role, m.content) for m in example.prompt] == [
        ("system", "S"),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "Q?\nin"),
    ]


def test_a_repeated_row_without_id_is_kept_and_a_repeated_id_is_refused(tmp_path: Path) -> None:
    first, second = read(write(tmp_path / "d.jsonl", [GOOD, GOOD]))
    assert isinstance(first, PreferenceExample)
    assert isinstance(second, PreferenceExample)
    assert second.id == f"{first.id}-2"
    rows = [GOOD | {"id": "x"}, GOOD | {"id": "x", "chosen": "other"}]
    _, refused = read(write(tmp_path / "e.jsonl", rows))
    assert isinstance(refused, RowError)
    assert refused.reason == "duplicate id"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"a": 1} {"b": 2}]', "row 1 is not JSON"),
        ('[{"a": 1}, {"b": 2}', "row 2 is not JSON"),
        ('[{"a": 1}, {"b"}]', "row 2 is not JSON"),
        ('[{"a": 1}] x', "behind the array's closing bracket"),
        ("[]", "is empty"),
        ("", "is empty"),
    ],
)
def test_a_broken_array_says_which_row_breaks_it(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "d.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        list(RowReader(path))


@pytest.mark.parametrize("block", [1, 2, 7])
def test_an_array_reads_the_same_in_blocks_of_any_size(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"a": 'x,]"['}, {"b": [1, {"c": None}]}, {"é": "[{\u2028"}]
    path = tmp_path / "d.json"
    path.write_text("\ufeff \n" + json.dumps(rows, indent=1) + "\n" * 600, encoding="utf-8")
    monkeypatch.setattr("squeeze.data.rows._BLOCK", block)
    assert [row for _, row in RowReader(path)] == rows


# ---- dataset_info.json ---------------------------------------------------------------------------


def describe(folder: Path, **entries: dict[str, Any]) -> Path:
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_dataset_info_maps_columns_and_tags(tmp_path: Path) -> None:
    turn = {"who": "me", "said": "Q?"}
    row = {
        "talk": [turn],
        "best": {"who": "bot", "said": "yes"},
        "worst": {"who": "bot", "said": "no"},
    }
    write(tmp_path / "rows.jsonl", [row])
    tags = {"role_tag": "who", "content_tag": "said", "user_tag": "me", "assistant_tag": "bot"}
    columns = {"messages": "talk", "chosen": "best", "rejected": "worst"}
    entry = {"file_name": "rows.jsonl", "ranking": True, "formatting": "sharegpt"}
    info = describe(tmp_path, mine=entry | {"columns": columns, "tags": tags})
    (example,) = read(info)
    assert isinstance(example, PreferenceExample)
    assert (example.prompt, example.chosen) == ((Message("user", "Q?"),), "yes")


def test_dataset_info_reads_renamed_alpaca_columns_and_kto_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"question": "Q?", "chosen": "yes", "rejected": "no"}])
    unpaired = [
        {"instruction": "Q?", "output": o, "good": g} for o, g in [("yes", True), ("no", False)]
    ]
    write(tmp_path / "k.jsonl", unpaired)
    info = describe(
        tmp_path,
        a={"file_name": "a.jsonl", "ranking": True, "columns": {"prompt": "question"}},
        k={"file_name": "k.jsonl", "columns": {"kto_tag": "good"}},
    )
    pairs = [next(open_source(info, name=name).examples())[1] for name in ("a", "k")]
    assert [(p.chosen, p.rejected) for p in pairs if isinstance(p, PreferenceExample)] == [
        ("yes", "no"),
        ("yes", "no"),
    ]
    with pytest.raises(InputError, match="usable preference data: a, k; name one with --name"):
        open_source(info)


def test_dataset_info_reads_num_samples_rows_and_an_empty_column_name_is_none(
    tmp_path: Path,
) -> None:
    write(tmp_path / "rows.jsonl", [ROWS["alpaca"][0] | {"input": f"{i}"} for i in range(3)])
    entry = {"file_name": "rows.jsonl", "ranking": True, "num_samples": 2, "split": "train"}
    info = describe(tmp_path, mine=entry | {"columns": {"query": ""}})
    found = read(info)
    assert len(found) == 2
    assert isinstance(found[0], PreferenceExample)
    assert found[0].prompt == (Message("user", "Q?"),)  # not "Q?\n0"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"hf_hub_url": "owner/name", "ranking": True}, "lies on a hub"),
        ({"file_name": "rows.jsonl"}, "not preference data"),
        ({"file_name": "gone.jsonl", "ranking": True}, "does not exist"),
        ({"file_name": "rows.jsonl", "ranking": True, "formatting": "xml"}, "unknown formatting"),
        (
            {"file_name": "rows.jsonl", "ranking": True, "columns": []},
            "'columns' must be an object of names",
        ),
        ({"file_name": ".", "ranking": True}, "is a directory"),
        ({"file_name": "rows.jsonl", "ranking": "yes"}, "ranking must be true or false"),
        ({"file_name": "rows.jsonl", "ranking": True, "num_samples": 0}, "num_samples must be"),
    ],
)
def test_an_unusable_dataset_info_entry_says_why(
    entry: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "rows.jsonl", ROWS["alpaca"])
    with pytest.raises(InputError, match=message):
        open_source(describe(tmp_path, mine=entry), name="mine")
