"""Preflight subject: data, tokenizer and configuration, before anything is trained.

Rows become what TRL's preference trainers make of them: rendered and tokenized together, the answer
beginning where prompt and whole text part, the end cut at `max_length`, and rows dropped whose
prompt alone fills it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from squeeze.errors import InputError
from squeeze.verify.tokens import Expected, Traced, Traces, expect
from squeeze.verify.trace import Sequence as Seen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class DataSubject:
    """Rows in one of TRL's formats and the tokenizer they are trained with.

    `max_length` cuts as the trainer's does (None does not); `at_inference` is the tokenizer, with
    its template, that the model will be used with, if it is another. Raises `InputError` for data
    without rows.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = 1024,
        at_inference: PreTrainedTokenizerBase | None = None,
        name: str = "data",
    ) -> None:
        if not rows:
            raise InputError("the data hold no rows; give at least one")
        self.raw = list(rows)
        self.tokenizer, self.at_inference = tokenizer, at_inference
        self.max_length, self.name = max_length, name

    @cached_property
    def traces(self) -> Traces:
        """What the rules of TRL make of every row."""
        answers: list[Traced] = []
        lost = 0
        for i, row in enumerate(self.raw):
            expected = expect(row, i, self.tokenizer, self.at_inference)
            start = min(e.prompt_kept for e in expected)
            if self.max_length is not None and start >= self.max_length:
                lost += 1
                continue
            answers += [self._traced(e, start) for e in expected]
        return Traces(tuple(answers), len(self.raw), lost, False)

    def _traced(self, expected: Expected, start: int) -> Traced:
        ids = expected.ids[: self.max_length]
        return Traced(expected, Seen(ids, tuple(i >= start for i in range(len(ids)))))
