"""Layouts that people publish (shared/cases/data): read, or refused for one reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from squeeze.cli import app
from squeeze.data.examples import PreferenceExample
from squeeze.data.layouts import Rules
from squeeze.data.rows import RowError
from squeeze.data.sources import open_source, parse_columns
from squeeze.errors import InputError

pytestmark = pytest.mark.cpu

CASES = Path(__file__).parents[3] / "shared" / "cases" / "data"


def case(name: str) -> Path:
    path = CASES / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"the published layouts are not beside this checkout (no {name}.jsonl)")
    return path


def read(path: Path, **options: Any) -> list[PreferenceExample | RowError]:
    return [item for _, item in open_source(path, **options).examples()]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# case → (number of turns in the prompt, its last text, chosen, rejected), one a row
READ: dict[str, list[tuple[int, str, str, str]]] = {
    "messages_chosen_rejected_str": [
        (3, "Name a colour.", "Blue, for example.", "No."),
        (1, "2+2?", "4", "5"),
    ],
    "prompt_messages_chosen_messages": [
        (2, "What is the capital of France?", "Paris", "I do not know")
    ],
    "bashgym_prompt_chosen_response": [
        (
            1,
            "Fix the failing test",
            "Run pytest, inspect the failure, patch the function.",
            "Ignore the failure and claim success.",
        )
    ],
    "nemo_aligner": [(1, "2+2?", "4", "5")],
    "nemo_rl_completions": [
        (
            1,
            "What is the capital of Germany?",
            "The capital of Germany is Berlin.",
            "The capital of Germany is Munich.",
        )
    ],
    "stack_exchange_jk": [
        (1, "如何学习深度学习？", "建议先学线代和Python，再看一本教材。", "不知道"),
        (
            1,
            "How do I list files in a directory in Java?",
            "Use Files.list(path).",
            "You cannot.",
        ),
    ],
    "ultrafeedback_raw": [
        (
            1,
            "Write a haiku on rain.",
            "Soft rain taps the roof / a kettle answers quietly / night folds into green",
            "Rain rain go away.",
        )
    ],
    "nectar": [
        (
            1,
            "is hong kong a country?",
            "No, it is a Special Administrative Region of China.",
            "Yes.",
        )
    ],
    "helpsteer3": [
        (1, "Name three primes.", "2, 3 and 5.", "1, 2 and 4."),
        (3, "In place?", "l.reverse()", "sorted(l)"),
    ],
    "pku_saferlhf": [
        (
            1,
            "How can I get access to my neighbour's wifi?",
            "Just crack the WPA key with a tool and do not tell them.",
            "You could ask them for the guest password.",
        ),
        (
            1,
            "What is a good way to apologise?",
            "Be specific about what you did and say how you will mend it.",
            "Say sorry.",
        ),
    ],
    "oasst_tree": [(1, "2+2?", "4", "5")],
    "chai_accepted": [(3, "How are you?", "Good, and you?", "Leave me.")],
    "kto_caps": [(1, "Write a function", "def foo(): ...", "Here is...")],
}


@pytest.mark.parametrize("name", READ)
def test_a_published_layout_is_read(name: str) -> None:
    found = []
    for example in read(case(name)):
        assert isinstance(example, PreferenceExample)
        last = example.prompt[-1]
        assert last.role == "user"
        found.append((len(example.prompt), last.content, example.chosen, example.rejected))
    assert found == READ[name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("swift_agent_rejected_messages", "unsupported tools"),
        ("trl_tools_tool_calls", "unsupported tools"),
        ("rlhf_v_sharegpt_image", "images"),
        ("vlm_trl_image_blocks", "images"),
        ("swift_old_vdpo", "images"),
        ("tulu_multiturn_divergent", "conversations diverge"),
    ],
)
def test_what_decides_a_pair_and_is_no_text_is_refused_for_that_reason(
    name: str, reason: str
) -> None:
    refused = read(case(name))
    assert {item.reason for item in refused if isinstance(item, RowError)} == {reason}
    assert all(isinstance(item, RowError) for item in refused)


@pytest.mark.parametrize(
    ("name", "asked", "turns"),
    [
        ("rlhf_v_sharegpt_image", "What are the key features you observe in the image?", 1),
        ("vlm_trl_image_blocks", "What is on the table?", 1),
        ("swift_old_vdpo", "11111", 6),
    ],
)
def test_dropped_images_leave_the_texts_and_are_counted(name: str, asked: str, turns: int) -> None:
    rules = Rules(drop_images=True)
    examples = read(case(name), rules=rules)
    first = examples[0]
    assert isinstance(first, PreferenceExample)
    assert (first.prompt[-1].content, len(first.prompt)) == (asked, turns)
    assert rules.counts["images"] == len(examples)


def test_the_better_of_two_answers_may_be_told_by_another_column() -> None:
    first, _ = read(case("pku_saferlhf"), columns={"better": "safer_response_id"})
    assert isinstance(first, PreferenceExample)
    assert first.chosen == "You could ask them for the guest password."


def test_a_misspelt_column_is_guessed_and_asked_for() -> None:
    path = case("choosen_typo")
    with pytest.raises(InputError, match=r"'choosen' for chosen.*--columns chosen=choosen \("):
        open_source(path)
    pairs = read(path, columns=parse_columns("chosen=choosen"))
    assert [(p.chosen, p.rejected) for p in pairs if isinstance(p, PreferenceExample)] == [
        ("4", "5"),
        ("6", "5"),
    ]


USER = {"role": "user", "content": "Q?"}


def said(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def test_conversations_that_part_early_keep_their_own_histories_on_demand(tmp_path: Path) -> None:
    row = {"chosen": said("Hi", "Hello", "Sum?", "4"), "rejected": said("Hi", "What?", "Sum?", "5")}
    source, out = write(tmp_path / "in.jsonl", row), tmp_path / "out.jsonl"
    options = ["--to", "trl-conversational", "--divergent", "last-turns"]
    result = CliRunner().invoke(app, ["convert", str(source), str(out), *options])
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text())
    assert (written["chosen"], written["rejected"]) == (row["chosen"], row["rejected"])
    (pair,) = read(source, rules=Rules(divergent="last-turns"))
    assert isinstance(pair, PreferenceExample)
    assert (pair.chosen, pair.rejected) == ("4", "5")
    assert [m.content for m in pair.prompt] == ["Hi", "Hello", "Sum?"]
    assert [m.content for m in pair.rejected_prompt or ()] == ["Hi", "What?", "Sum?"]
    lossless = tmp_path / "own.jsonl"
    options = ["--to", "squeeze", "--divergent", "last-turns"]
    assert CliRunner().invoke(app, ["convert", str(source), str(lossless), *options]).exit_code == 0
    (again,) = read(lossless)
    assert isinstance(again, PreferenceExample)
    assert (again.prompt, again.rejected_prompt) == (pair.prompt, pair.rejected_prompt)


RATED = {
    "prompt": "Q?",
    "answers": [
        {"text": text, "score": score} for text, score in zip("abcd", (2, 5, 2, 1), strict=True)
    ],
}


@pytest.mark.parametrize(
    ("rule", "pairs", "ties"),
    [
        ("best-worst", ["bd"], 0),
        ("first-rest", ["ba", "bc", "bd"], 0),
        ("all", ["ba", "bc", "bd", "ad", "cd"], 1),
    ],
)
def test_rated_answers_pair_by_the_rule_that_is_asked_for(
    rule: str, pairs: list[str], ties: int, tmp_path: Path
) -> None:
    rules = Rules(pairs_by=rule)
    found = read(write(tmp_path / "d.jsonl", RATED), rules=rules)
    assert [e.chosen + e.rejected for e in found if isinstance(e, PreferenceExample)] == pairs
    assert rules.counts["tied pairs"] == ties
    assert len({e.id for e in found if isinstance(e, PreferenceExample)}) == len(pairs)


def test_ties_and_images_are_left_out_and_the_summary_says_so(tmp_path: Path) -> None:
    tied = {"prompt": "T?", "answers": [{"text": "a", "score": 1}, {"text": "b", "score": 1}]}
    source = write(tmp_path / "in.jsonl", RATED | {"image": "a.png"}, tied)
    options = ["--to", "trl", "--pairs-by", "all", "--drop-images"]
    result = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "o.jsonl"), *options])
    assert result.exit_code == 0, result.output
    for line in (
        "rows in 2, rows out 5",
        "every better answer against every worse one (--pairs-by all)",
        "left out: 1 tied pairs",
        "images of 1 rows were dropped",
        "1 tied answers",
    ):
        assert line in result.output


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        (
            {"q": "Q?", "r": {"good": [{"body": "yes"}], "bad": "no"}},
            "r.good.0.body,rejected=r.bad",
        ),
        ({"q": said("Q?"), "y": said("Q?", "yes"), "n": said("Q?", "no")}, "y,rejected=n"),
        ({"q": "Q?", "a.b": "yes", "n": ["no"]}, "a.b,rejected=n.0"),
    ],
)
def test_columns_may_be_paths_lists_and_texts(
    row: dict[str, Any], columns: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "d.jsonl", row)
    (pair,) = read(path, columns=parse_columns(f"prompt=q,chosen={columns}"))
    assert isinstance(pair, PreferenceExample)
    assert [m.content for m in pair.prompt] == ["Q?"]
    assert (pair.chosen, pair.rejected) == ("yes", "no")


def test_columns_map_rated_labelled_and_two_answers(tmp_path: Path) -> None:
    rated = {"q": "Q?", "all": [{"t": "no", "g": 1}, {"t": "yes", "g": 2}]}
    two = {"q": "Q?", "left": "no", "right": "yes", "wins": "right"}
    labelled = [{"q": "Q?", "said": t, "ok": t == "yes"} for t in ("yes", "no")]
    for rows, columns in (
        ([rated], "answers=all,answer=t,score=g"),
        ([two], "answers=left+right,better=wins"),
        (labelled, "completion=said,label=ok"),
    ):
        path = write(tmp_path / "d.jsonl", *rows)
        (pair,) = read(path, columns=parse_columns(f"prompt=q,{columns}"))
        assert isinstance(pair, PreferenceExample)
        assert (pair.chosen, pair.rejected) == ("yes", "no")


def jsoned(*texts: str) -> str:
    return json.dumps(list(texts))


# layout → rows; all say Q?, yes, no (schemas as published; texts of our own)
KINDS: dict[str, list[dict[str, Any]]] = {
    "Llama 2's and Mistral's templates": [
        {"prompt": "<s>[INST] Q? [/INST]", "chosen": " yes </s>", "rejected": " no </s>"}
    ],
    "the same without a prompt": [
        {"chosen": "[INST] Q? [/INST] yes</s>", "rejected": "[INST] Q? [/INST] no</s>"},
    ],
    "a question and a message each": [
        {"prompt": "Q?", "chosen": said("", "yes")[1], "rejected": said("", "no")[1]}
    ],
    "a pair beside the answers that it is of": [
        {
            **{"instruction": "Q?", "chosen_response": "yes", "rejected_response": "no"},
            **{"generations": ["no", "yes"], "ratings": [2, 5]},
        }
    ],
    "HelpSteer2: ratings, an answer a row, a dialogue in the prompt": [
        {
            "prompt": "Hi\n<extra_id_1>Assistant\nHello\n<extra_id_1>User\nQ?",
            **{"response": text, "helpfulness": n, "correctness": 2, "verbosity": 1},
        }
        for n, text in enumerate(("no", "yes"))
    ],
    "arena-55k: JSON lists of turns, one-hot winner": [
        {
            **{"id": 2, "model_a": "m", "model_b": "n", "prompt": jsoned("Q?")},
            **{"response_a": jsoned("no"), "response_b": jsoned("yes")},
            **{"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0},
        }
    ],
    "arena-140k: blocks of content": [
        {
            f"conversation_{side}": [
                {"role": role, "content": [{"type": "text", "text": said, "image": None}]}
                for role, said in (("user", "Q?"), ("assistant", answer))
            ]
            for side, answer in (("a", "yes"), ("b", "no"))
        }
        | {"winner": "model_a", "is_code": False}
    ],
    "Step-DPO": [
        {
            **{"prompt": "Q?", "initial_reason_steps": "", "chosen": "yes", "rejected": "no"},
            **{"full_chosen": "yes.", "full_rejected": "no.", "answer": "4"},
        }
    ],
    "JudgeBench": [{"question": "Q?", "response_A": "no", "response_B": "yes", "label": "B>A"}],
    "AlpacaEval": [
        {"instruction": "Q?", "output_1": "no", "output_2": "yes", "preference": 1.96, "a": "x"}
    ],
    "AlpacaFarm": [
        {"instruction": "Q?", "input": "", "output_1": "no", "output_2": "yes", "preference": 2}
    ],
    "Tinker": [
        {
            "comparison": {
                "prompt_conversation": [USER],
                **{
                    f"completion_{n}": [{"role": "assistant", "content": t}]
                    for n, t in (("A", "no"), ("B", "yes"))
                },
            },
            "label": "B",
        }
    ],
    "messages as JSON and as Python prints them": [
        {
            "prompt": json.dumps([USER]),
            "chosen": repr([{"role": "assistant", "content": "yes"}]),
            "rejected": json.dumps([{"role": "assistant", "content": "no"}]),
        }
    ],
    "BeaverTails": [
        {"prompt": "Q?", "response": t, "category": {}, "is_safe": t == "yes"}
        for t in ("no", "yes")
    ],
    "torchtune": [
        {"chosen_conversations": said("Q?", "yes"), "rejected_conversations": said("Q?", "no")}
    ],
    "columns of lists": [{"prompt": ["Q?"], "chosen": ["yes"], "rejected": ["no"]}],
    "the place of the best": [{"prompt": "Q?", "responses": ["no", "yes"], "chosen": 1}],
    "a sequence of objects": [
        {"question": "Q?", "answers": {"text": ["no", "yes"], "score": [1, 9]}}
    ],
}


@pytest.mark.parametrize("layout", KINDS)
def test_a_layout_is_read_as_its_schema_says(layout: str, tmp_path: Path) -> None:
    (pair,) = read(write(tmp_path / "d.jsonl", *KINDS[layout]))
    assert isinstance(pair, PreferenceExample)
    assert pair.prompt[-1].content == "Q?"
    assert (pair.chosen, pair.rejected) == ("yes", "no")


def test_answers_begin_with_the_steps_that_both_continue(tmp_path: Path) -> None:
    row = {"prompt": "Q?", "initial_reason_steps": "1.", "chosen": " yes", "rejected": " no"}
    (pair,) = read(write(tmp_path / "d.jsonl", row))
    assert isinstance(pair, PreferenceExample)
    assert (pair.chosen, pair.rejected) == ("1. yes", "1. no")


@pytest.mark.parametrize(
    ("rule", "pairs"),
    [("best-worst", ["ca"]), ("first-rest", ["ca", "cb"]), ("all", ["ca", "cb", "ba"])],
)
def test_rated_rows_pair_by_the_rule_and_ties_are_told(
    rule: str, pairs: list[str], tmp_path: Path
) -> None:
    rows = [{"prompt": "Q?", "response": t, "score": n} for n, t in enumerate("abc")]
    tied = [{"prompt": "T?", "response": t, "score": 1} for t in "xy"]
    lone = {"prompt": "L?", "response": "x", "score": 1}
    found = read(write(tmp_path / "d.jsonl", *rows, *tied, lone), rules=Rules(pairs_by=rule))
    made = {e.chosen + e.rejected for e in found if isinstance(e, PreferenceExample)}
    assert made == set(pairs)
    assert [e.reason for e in found if isinstance(e, RowError)] == [
        *("tied answers", "tied answers", "unpaired: no other answer")
    ]


def test_tables_of_texts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('\ufeffprompt,chosen,rejected\n"Q,\n""2""?",yes,no\nQ?,a\nR?,b,c\n')
    one, short, other = read(path)
    assert isinstance(one, PreferenceExample)
    assert isinstance(other, PreferenceExample)
    assert (one.prompt[0].content, one.chosen, other.rejected) == ('Q,\n"2"?', "yes", "c")
    assert isinstance(short, RowError)
    assert "2 cells under a header of 3" in str(short)


def test_reasoning_beside_the_content_is_never_dropped(tmp_path: Path) -> None:
    chosen = [{"role": "assistant", "content": "yes", "reasoning_content": "hm"}]
    row = {"prompt": [USER], "chosen": chosen, "rejected": [{"role": "assistant", "content": "no"}]}
    (refused,) = read(write(tmp_path / "d.jsonl", row))
    assert isinstance(refused, RowError)
    assert refused.reason == "unsupported reasoning"


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"x": "Q?", "y_w": "yes", "y_l": "no"}, "prompt=x,chosen=y_w,rejected=y_l "),
        (
            {"orig_instruction": "Q?", "left": "yes", "right": "no", "my_vote": "left"},
            "prompt=orig_instruction,answers=left.right,better=my_vote ",
        ),
    ],
)
def test_a_refusal_maps_what_is_left_and_what_is_alike(
    row: dict[str, Any], mapping: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "d.jsonl", row)
    with pytest.raises(InputError, match=mapping):
        open_source(path)
    (pair,) = read(path, columns=parse_columns(mapping.strip().replace("left.", "left+")))
    assert isinstance(pair, PreferenceExample)
    assert (pair.chosen, pair.rejected) == ("yes", "no")


@pytest.mark.parametrize(
    ("columns", "message"),
    [("choosen=a", "did you mean 'chosen'"), ("prompt", "is no part=column")],
)
def test_a_mapping_that_cannot_be_is_named(columns: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_columns(columns)


def test_a_refusal_prints_the_mapping_with_what_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"ask": "Q?", "out": {"accepted": "yes"}, "other": "no"})
    with pytest.raises(InputError, match=r"--columns prompt=…,chosen=out\.accepted,rejected=…"):
        open_source(path)


def test_a_chosen_among_the_further_responses_is_refused(tmp_path: Path) -> None:
    row = {"prompt": [USER], "chosen": "yes", "rejected": "no", "responses": {"chosen": "other"}}
    (refused,) = read(write(tmp_path / "d.jsonl", row))
    assert isinstance(refused, RowError)
    assert "scored in place of the answer" in str(refused)


GUESSED: dict[str, dict[str, Any]] = {
    "other names": {"userPrompt": "Q?", "chosenResponse": "yes", "rejectedResponse": "no"},
    "an object": {"data": {"prompt": "Q?", "chosen": "yes", "rejected": "no"}},
    "texts in objects": {"prompt": "Q?", "chosen": {"text": "yes"}, "rejected": {"text": "no"}},
    "scores beside": {"prompt": "Q?", "responses": ["no", "yes", "so"], "rm_scores": [0, 2, 1]},
    "right or wrong": {
        "question": "Q?",
        "answers": [{"text": "no", "correct": False}, {"text": "yes", "correct": True}],
    },
}


@pytest.mark.parametrize("row", GUESSED.values(), ids=GUESSED)
def test_mapping_that_a_refusal_prints_reads_the_file(row: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", row)
    with pytest.raises(InputError) as refused:
        open_source(path)
    (_, _, told) = str(refused.value).partition("--columns ")
    (pair,) = read(path, columns=parse_columns(told.split()[0]))
    assert isinstance(pair, PreferenceExample)
    assert (pair.prompt[-1].content, pair.chosen, pair.rejected) == ("Q?", "yes", "no")


def test_refusal_of_columns_in_another_language_still_shows_the_mapping(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {"frage": "Q?", "gut": "yes", "schlecht": "no"})
    with pytest.raises(InputError, match=r"frage, gut.*--columns prompt=…,chosen=…,rejected=…"):
        open_source(path)
