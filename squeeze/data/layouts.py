"""Layouts of rows: how a row becomes examples, once `Columns` say where its parts lie.

Pure functions of rows; nothing here opens files, and which layout a file has is `sources`' work.
A row that does not hold a usable pair raises `RowError` naming the field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from squeeze.data import rating
from squeeze.data.columns import Columns, present, required, row_id, value_at
from squeeze.data.examples import Message, PreferenceExample, Turns, make_example
from squeeze.data.probe_set import CHOSEN, KINDS, PAPER_KINDS, REJECTED
from squeeze.data.rows import Row, RowError
from squeeze.data.turns import (
    HH,
    IMAGES,
    Dialogue,
    Tags,
    dialogue_of,
    has_media,
    one_answer,
    shared_beginning,
    text,
    without_media,
    without_open_answer,
)
from squeeze.text_statistics import pieces

EXTRA_KINDS = tuple(kind for kind in KINDS if kind not in (CHOSEN, REJECTED))
_EXTRA = frozenset(EXTRA_KINDS)


@dataclass(frozen=True)
class Rules:
    """What the user decides: how rated answers pair, and what may be read of hard cases.

    `pairs_by` is one of `rating.PAIRS_BY`; `divergent` "refuse" or "last-turns"; `drop_images`
    reads the texts of pairs with images. `counts` collects what was left out within rows.
    """

    pairs_by: str = "best-worst"
    divergent: str = "refuse"
    drop_images: bool = False
    counts: Counter[str] = field(default_factory=Counter, compare=False)


@dataclass(frozen=True)
class Unpaired:
    """One answer to one prompt: wanted (`label` true) or not, or rated (`grade`, high is good)."""

    id: str | None
    prompt: Turns
    completion: str
    label: bool
    grade: float | None = None


@dataclass(frozen=True)
class Layout:
    """How the rows of a file are read.

    `implicit` lets the prompt be what both answers begin with; `dialogues` reads texts with
    speakers' markers as conversations; `extras` says which columns are further responses ("kinds",
    "responses" or "all").
    """

    columns: Columns
    implicit: bool = False
    dialogues: bool = False
    extras: str = ""
    tags: Tags = field(default_factory=Tags)
    rules: Rules = field(default_factory=Rules)

    # ---- entry points

    def examples(self, row: Row) -> list[PreferenceExample]:
        """The pairs that a row holds: one, or of rated answers as many as `pairs_by` makes.

        Raises `RowError` where there is none.
        """
        row, columns = self._plain(row), self.columns
        if columns.tree:
            return self._of_tree(row)
        if columns.answers and not columns.chosen:
            return self._rated(row)
        listed = isinstance(value_at(row, columns.answers), list) if columns.answers else False
        if listed and value_at(row, columns.chosen) is None:  # LLaMA-Factory's older files
            return self._rated(row)
        return [self._pair(row)]

    def unpaired(self, row: Row) -> Unpaired:
        """The answer of a row, with its label or grade; raises `RowError` when it holds none."""
        one = self.demonstration(row)
        name = self.columns.label
        if not name:
            return replace(one, grade=rating.row_grade(row, self.columns.score))
        return replace(one, label=rating.parse_label(required(row, name), name.split("|")[0]))

    def demonstration(self, row: Row) -> Unpaired:
        """The answer of a row that needs no label, as wanted; raises `RowError` without one."""
        row = self._plain(row)
        asked, dialogue = self._asked(row, required(row, self.columns.prompt))
        if self.columns.completion:
            value = required(row, self.columns.completion)
            name = self.columns.completion.split("|")[0]
            answer = self._answer(value, name, dialogue)
            completion = answer if isinstance(answer, str) else one_answer(answer, name)
        else:
            completion = one_answer(asked[-1:], self.columns.prompt.split("|")[0])
            asked = asked[:-1]
        return Unpaired(row_id(row, self.columns.id), self._lead(row) + asked, completion, True)

    # ---- parts of a row

    def _plain(self, row: Row) -> Row:
        """The row, if it is texts alone; without its images where the rules say so."""
        if self.columns.tools and value_at(row, self.columns.tools) not in (None, [], "", "[]", {}):
            raise RowError(
                "unsupported tools",
                "has tools, which a chat template must render; render the rows to text with the "
                "model's template first, or ignore them with --columns tools=",
            )
        if self.rules.drop_images:
            plain: Row = without_media(row)
            self.rules.counts["images"] += plain != row
            return plain
        if has_media(row):
            raise RowError("images", IMAGES)
        return row

    def _lead(self, row: Row) -> Turns:
        """System message and history, which stand before the prompt."""
        turns: list[Message] = []
        if self.columns.system and (system := value_at(row, self.columns.system)):
            turns.append(Message("system", text(system, "system")))
        history = value_at(row, self.columns.history) if self.columns.history else None
        if not isinstance(history, list | None):
            raise RowError("bad history", "has a 'history' that is no list")
        for past in history or ():
            if not isinstance(past, list | tuple) or len(past) != 2:
                raise RowError("bad history", "has a 'history' entry that is no [question, answer]")
            turns.append(Message("user", text(past[0], "history")))
            turns.append(Message("assistant", text(past[1], "history")))
        return tuple(turns)

    def _asked(self, row: Row, value: Any) -> tuple[Turns, Dialogue | None]:
        """The prompt of a value, and how it is written if it is a rendered dialogue."""
        name = present(row, self.columns.prompt)
        if not isinstance(value, str):
            return self.tags.read(value, name), None
        asked = text(value, name)
        dialogue = dialogue_of(asked) if self.dialogues else None
        if dialogue and (turns := dialogue.read(asked)):
            return without_open_answer(turns), dialogue
        more = value_at(row, self.columns.query) if self.columns.query else None
        query = "" if not more or more is value else text(more, self.columns.query)
        return (Message("user", f"{asked}\n{query}" if query else asked),), None

    def _answer(self, value: Any, name: str, dialogue: Dialogue | None) -> str | Turns:
        """A text, or turns where the value holds messages or a whole dialogue."""
        if not isinstance(value, str):
            return self.tags.read(value, name)
        said = text(value, name)
        if self.dialogues and (written := dialogue_of(said)) and (turns := written.read(said)):
            return turns
        return dialogue.said(said) if dialogue else said

    def _extra(self, row: Row) -> dict[str, str]:
        """Responses of other kinds that the row carries."""
        if self.extras == "kinds":
            if _EXTRA.isdisjoint(row):
                return {}
            return {k: text(row[k], k) for k in EXTRA_KINDS if isinstance(row.get(k), str)}
        if self.extras == "responses":
            return dict(_responses(row.get("responses") or {}))
        if self.extras == "all":
            pair = {*self.columns.names(), CHOSEN, REJECTED}
            named = {PAPER_KINDS.get(k, k): v for k, v in row.items() if k not in pair}
            return {k: HH.said(text(v, k)) for k, v in named.items() if isinstance(v, str)}
        return {}

    # ---- pairs

    def _pair(self, row: Row) -> PreferenceExample:
        """The pair of a row that has a chosen and a rejected answer."""
        columns = self.columns
        value = value_at(row, columns.prompt) if columns.prompt else None
        if value is None and not self.implicit:
            required(row, columns.prompt or "prompt")
        asked, dialogue = ((), None) if value is None else self._asked(row, value)
        chosen, rejected = (
            self._answer(required(row, path), present(row, path), dialogue)
            for path in (columns.chosen, columns.rejected)
        )
        before = value_at(row, columns.prefill) if columns.prefill else None
        if before and isinstance(chosen, str) and isinstance(rejected, str):
            before = text(before, columns.prefill)
            chosen, rejected = before + chosen, before + rejected
        pair = self.join(row, asked, chosen, rejected, isinstance(value, str))
        own = value_at(row, columns.rejected_prompt) if columns.rejected_prompt else None
        if own is None:
            return pair
        other = self.tags.read(own, columns.rejected_prompt)
        parts = (pair.prompt, pair.chosen, pair.rejected, pair.responses)
        return make_example(row_id(row, columns.id), *parts, other)

    def join(
        self, row: Row, asked: Turns, chosen: str | Turns, rejected: str | Turns, said: bool = False
    ) -> PreferenceExample:
        """The pair of a prompt and two answers, which may be whole conversations themselves.

        `said`: the prompt was a text, which only repeats what whole conversations begin with.
        """
        identity, lead, extra = row_id(row, self.columns.id), self._lead(row), self._extra(row)
        if isinstance(chosen, str) and isinstance(rejected, str):
            if not asked and self.implicit:
                asked, chosen, rejected = _implicit(chosen, rejected)
            return make_example(identity, lead + asked, chosen, rejected, extra)
        if asked and chosen == asked:  # the prompt is the chosen conversation, its answer included
            asked = asked[:-1]

        def conversation(answer: str | Turns) -> Turns:
            turns = (Message("assistant", answer),) if isinstance(answer, str) else answer
            own = turns[0].role != "assistant" and (said or turns[:1] == asked[:1])
            turns = turns if own and len(turns) > 1 else asked + turns
            return turns if turns[: len(lead)] == lead else lead + turns

        one, other = conversation(chosen), conversation(rejected)
        shared = shared_beginning(one, other)
        prompt, one, other = one[:shared], one[shared:], other[shared:]
        if max(len(one), len(other)) > 1:
            return self._divergent(identity, prompt, one, other, extra)
        best, worst = one_answer(one, CHOSEN), one_answer(other, REJECTED)
        return make_example(identity, prompt, best, worst, extra)

    def _divergent(
        self,
        identity: str | None,
        prompt: Turns,
        chosen: Turns,
        rejected: Turns,
        extra: Mapping[str, str],
    ) -> PreferenceExample:
        """A pair of conversations that part before their last turn."""
        best, worst = one_answer(chosen[-1:], CHOSEN), one_answer(rejected[-1:], REJECTED)
        if self.rules.divergent != "last-turns":
            raise RowError(
                "conversations diverge",
                "has conversations that part before their last turn, so its answers answer "
                "different prompts; --divergent last-turns keeps each side's own history",
            )
        own, other = prompt + chosen[:-1], prompt + rejected[:-1]
        return make_example(identity, own, best, worst, extra, None if own == other else other)

    def _rated(self, row: Row) -> list[PreferenceExample]:
        asked: Turns = ()
        dialogue = None
        said: Any = None
        if self.columns.prompt:  # else each answer is a conversation with the question in it
            said = required(row, self.columns.prompt)
            if self.columns.answers.startswith(f"{self.columns.prompt}.-1."):
                if not isinstance(said, list):
                    detail = f"has no list of messages in {self.columns.prompt!r}"
                    raise RowError("not messages", detail)
                said = said[:-1]  # the last message holds the answers
            if not _is_texts(said):
                asked, dialogue = self._asked(row, said)
        rated: list[tuple[float, str | Turns]] = []
        for grade, value, name in rating.answers(row, self.columns):
            if _is_texts(said):
                rated.append((grade, _rounds(said, value, name)))
                continue
            several = value if _is_texts(value) else [value]  # texts of one rank
            rated += [(grade, self._answer(one, name, dialogue)) for one in several]
        return self._pairs(row, asked, rated)

    def _pairs(
        self, row: Row, asked: Turns, rated: list[tuple[float, str | Turns]]
    ) -> list[PreferenceExample]:
        """The pairs of rated answers to one prompt; a second and later one gets its id numbered."""
        made: list[PreferenceExample] = []
        pairs, ties = rating.pairs(rated, self.rules.pairs_by)
        self.rules.counts["tied pairs"] += ties
        for best, worst, between in pairs:
            example = self.join(row, asked, best, worst)
            ranks = {
                f"rank_{place}": one if isinstance(one, str) else one_answer(one[-1:], "answers")
                for place, one in enumerate(between, start=2)
            }
            example = replace(example, responses={**example.responses, **ranks})
            own = row_id(row, self.columns.id)
            made.append(replace(example, id=f"{own}/{len(made) + 1}") if own and made else example)
        return made

    def _of_tree(self, row: Row) -> list[PreferenceExample]:
        """A pair (or as many as the rule makes) wherever a message has ranked replies."""
        made: list[PreferenceExample] = []
        waiting: list[tuple[Turns, Any]] = [((), required(row, self.columns.tree))]
        while waiting:
            before, node = waiting.pop()
            turns = before + self.tags.read(node, self.columns.tree)
            listed = value_at(node, "replies")
            replies = [r for r in listed if isinstance(r, dict)] if isinstance(listed, list) else []
            waiting += [(turns, reply) for reply in reversed(replies)]
            if turns[-1].role != "user":
                continue
            ranked = [r for r in replies if rating.is_grade(r.get("rank"))]
            if len(ranked) > 1:
                rated = [(-float(r["rank"]), self.tags.read(r, "replies")) for r in ranked]
                made += self._pairs({}, turns, list(rated))
        if not made:
            raise RowError("no ranked replies", "has no message with two ranked replies")
        return made


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def _rounds(asked: list[Any], answers: Any, name: str) -> Turns:
    """The conversation of a list of questions and the list of their answers."""
    if not isinstance(answers, list) or len(answers) != len(asked):
        raise RowError("rounds differ", f"has not one answer in {name!r} to each question")
    turns: list[Message] = []
    for question, answer in zip(asked, answers, strict=True):
        turns += [Message("user", text(question, name)), Message("assistant", text(answer, name))]
    return tuple(turns)


def _responses(value: Any) -> Iterator[tuple[str, str]]:
    """Kind and text: from an object, or from a list of both, as Parquet has no open-ended ones."""
    if isinstance(value, dict):
        value = [{"kind": kind, "text": said} for kind, said in value.items() if said is not None]
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise RowError("bad responses", "has 'responses' that do not map kinds to texts")
    for entry in value:
        kind = text(entry.get("kind"), "responses")
        if kind in (CHOSEN, REJECTED):
            raise RowError(
                "bad responses",
                f"has a {kind!r} among its 'responses', which would be scored in place of the "
                "answer that is trained on; give it another kind",
            )
        yield kind, text(entry.get("text"), kind)


def _implicit(chosen: str, rejected: str) -> tuple[Turns, str, str]:
    """TRL's prompt where no column holds one: what both texts begin with.

    That common beginning ends with a whole word (Chinese characters are words) and without white
    space: TRL's rule, but that one tears words apart.
    """
    first, second = pieces(chosen), pieces(rejected)
    shared = min(len(first), len(second)) - 1  # something must be left to answer
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            shared = min(shared, place)
            break
    n = len("".join(first[: max(shared, 0)]).rstrip())
    if not n:
        raise RowError("no shared prompt", "has no 'prompt', and its responses begin differently")
    return (Message("user", chosen[:n]),), chosen[n:], rejected[n:]
