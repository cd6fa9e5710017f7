"""Formats of preference data: a table of the columns that identify each and where its parts lie.

A format is a line of the table: `layouts` reads rows by it, `writing` writes some of them, and
`sources` recognises which one a file has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from squeeze.data.columns import Columns, entries, value_at
from squeeze.data.layouts import EXTRA_KINDS, Layout
from squeeze.data.probe_set import PAPER_KINDS
from squeeze.data.rating import is_grade
from squeeze.data.rows import Row
from squeeze.data.turns import HH, dialogue_of

Kind = Callable[[Any], bool]


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None


def _is_place(value: Any) -> bool:
    """Whether the value is a place in a list."""
    return type(value) is int or (isinstance(value, str) and value.strip().isdecimal())


# What may stand in a column, by name.
KINDS_OF: dict[str, Kind] = {
    "absent": lambda value: value is None,
    "present": lambda value: value is not None,
    "text": lambda value: isinstance(value, str),
    "plain": lambda value: isinstance(value, str) and dialogue_of(value) is None,
    "hh": lambda value: dialogue_of(value) is HH,
    "rendered": lambda value: dialogue_of(value) not in (None, HH),
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "messages": lambda value: isinstance(_first(value), dict) and "role" in _first(value),
    "from": lambda value: isinstance(_first(value), dict) and "from" in _first(value),
    "asked": lambda value: isinstance(value, str) or isinstance(_first(value), dict),
    "answer": lambda value: isinstance(value, dict | list | str),
    "reply": lambda value: isinstance(value, dict | str) or isinstance(_first(value), dict),
    "message": lambda value: isinstance(value, dict) and not {"role", "from"}.isdisjoint(value),
    "label": lambda value: isinstance(value, bool | int | float | str),
    "grade": is_grade,
    "place": _is_place,
    "rated": lambda value: is_grade(value_at(_first(entries(value)), f"{RANK}|{SCORE}")),
    "texts": lambda value: isinstance(_first(value), str),
}


# ---- names that columns have -------------------------------------------------------------------

RANK = "rank|ranking|ranks|rankings"
SCORE = (
    "overall_score|score|rating|reward|fine-grained_score|quality|scores|ratings|rewards|pm_score"
    "|all_rm_scores|preferencelabel|preferenceLabel"
)
# The first of these that a file has: the score of the one answer that a row holds.
ROW_SCORE = (
    "helpfulness|overall_score|overall_rating|score|rating|reward|quality|overall|human_score"
    "|reward_score|rm_score|preference_score"
)
ANSWERS = (
    "completions|answers|responses|candidates|outputs|generations|samples|choices"
    "|all_generated_responses|candidates_completions"
)
ANSWER = "response|answer|completion|text|content|output|message|generation"
# What has formats of its own with "chosen" and "rejected", and what people call it besides.
_ASKED = ("prompt", "instruction", "question", "query", "input", "messages", "conversations")
_ASKED_TOO = (
    *("prompt_messages", "context", "history", "user_prompt", "user", "problem", "conversation"),
    *("dialogue", "dialog", "post", "request", "source_prompt", "chat", "trajectory", "contents"),
)
_WITHIN = (
    *("question.full_text", "info.post", "info.article"),
    *("comparison.prompt_conversation", "text.question"),
)  # where the column itself holds an object
PROMPT = "|".join((*_WITHIN, *_ASKED, *_ASKED_TOO))
CHOSEN = (
    "chosen_response|chosen_messages|chosen_answer|chosen_completion|chosen_output|chosen_text"
    "|accepted|accepted_response|preferred|preferred_response|preferred_answer|preferred_output"
    "|winner|winning_response|win|better|better_response|positive|good|pos|response_j|response_chosen"
    "|answer_chosen|best|best_response|y_w|accept|chosen_conversations|chosen_message|chosen_conv"
    "|preferred_completion|positive_response|text.chosen"
)
REJECTED = (
    "rejected_response|rejected_messages|rejected_answer|rejected_completion|rejected_output"
    "|rejected_text|rejected|dispreferred|dispreferred_response|non_preferred"
    "|non_preferred_output|unpreferred|loser|losing_response|lose|worse|worse_response|negative|bad"
    "|neg|response_k|response_rejected|answer_rejected|worst|worst_response|y_l|reject"
    "|rejected_conversations|rejected_message|rejected_conv|dispreferred_completion"
    "|negative_response|text.rejected"
)
FIRST = (
    "response_0|response1|response_1|response_a|answer_0|answer1|answer_a|output_1|conversation_a"
    "|completion_a|human_ref_a|output_a|comparison.completion_A"
)
SECOND = (
    "response_2|response2|response_1|response_b|answer_1|answer2|answer_b|output_2|conversation_b"
    "|completion_b|human_ref_b|output_b|comparison.completion_B"
)
FIRST_SCORE = "score_0|score_a|winner_model_a|response_a_score"
SECOND_SCORE = "score_1|score_b|winner_model_b|response_b_score"
_TOLD = (
    "better_response_id|winner|better|chosen_index|preferred|choice|preference|overall_response"
    "|preferred_response|human_preference|verdict|label"
)
BETTER = f"{_TOLD}|chosen"
LABEL = "label|kto_tag|is_safe|desirable|is_desirable|is_chosen|is_preferred|thumbs_up"
CHOICE = "choice|chosen|chosen_index|best|best_index|preferred_index|label"
PREFERENCE = "overall_preference|preference_strength"
GOOD, BAD = f"chosen|positives|{CHOSEN}", f"negatives|{REJECTED}"
ONE = "completion|response|answer|output|generated_text|generation"
SYSTEM = "system|system_prompt|system_instruction.parts.0.text"


@dataclass(frozen=True)
class Format:
    """A format by name.

    A row has it if it fits one of `shapes`: path → what must stand there. `alone` are groups of
    columns of which only one may be filled, as what the others hold would be lost. `carries` names
    what besides the pair can be written ("id", "kinds" for named response kinds, "ranks",
    "responses" for any, "rejected_prompt"). `text` is the template of texts that TRL trains on as
    they are.
    """

    name: str
    title: str
    shapes: tuple[Mapping[str, Kind], ...]
    layout: Layout
    alone: tuple[Sequence[str], ...] = ()
    carries: frozenset[str] = frozenset()
    text: str = ""

    def matches(self, row: Row) -> bool:
        """Whether the row has the format's shape."""
        if any(sum(row.get(name) is not None for name in group) > 1 for group in self.alone):
            return False
        return any(
            all(fits(value_at(row, path)) for path, fits in shape.items()) for shape in self.shapes
        )

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns that reading uses; None: any may be used."""
        names = self.layout.columns.names()
        extra = {"kinds": frozenset(EXTRA_KINDS), "responses": frozenset({"responses"})}
        return None if self.layout.extras == "all" else names | extra.get(self.layout.extras, set())

    @property
    def unpaired(self) -> bool:
        """Whether a row holds one answer and a label, so that two rows make a pair."""
        return bool(self.layout.columns.label)


PAIR, LISTS = "chosen:text rejected:text", "chosen:messages rejected:messages"
_NO_PAPER = " ".join(f"{name}:absent" for name in (*PAPER_KINDS, "initial_reason_steps"))
_NO_OTHER = " ".join(
    f"{name}:absent" for name in (*_ASKED[1:], "system", *_ASKED_TOO, *PAPER_KINDS)
)
_PROMPTS = PROMPT.split("|")  # but Alpaca's input goes with its instruction
_ALONE = tuple([n for n in _PROMPTS if n != other] for other in ("input", "instruction"))
_BOTH = "chosen=chosen rejected=rejected"
_ALPACA = "prompt=instruction query=input system=system history=history"


_NO_PAIR = f"chosen|{CHOSEN}|{REJECTED}|{ANSWERS}|{FIRST}|{SECOND}"


def columns_of(text: str) -> Columns:
    """The columns of `prompt=a chosen=b.0.content`."""
    return Columns(**dict(part.split("=") for part in text.split()))


def _format(
    name: str, title: str, shapes: Sequence[str], columns: str, carries: str = "", **options: Any
) -> Format:
    of_format = {key: options.pop(key) for key in ("alone", "text") if key in options}
    kinds = tuple(
        {path: KINDS_OF[kind] for path, kind in (part.rsplit(":", 1) for part in shape.split())}
        for shape in shapes
    )
    layout = Layout(columns_of(columns), **options)
    return Format(name, title, kinds, layout, carries=frozenset(carries.split()), **of_format)


_TABLE = (
    _format(
        *("squeeze", "lossless: prompt messages, chosen, rejected, responses by kind"),
        [f"prompt:messages {PAIR}"],
        f"prompt=prompt {_BOTH} rejected_prompt=rejected_prompt",
        "id responses rejected_prompt",
        extras="responses",
    ),
    _format(
        *("trl", "TRL standard: texts, with or without a prompt column"),
        [
            f"prompt:plain {PAIR} {_NO_PAPER}",
            f"prompt:absent chosen:plain rejected:plain {_NO_OTHER}",
        ],
        f"prompt=prompt {_BOTH}",
        "id kinds",
        implicit=True,
        extras="kinds",
        text="text",
    ),
    _format(
        *("trl-conversational", "TRL conversational: message lists, with or without a prompt"),
        [f"prompt:absent messages:absent {LISTS}", f"prompt:messages {LISTS}"],
        f"prompt=prompt {_BOTH}",
        "id kinds rejected_prompt",
        implicit=True,
        extras="kinds",
    ),
    _format(
        *("ultrafeedback", "UltraFeedback: a prompt text and message lists"),
        [f"prompt:text {LISTS}"],
        f"prompt=prompt {_BOTH}",
        extras="kinds",
    ),
    _format(
        *("alpaca", "Alpaca ranking: instruction, input, chosen, rejected"),
        [f"instruction:text {PAIR}"],
        f"{_ALPACA} {_BOTH}",
    ),
    _format(
        *("comparison", "comparison_gpt4_data: instruction, input, output list, best first"),
        ["instruction:text output:list"],
        f"{_ALPACA} answers=output",
        "ranks",
    ),
    _format(
        *("sharegpt", "ShareGPT ranking: conversations, chosen, rejected with from/value"),
        ["conversations:list chosen:answer rejected:answer"],
        f"prompt=conversations system=system {_BOTH}",
    ),
    _format(
        *("messages", "a conversation in messages, and chosen and rejected"),
        ["messages:messages chosen:answer rejected:answer prompt:absent"],
        f"prompt=messages system=system {_BOTH}",
    ),
    _format(
        *("question", "Orca pairs: question (or query, or input) and system, chosen, rejected"),
        [f"question|query|input:text {PAIR} instruction:absent conversations:absent prompt:absent"],
        f"prompt=question|query|input system=system {_BOTH}",
        alone=(("question", "query", "input"),),
    ),
    _format(
        *("openai", "OpenAI preference: input.messages, preferred_output, non_preferred_output"),
        ["input:object preferred_output:list non_preferred_output:list"],
        "prompt=input.messages chosen=preferred_output rejected=non_preferred_output",
    ),
    _format(
        *("hh", "Anthropic-HH: dialogue texts with \\n\\nHuman: and \\n\\nAssistant:"),
        [f"prompt:hh {PAIR} {_NO_OTHER}", f"prompt:absent chosen:hh rejected:text {_NO_OTHER}"],
        f"prompt=prompt {_BOTH}",
        implicit=True,
        dialogues=True,
        text="hh",
    ),
    _format(
        *("rendered", "texts of a chat template (ChatML, Llama, Mistral, Gemma, Zephyr, NeMo)"),
        [
            f"prompt:rendered {PAIR} {_NO_OTHER}",
            f"prompt:absent chosen:rendered rejected:text {_NO_OTHER}",
        ],
        f"prompt=prompt {_BOTH}",
        implicit=True,
        dialogues=True,
        extras="kinds",
    ),
    _format(
        *("paper", "the paper's probing sets, all response kinds"),
        [f"prompt:text {PAIR} {'|'.join(PAPER_KINDS)}:present"],
        f"prompt=prompt {_BOTH}",
        dialogues=True,
        extras="all",
    ),
    _format(
        *("swift", "ms-swift: messages or query, response, rejected_response or rejected_messages"),
        [
            "query:text response:text rejected_response:text",
            "messages:messages rejected_response|rejected_messages:answer",
            "conversations:from rejected|rejected_response:text chosen|response:absent",
        ],
        "prompt=query|messages|conversations system=system history=history "
        "chosen=response|messages|conversations "
        "rejected=rejected_response|rejected_messages|rejected",
    ),
    _format(
        *("step-dpo", "Step-DPO: both answers continue the steps in initial_reason_steps"),
        [f"prompt:text {PAIR} initial_reason_steps:text"],
        f"prompt=prompt {_BOTH} prefill=initial_reason_steps",
    ),
    _format(
        *("pairs", "a prompt and two answers under other names (chosen_response, accepted, …)"),
        [
            f"{PROMPT}:asked {CHOSEN}:reply {REJECTED}:reply chosen:absent response:absent",
            f"{'|'.join(_ASKED_TOO)}:asked chosen:reply rejected:reply "
            + " ".join(f"{name}:absent" for name in _ASKED),
            f"{PROMPT}:absent {CHOSEN}:messages {REJECTED}:messages chosen:absent",
            f"{PROMPT}:absent chosen:from rejected:from",
            f"{PROMPT}:text chosen:message rejected:message",
            f"{PROMPT}:asked {ONE}:text {REJECTED}:reply chosen|{CHOSEN}:absent query:absent "
            "messages:absent",
        ],
        f"prompt={PROMPT} query=input system={SYSTEM} chosen=chosen|{CHOSEN}|{ONE} "
        f"rejected={REJECTED}",
        alone=(*_ALONE, CHOSEN.split("|"), REJECTED.split("|")),
        implicit=True,
        dialogues=True,
    ),
    _format(
        *("several", "a prompt, lists of chosen and of rejected answers (RewardBench 2; pos, neg)"),
        [
            f"{PROMPT}:asked {GOOD}:texts {BAD}:texts",
            f"{PROMPT}:asked {GOOD}:text {BAD}:texts",
            f"{PROMPT}:asked {GOOD}:texts {BAD}:text",
        ],
        f"prompt={PROMPT} query=input system={SYSTEM} answers={GOOD}+{BAD}",
        alone=_ALONE,
        dialogues=True,
    ),
    _format(
        *("rated", "a prompt and a list of answers, each with a rank or a score"),
        [
            f"{PROMPT}:asked {ANSWERS}:rated chosen:absent",
            f"{PROMPT}:asked {ANSWERS}:texts {RANK}|{SCORE}:list chosen:absent",
        ],
        f"prompt={PROMPT} query=input system={SYSTEM} answers={ANSWERS} answer={ANSWER} "
        f"rank={RANK} score={SCORE}",
        alone=(*_ALONE, ANSWERS.split("|")),
        dialogues=True,
    ),
    _format(
        *("rated-rows", "a prompt, one answer and its score; the answers to a prompt in many rows"),
        [
            f"{PROMPT}:asked {ONE}:text {ROW_SCORE}:grade {LABEL}|{_NO_PAIR}:absent",
            f"messages|conversations:list {ROW_SCORE}:grade {LABEL}|{ONE}|{_NO_PAIR}:absent",
        ],
        f"prompt={PROMPT} query=input system={SYSTEM} completion={ONE} score={ROW_SCORE}",
        alone=_ALONE,
        dialogues=True,
    ),
    _format(
        *("candidates", "Amazon Nova: messages, the last of them with rated candidates"),
        ["messages.-1.candidates:list"],
        "prompt=messages system=system.0.text answers=messages.-1.candidates answer=content "
        "score=preferenceLabel",
    ),
    _format(
        *("two-answers", "a prompt, two answers (response_0, response_1, …), which one is better"),
        [
            f"{PROMPT}:asked {FIRST}:asked {SECOND}:asked {PREFERENCE}|{_TOLD}:label",
            f"{PROMPT}:asked {FIRST}:asked {SECOND}:asked chosen:label rejected:absent "
            f"{PREFERENCE}|{_TOLD}:absent",
        ],
        f"prompt={PROMPT} query=input system={SYSTEM} answers={FIRST}+{SECOND} better={BETTER} "
        f"preference={PREFERENCE}",
        alone=(*_ALONE, ("response_0", "response_2")),
        dialogues=True,
    ),
    _format(
        *(
            "two-scores",
            "a prompt, two answers and a score of each (answer_0, score_0; SHP, WebGPT)",
        ),
        [
            f"{PROMPT}:asked {FIRST}:{kind} {SECOND}:{kind} {FIRST_SCORE}:label "
            f"{SECOND_SCORE}:label {PREFERENCE}|{BETTER}:absent"
            for kind in ("text", "texts")
        ]
        + [f"{PROMPT}:texts {FIRST}:texts {SECOND}:texts {FIRST_SCORE}:label"],
        f"prompt={PROMPT} answers={FIRST}+{SECOND} score={FIRST_SCORE}+{SECOND_SCORE}",
        alone=(*_ALONE, ("response_0", "response_2")),
        dialogues=True,
    ),
    _format(
        *("two-conversations", "two conversations on one question, and which one won (arenas)"),
        [f"{PROMPT}:absent conversation_a:messages conversation_b:messages winner:label"],
        "answers=conversation_a+conversation_b better=winner",
    ),
    _format(
        *("choice", "a list of answers and the place of the best one (summaries, choice)"),
        [
            f"{PROMPT}:asked summaries|{ANSWERS}:list {CHOICE}:place rejected:absent "
            f"{RANK}|{SCORE}:absent"
        ],
        f"prompt={PROMPT} query=input system={SYSTEM} answers=summaries|{ANSWERS} "
        f"answer={ANSWER} better={CHOICE}",
    ),
    _format(
        *("tree", "OpenAssistant's message trees with ranked replies"),
        ["prompt.replies:list"],
        "tree=prompt",
    ),
    _format(
        *("kto", "unpaired: prompt, completion, label; paired where a prompt has both labels"),
        [f"{LABEL}:label {PROMPT}:asked {ONE}:asked instruction|{_NO_PAIR}:absent"],
        f"prompt={PROMPT} query=input system={SYSTEM} completion={ONE} label={LABEL}",
        "id",
        alone=_ALONE,
    ),
    _format(
        *("kto-sharegpt", "unpaired conversations with from/value and a label"),
        ["label|kto_tag:label conversations:list"],
        "prompt=conversations system=system label=label|kto_tag",
    ),
    _format(
        *("kto-messages", "unpaired message lists with a label"),
        ["label|kto_tag:label messages:messages"],
        "prompt=messages system=system label=label|kto_tag",
    ),
    _format(
        *("kto-alpaca", "unpaired: instruction, input, output and a label"),
        ["label|kto_tag:label instruction:text output:text"],
        f"{_ALPACA} completion=output label=label|kto_tag",
    ),
)
FORMATS: dict[str, Format] = {known.name: known for known in _TABLE}
