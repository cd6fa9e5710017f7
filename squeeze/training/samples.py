"""Samples of a run for its report: log-probs token by token, and answers in the model's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from squeeze.data.encoding import encode_prompt
from squeeze.data.examples import PreferenceExample
from squeeze.generation import generate_answers
from squeeze.scoring import ScoredResponse

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def chosen_tokens(
    responses: Sequence[ScoredResponse], tokenizer: PreTrainedTokenizerBase
) -> dict[str, list[dict[str, Any]]]:
    """Per example the chosen answer's tokens: text, log-prob, argmax token and its log-prob."""
    found = {}
    for response in responses:
        if response.kind != "chosen":
            continue
        s = response.statistics
        columns = (
            tokenizer.batch_decode([[token] for token in response.token_ids]),
            [round(logp, 4) for logp in s.target_logp.tolist()],
            tokenizer.batch_decode([[token] for token in s.argmax_token.tolist()]),
            [round(logp, 4) for logp in s.argmax_logp.tolist()],
        )
        names = ("text", "logp", "argmax", "argmax_logp")
        rows = zip(*columns, strict=True)
        found[response.example] = [dict(zip(names, row, strict=True)) for row in rows]
    return found


def token_changes(
    arm: str,
    before: dict[str, list[dict[str, Any]]],
    after: dict[str, list[dict[str, Any]]],
    examples: Sequence[PreferenceExample],
    splits: dict[str, str],
    limit: int,
) -> list[dict[str, Any]]:
    """The `limit` examples whose chosen answer lost most log-prob, token by token, worst first."""
    entries = []
    for example in examples:
        if example.id not in before or example.id not in after:
            continue
        pairs = list(zip(before[example.id], after[example.id], strict=True))
        entries.append(
            {
                "arm": arm,
                "example": example.id,
                "split": splits[example.id],
                "prompt": example.prompt[-1].content,
                "chosen": example.chosen,
                "delta_logp": round(sum(b["logp"] - a["logp"] for a, b in pairs), 4),
                "tokens": [
                    {
                        "text": a["text"],
                        "logp_before": a["logp"],
                        "logp_after": b["logp"],
                        "argmax_before": a["argmax"],
                        "argmax_logp_before": a["argmax_logp"],
                        "argmax_after": b["argmax"],
                        "argmax_logp_after": b["argmax_logp"],
                    }
                    for a, b in pairs
                ],
            }
        )
    return sorted(entries, key=lambda entry: entry["delta_logp"])[:limit]


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[PreferenceExample],
    max_new_tokens: int,
) -> list[dict[str, str]]:
    """The model's greedy answer to every example's prompt."""
    answers = generate_answers(
        model,
        tokenizer,
        [encode_prompt(tokenizer, example.prompt) for example in examples],
        max_new_tokens=max_new_tokens,
        temperature=0.0,
    )
    return [
        {"example": e.id, "prompt": e.prompt[-1].content, "text": answer.text}
        for e, answer in zip(examples, answers, strict=True)
    ]
