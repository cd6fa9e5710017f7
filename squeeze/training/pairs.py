"""Pairs of a phase: the data's, counterfactual forms of them, or the policy's own."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from squeeze.data.encoding import encode_prompt
from squeeze.data.examples import PreferenceExample
from squeeze.data.probe_set import permuted_words
from squeeze.errors import InputError
from squeeze.generation import generate_answers
from squeeze.training.arms import Phase

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OWN = ("scored", "random")
N_SAMPLES = 4

Examples = Sequence[PreferenceExample]
Score = Callable[[str], float]


def phase_examples(train: Examples, phase: Phase, seed: int) -> list[PreferenceExample]:
    """The training examples in the form that a phase asks for (see `Phase.on`)."""
    if phase.on == "shuffled":  # a rotation: nobody keeps its own answer
        answers = [e.chosen for e in train]
        turned = answers[1:] + answers[:1]
        return [replace(e, chosen=answer) for e, answer in zip(train, turned, strict=True)]
    if phase.on == "permuted":
        rng = random.Random(f"permuted/{seed}")
        return [replace(e, chosen=permuted_words(e.chosen, rng)) for e in train]
    return list(train[::2]) if phase.on == "half" else list(train)


def own_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Examples,
    ranking: str,
    score: Score,
    *,
    seed: int,
    max_new_tokens: int,
) -> list[PreferenceExample]:
    """Pairs of the model's own answers, the best and the worst of four samples a prompt.

    `ranking` is "scored" (by `score`, higher is better) or "random". A prompt whose samples all
    score alike, or are all the same, gives no pair. Raises `InputError` if none is left.
    """
    prompts = [encode_prompt(tokenizer, e.prompt) for e in train]
    samples = [
        generate_answers(
            model, tokenizer, prompts, max_new_tokens=max_new_tokens, seed=seed * N_SAMPLES + number
        )
        for number in range(N_SAMPLES)
    ]
    rng, pairs = random.Random(f"own/{seed}"), []
    for example, *answers in zip(train, *samples, strict=True):
        different = sorted({answer.text.strip() for answer in answers} - {""})
        if ranking == "random":
            ranks = {text: rng.random() for text in different}
        else:
            ranks = {text: score(text) for text in different}
        ordered = sorted(different, key=ranks.__getitem__)
        if len(ordered) > 1 and ranks[ordered[0]] < ranks[ordered[-1]]:
            pairs.append(replace(example, chosen=ordered[-1], rejected=ordered[0], responses={}))
    if not pairs:
        raise InputError(
            "the policy's own answers to every prompt are alike, so there is no pair to train on; "
            "use more prompts or an earlier checkpoint"
        )
    return pairs
