"""Pairs of the tiny world that differ in one word, and what trainings do to the tokens after it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from squeeze.claims.curves import Array
from squeeze.data.encoding import EncodedItem
from squeeze.data.examples import Message, PreferenceExample
from squeeze.data.probe_set import CHOSEN, REJECTED
from squeeze.study.tiny_lm.grammar import CHOSEN_STYLE, VALUES, draw_wording, facts, question
from squeeze.training.inputs import Pairs

if TYPE_CHECKING:
    from squeeze.study.seed_run import Experiment
    from squeeze.training.runner import Phases


def one_edit_pairs(n_train: int, n_held_out: int, seed: int, *, words: int = 0) -> Pairs:
    """Pairs of a right and a wrong answer that differ in the value alone; a fact each.

    With `words` 1 or 2 the wrong answer is said in other words, two draws of them; the right one
    stays. These are the counterfactual, and what it is held against in its turn.
    """
    rng, others_rng = random.Random(f"one edit/{seed}"), random.Random(f"other words/{seed}")
    made = []
    for fact in rng.sample(facts(), n_train + n_held_out):
        others = [value for value in VALUES[fact.attribute].split() if value != fact.value]
        wrong = replace(fact, value=rng.choice(others))
        wording = draw_wording(rng, CHOSEN_STYLE, zipf=0.0)
        said = [wording] + [
            draw_wording(r, CHOSEN_STYLE, zipf=0.0, unlike=wording) for r in (rng, others_rng)
        ]
        made.append(
            PreferenceExample(
                id=f"{fact.animal}-{fact.attribute}",
                prompt=(Message("user", question(rng, fact)),),
                chosen=wording.say(fact),
                rejected=said[words].say(wrong),
            )
        )
    return Pairs(made[:n_train], made[n_train:])


def edit_position(item: EncodedItem) -> int:
    """The first token in which the chosen answer differs from the rejected one."""
    pairs = zip(item.response_ids[CHOSEN], item.response_ids[REJECTED], strict=True)
    return next(i for i, (a, b) in enumerate(pairs) if a != b)


@torch.no_grad()
def logps_after(
    experiment: Experiment, phases: Phases, items: Sequence[EncodedItem], edits: Sequence[int]
) -> Array:
    """Log π of each item's chosen tokens after its edit, summed, by the model after `phases`."""
    model = experiment.arms.model(phases).eval()
    found = []
    for item, edit in zip(items, edits, strict=True):
        answer = torch.tensor(item.response_ids[CHOSEN])
        ids = torch.cat([torch.tensor(item.prompt_ids), answer])
        logps = model(input_ids=ids[None]).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        found.append(float(logps.gather(-1, answer[:, None])[edit + 1 :].sum()))
    return np.array(found)


def change_after(
    experiment: Experiment, arm: str, split: str, edits: Sequence[int] | None = None
) -> Array:
    """The change of `logps_after` over the last phase of a trained arm, [pairs of the split].

    `edits` are those of the pairs themselves by default.
    """
    items = [item for item in experiment.arms.items if item.split == split]
    edits = [edit_position(item) for item in items] if edits is None else edits
    phases = experiment.config.arm(arm).phases
    before, after = (logps_after(experiment, p, items, edits) for p in (phases[:-1], phases))
    return np.asarray(after - before)
