"""Evidence of the claims beyond the paper: GR-1, GR-2 and NS-1 on checkable questions, DP-4.

Each is registered in a part by itself, with seeds of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import numpy as np
from pydantic import Field, FiniteFloat

from squeeze.cache import cache_directory, private
from squeeze.claims.group_relative import GroupSteps, SignedTrainings, blindly, rescored
from squeeze.claims.one_edit import OneEdit
from squeeze.errors import InputError
from squeeze.files import having
from squeeze.study.gathering import observation
from squeeze.study.one_edit import change_after, edit_position, one_edit_pairs
from squeeze.study.records import kept
from squeeze.study.registration import LevelPlan
from squeeze.study.study import Study

DPO, DPOP = "sft-dpo", "loss-dpop:beta=0.1"  # with the same β
SIGNS = ("positive", "negative")
SPLITS = ("train", "held_out")


_Changes = Annotated[list[FiniteFloat], Field(min_length=1)]
_Splits = Annotated[dict[str, _Changes], having(*SPLITS)]
_ONE_EDIT_ARMS = ("dpo", "dpop", "bare", "again")
_OneEdit = Annotated[dict[str, _Splits], having(*_ONE_EDIT_ARMS)]


def _kept(
    o: Study, part: str, own: LevelPlan, seed: int, make: Callable[[], Any], shape: Any
) -> Any:
    """A seed's numbers of a type, from the records or the cache where they are there."""
    cache = o.cache or private(cache_directory() / "experiments")
    facts = {"model": own.model, **own.recipe}
    name = f"{part}-{own.model}-{seed}.json"
    return kept(name, facts, make, cache, o.records, o.recorded, shape)


def _group_relative(o: Study, claim: str) -> tuple[list[Any], dict[str, Any]]:
    """Each seed's result on the checkable questions, and what evidence of them has in common."""
    from squeeze.study.group_relative import Recipe, run_seed, shape  # TRL takes seconds

    own, seeds = o.own(claim)
    recipe = Recipe(**own.recipe)
    results = [
        _kept(o, "group-relative", own, s, partial(run_seed, own.model, s, recipe), shape(recipe))
        for s in seeds
    ]
    common = {"level": o.level, "seeds": seeds, "model": own.model}
    return results, common | {"exploratory": seeds != own.evaluation}


@observation("GR-1", bare=True)
def gr_1(o: Study) -> GroupSteps:
    """GR-1: a group's step with its wrong answers masked, against as many masked at random."""
    results, common = _group_relative(o, "GR-1")
    steps = [result.steps for result in results]
    return GroupSteps(steps, bare=[blindly(own) for own in steps], **common)


@observation("GR-2", bare=True)
def gr_2(o: Study) -> GroupSteps:
    """GR-2: the score of each question before the step, against another question's."""
    results, common = _group_relative(o, "GR-2")
    steps = [result.steps for result in results]
    bare = [rescored(own, seed) for own, seed in zip(steps, common["seeds"], strict=True)]
    return GroupSteps(steps, bare=bare, **common)


@observation("NS-1", bare=True)
def ns_1(o: Study) -> SignedTrainings:
    """NS-1: trainings on answers of one sign, against the same with permuted advantages."""
    results, common = _group_relative(o, "NS-1")

    def series(of: str, form: str = "") -> dict[str, list[Any]]:
        return {sign: [getattr(r, of)[sign + form] for r in results] for sign in SIGNS}

    bare = series("entropy", " blind")
    return SignedTrainings(series("entropy"), bare=bare, reward=series("reward"), **common)


def _one_edit(o: Study, own: LevelPlan, seed: int) -> dict[str, dict[str, list[float]]]:
    """A seed's changes of chosen's tokens after the edit, by training and split."""
    sizes = own.recipe["pairs"], own.recipe["held_out"]
    edited, reworded, again = (
        o.experiment_on(own, seed, one_edit_pairs(*sizes, seed, words=n)) for n in range(3)
    )
    found: dict[str, dict[str, list[float]]] = {}
    arms = {"dpo": (edited, DPO), "dpop": (edited, DPOP)}
    arms |= {"bare": (reworded, DPO), "again": (again, DPO)}
    for name, (experiment, arm) in arms.items():
        experiment.train(arm)
        for split in SPLITS:
            edits = [edit_position(item) for item in edited.arms.items if item.split == split]
            changes = change_after(experiment, arm, split, edits)
            found.setdefault(name, {})[split] = changes.tolist()
    return found


@observation("DP-4", bare=True)
def dp_4(o: Study) -> OneEdit:
    """DP-4: DPO and DPOP on pairs that differ in one word, DPO on pairs in other words, twice."""
    own, seeds = o.own("DP-4")
    rows = [
        _kept(o, "one-edit-contrast", own, s, partial(_one_edit, o, own, s), _OneEdit)
        for s in seeds
    ]
    for split in SPLITS:
        if len({len(row[name][split]) for row in rows for name in _ONE_EDIT_ARMS}) > 1:
            raise InputError(
                f"the records of DP-4 in {o.records} hold different numbers of {split} pairs; "
                "delete those that were edited"
            )
    dpo, dpop, bare, again = (
        {split: np.array([row[name][split] for row in rows]) for split in SPLITS}
        for name in _ONE_EDIT_ARMS
    )
    exploratory = seeds != own.evaluation
    return OneEdit(dpo, bare, o.level, seeds, dpop, again, own.model, exploratory=exploratory)
