"""Tasks whose answers a program can check: questions about the tiny world, and sums.

Prompts and rewards in the form that TRL's GRPOTrainer takes; nothing is sampled or trained here.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from squeeze.study.tiny_lm import tiny_lm
from squeeze.study.tiny_lm.grammar import facts, question

Turns = Sequence[dict[str, str]]
Rows = list[dict[str, Any]]
Reward = Callable[..., list[float]]


@dataclass(frozen=True)
class Task:
    """Questions with a value asked for, and the reward of an answer, or several to be added.

    `model` names the model that is asked, `questions(seed, n)` gives rows of `prompt` and `value`;
    the same seed gives the same ones.
    """

    model: Callable[[], str]
    questions: Callable[[int, int], Rows]
    reward: Reward | list[Reward]


def asked(text: str) -> list[dict[str, str]]:
    """A prompt of one user's turn."""
    return [{"role": "user", "content": text}]


# --- the tiny world -------------------------------------------------------------------------------


def world_questions(seed: int, n: int) -> Rows:
    """`n` facts of the world asked about once each, in this seed's choice, wording and order."""
    rng = random.Random(f"verifiable/{seed}")
    rows = [{"prompt": asked(question(rng, fact)), "value": fact.value} for fact in facts()]
    return rng.sample(rows, n)


def names_the_value(completions: Sequence[Turns], value: Sequence[str], **_: Any) -> list[float]:
    """1 for an answer that has the right word in it, else 0."""
    texts = [completion[-1]["content"].split() for completion in completions]
    return [float(right in words) for words, right in zip(texts, value, strict=True)]


# --- sums -----------------------------------------------------------------------------------------

SHOTS = ((3, 4), (2, 7), (5, 1))  # sums that stand solved before the one that is asked


def sums(seed: int, n: int) -> Rows:
    """`n` different sums of two digits, each after the same solved ones; plain text, no chat."""
    rng = random.Random(f"sums/{seed}")
    solved = "".join(f"{a} + {b} = {a + b}\n" for a, b in SHOTS)
    pairs = [(a, b) for a in range(1, 10) for b in range(1, 10) if (a, b) not in SHOTS]
    return [
        {"prompt": f"{solved}{a} + {b} =", "value": str(a + b)} for a, b in rng.sample(pairs, n)
    ]


def says_the_sum(completions: Sequence[str], value: Sequence[str], **_: Any) -> list[float]:
    """1 for a continuation whose first number is the sum, else 0."""
    said = [re.findall(r"\d+", text)[:1] for text in completions]
    return [float(numbers == [right]) for numbers, right in zip(said, value, strict=True)]


TASKS = {
    "tinylm": Task(lambda: str(tiny_lm()), world_questions, names_the_value),
    "smollm2-135m": Task(lambda: "smollm2-135m", sums, says_the_sum),
}
