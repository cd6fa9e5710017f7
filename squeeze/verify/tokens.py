"""Token ids that a row of training data should become: rendered as a model reads it at inference.

The prompt is what generation starts from (the chat template with its generation prompt, or the
plain text), the answer what follows it, end-of-text included. TRL's data formats; no trainer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from squeeze.data.encoding import rendered_ids
from squeeze.errors import InputError
from squeeze.verify.trace import Sequence as Seen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAIR = ("chosen", "rejected")


@dataclass(frozen=True)
class Expected:
    """One answer of a row: prompt ids at inference, and the ids of the whole text."""

    row: int
    kind: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]

    @property
    def prompt_kept(self) -> int:
        """How many of the prompt's ids the whole text begins with; all, unless they differ."""
        return common_prefix(self.prompt_ids, self.ids)


@dataclass(frozen=True)
class Traced:
    """What one answer should be, and what the trainer's model reads of it."""

    expected: Expected
    seen: Seen

    @property
    def is_cut(self) -> bool:
        """Whether truncation took tokens away."""
        return len(self.seen.ids) < len(self.expected.ids)

    @property
    def is_empty(self) -> bool:
        """Whether no token of the answer is left, or none ever was."""
        kept = self.expected.prompt_kept
        return len(self.seen.ids) <= kept or kept == len(self.expected.ids)

    @property
    def where(self) -> str:
        """Row and kind, for messages."""
        return f"row {self.expected.row + 1}, {self.expected.kind}"


@dataclass(frozen=True)
class Traces:
    """All answers of some rows, of which `n_lost` rows the trainer dropped."""

    answers: tuple[Traced, ...]
    n_rows: int
    n_lost: int
    masks_seen: bool  # whether who carries loss was seen, or is what the rules of TRL say

    def pairs(self) -> list[tuple[Traced, Traced]]:
        """(chosen, rejected) of every row that has both."""
        rows: dict[int, dict[str, Traced]] = {}
        for one in self.answers:
            rows.setdefault(one.expected.row, {})[one.expected.kind] = one
        return [(r["chosen"], r["rejected"]) for r in rows.values() if set(PAIR) <= set(r)]


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading ids two sequences share."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def expect(
    row: Mapping[str, Any],
    index: int,
    tokenizer: PreTrainedTokenizerBase,
    at_inference: PreTrainedTokenizerBase | None = None,
) -> list[Expected]:
    """What a row's answers should become; `at_inference` renders the prompt if it is another.

    Raises `InputError` naming the row for one in none of TRL's formats with a prompt.
    """
    _require_texts(row, index)
    row = _with_prompt(row, index)
    kinds = PAIR if set(PAIR) <= set(row) else ("completion",)
    prompt_ids = _ids(at_inference or tokenizer, row["prompt"], generation=True)
    found = []
    for kind in kinds:
        if row.get(kind) is None:
            raise InputError(f"row {index + 1} has no field {kind!r}; give prompt and answer(s)")
        ids = _ids(tokenizer, _joined(row["prompt"], row[kind], tokenizer))
        found.append(Expected(index, kind, prompt_ids, ids))
    return found


def _require_texts(row: Mapping[str, Any], index: int) -> None:
    """Raise `InputError` unless a row's parts are all texts, or all lists of messages."""
    parts = {
        name: row[name] for name in ("prompt", *PAIR, "completion") if row.get(name) is not None
    }
    for name, part in parts.items():
        is_text = isinstance(part, str)
        messages = isinstance(part, list) and all(
            isinstance(turn, Mapping) and isinstance(turn.get("role"), str) for turn in part
        )
        if not (is_text or (messages and part)):
            raise InputError(
                f"row {index + 1}, {name!r} is neither text nor messages with a role; mend the row"
            )
        if is_text != isinstance(next(iter(parts.values())), str):
            raise InputError(
                f"row {index + 1} has {name!r} as {'text' if is_text else 'messages'}, other parts "
                "not; give all as text, or all as messages"
            )


def _with_prompt(row: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    if row.get("prompt") is not None:
        return row
    if set(PAIR) <= set(row):
        from trl import extract_prompt

        found: Mapping[str, Any] = extract_prompt(dict(row))
        return found
    raise InputError(
        f"row {index + 1} has the fields {', '.join(row)}; give prompt, chosen and rejected (or "
        "prompt and completion), as text or as messages"
    )


def _joined(prompt: Any, answer: Any, tokenizer: PreTrainedTokenizerBase) -> Any:
    if not isinstance(prompt, str):
        return [*prompt, *answer]
    end = str(tokenizer.eos_token or "")
    return prompt + answer if answer.endswith(end) else prompt + answer + end


def _ids(
    tokenizer: PreTrainedTokenizerBase, text: Any, *, generation: bool = False
) -> tuple[int, ...]:
    if isinstance(text, str):
        return tuple(tokenizer(text)["input_ids"])
    if not tokenizer.chat_template:
        raise InputError(
            "the rows are conversations and the tokenizer has no chat template; set one"
        )
    return tuple(rendered_ids(tokenizer, text, generation=generation))
