"""Bare functions as subjects: a preference loss of log-probs, and a log-prob of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from squeeze.errors import InputError
from squeeze.losses import Loss, PairLogps, get_loss
from squeeze.verify.scorer import Answer, Scores, score_answers
from squeeze.verify.tiny import tiny_model, tiny_rows, tiny_tokenizer
from squeeze.verify.tokens import expect


class LossSubject:
    """A loss and the one of `squeeze.losses` that it is meant to be.

    `function(chosen, rejected, ref_chosen, ref_rejected, **hyper)` takes sequence log-probs, each
    [batch], and returns one loss a pair, their mean, or a tuple that begins with one of them, as
    trainers' `dpo_loss` do. `hyper` are values for both. Raises `InputError` for an unknown loss or
    hyper-parameter.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        loss: str = "sigmoid",
        *,
        hyper: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> None:
        self.function, self.declared = function, get_loss(loss)
        self.hyper = dict(hyper if hyper is not None else {"beta": 0.1})
        self.declared.check_names(self.hyper)
        self.name = name or f"{getattr(function, '__name__', 'loss')} as {self.declared.name}"

    def value(self, logps: PairLogps, **hyper: Any) -> Tensor:
        """The function's mean loss."""
        given = (logps.chosen, logps.rejected, logps.ref_chosen, logps.ref_rejected)
        found = self.function(*given, **self.hyper | hyper)
        first = found[0] if isinstance(found, tuple) else found
        if not isinstance(first, Tensor):
            raise InputError(f"{self.name} returns a {type(first).__name__}; return a tensor")
        return first.mean()

    def closed_form(self, logps: PairLogps, **hyper: Any) -> Tensor:
        """The declared loss's mean."""
        loss: Loss = self.declared
        return loss(logps, **self.hyper | hyper).mean()

    def pairs(self, *, at_start: bool) -> PairLogps:
        """Sixteen pairs' log-probs, the policy equal to the reference or some nats away."""
        generator = torch.Generator().manual_seed(0)
        ref_chosen, ref_rejected, away, away_too = (
            torch.randn(16, generator=generator, dtype=torch.float64) for _ in range(4)
        )
        far = 0.0 if at_start else 8.0
        ref_chosen, ref_rejected = 20 * ref_chosen - 80, 20 * ref_rejected - 80
        return PairLogps(
            chosen=(ref_chosen + far * away).requires_grad_(),
            rejected=(ref_rejected + far * away_too).requires_grad_(),
            ref_chosen=ref_chosen,
            ref_rejected=ref_rejected,
        )


class LogpsSubject:
    """A function of a model and a padded batch to each answer's summed log-prob.

    `function(model, input_ids, attention_mask, answer_mask)` takes [rows, tokens] tensors, the last
    1 at answer tokens, and returns [rows] in nats. The model is tiny and random unless given.
    """

    def __init__(
        self, function: Callable[..., Tensor], *, model: Any = None, name: str = ""
    ) -> None:
        self.function = function
        self.model = tiny_model() if model is None else model
        self.name = name or getattr(function, "__name__", "log-probs")

    @cached_property
    def answers(self) -> list[Answer]:
        """The tiny pairs' answers."""
        tokenizer = tiny_tokenizer()
        expected = [e for i, row in enumerate(tiny_rows()) for e in expect(row, i, tokenizer)]
        return [Answer(e.ids, e.prompt_kept) for e in expected]

    @cached_property
    def scores(self) -> Scores:
        """The scorer's."""
        with torch.no_grad():
            return score_answers(self.model, self.answers)

    def values(self, answers: list[Answer], *, left: int = 0, right: int = 0) -> Tensor:
        """The function's log-probs of a batch of answers, with columns of padding beside it."""
        width = max(len(a.ids) for a in answers)
        ids = torch.zeros(len(answers), left + width + right, dtype=torch.long)
        attention, mask = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, a in enumerate(answers):
            ids[row, left : left + len(a.ids)] = torch.tensor(a.ids)
            attention[row, left : left + len(a.ids)] = 1
            mask[row, left + a.start : left + len(a.ids)] = 1
        with torch.no_grad():
            return self.function(self.model, ids, attention, mask)
