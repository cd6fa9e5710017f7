"""GR-1, GR-2, NS-1 and DP-4 on numbers made up: what their checks support, and what they do not.

Each counterfactual goes through the claim's own check; those of trained models are beside the other
observations'.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from squeeze.claims import catalogue
from squeeze.claims.group_relative import (
    GroupSteps,
    OneStep,
    SignedTrainings,
    blindly,
    rescored,
)
from squeeze.claims.one_edit import OneEdit

pytestmark = pytest.mark.cpu


def steps(seed: int, better: float, blind: float = 0.1) -> list[OneStep]:
    """Twenty questions; the masked step beats the full one on a share `better` of them.

    The change falls as the score rises.
    """
    scores = np.random.default_rng(seed).random(20).tolist()
    return [
        OneStep(i, 4, -score, -score + (0.1 if i < round(20 * better) else -0.1), blind - 2, score)
        for i, score in enumerate(scores)
    ]


def evidence(better: float, seeds: int = 5) -> GroupSteps:
    own = [steps(s, better + s / 20) for s in range(seeds)]
    return GroupSteps(own, "tiny", range(seeds), bare=[blindly(s) for s in own])


@pytest.mark.counterfactual("GR-1")
@pytest.mark.parametrize(
    ("better", "seeds", "outcome"),
    [(0.7, 5, "supported"), (0.1, 5, "contradicted"), (0.7, 2, "inconclusive")],
)
def test_gr_1_follows_the_share_of_questions(better: float, seeds: int, outcome: str) -> None:
    row, contrast = catalogue.get("GR-1").check(evidence(better, seeds))
    assert row.outcome == outcome
    assert row.effect == pytest.approx(better - 0.5 + 0.025 * (seeds - 1))
    assert (row.role, contrast.role) == ("primary", "secondary")
    assert contrast.effect == pytest.approx(row.effect + 0.5)  # blindly masked, none gains
    assert not catalogue.get("GR-1").check(evidence(better, seeds).without_cause())[0].supported


@pytest.mark.counterfactual("GR-2")
def test_gr_2_ranks_by_the_score_and_not_by_another_questions() -> None:
    given = evidence(0.7)
    given = replace(given, bare=[rescored(s, i) for i, s in enumerate(given.steps)])
    rows = catalogue.get("GR-2").check(given)
    assert rows[0].effect == pytest.approx(1.0)
    assert rows[0].supported
    assert not catalogue.get("GR-2").check(given.without_cause())[0].supported


@pytest.mark.counterfactual("NS-1")
def test_ns_1_compares_the_entropies_at_the_end() -> None:
    entropy = {
        "negative": [[1.0, 0.9 + s / 50] for s in range(5)],
        "positive": [[1.0, 0.5 + s / 99] for s in range(5)],
    }
    flat = dict.fromkeys(entropy, [[0.7, 0.7]] * 5)
    given = SignedTrainings(entropy, "tiny", range(5), bare=flat)
    row, contrast = catalogue.get("NS-1").check(given)
    assert row.supported
    assert row.effect == contrast.effect
    assert not catalogue.get("NS-1").check(given.without_cause())[0].supported


def edited(dpo: float, dpop: float, bare: float, again: float = 0.0) -> OneEdit:
    """Five seeds of six pairs around these changes, on both splits."""
    noise = np.random.default_rng(0).normal(0, 0.1, (4, 5, 6))
    splits = ("train", "held_out")
    made = [
        dict.fromkeys(splits, value + own)
        for value, own in zip((dpo, dpop, bare, again), noise, strict=True)
    ]
    return OneEdit(made[0], made[2], "tiny", range(5), dpop=made[1], again=made[3])


@pytest.mark.counterfactual("DP-4")
def test_dp_4_is_decided_by_the_fall_beyond_that_on_pairs_in_other_words() -> None:
    rows = {r.comparison: r for r in catalogue.get("DP-4").check(edited(-2.0, 0.1, -0.5))}
    assert {r.outcome for r in rows.values()} == {"supported"}
    assert rows["trained pairs, less in other words"].role == "primary"
    assert rows["trained pairs, less in other words"].effect == pytest.approx(-1.5, abs=0.1)
    assert rows["trained pairs, DPO against DPOP"].effect == pytest.approx(-2.1, abs=0.1)
    rows = {r.comparison: r for r in catalogue.get("DP-4").check(edited(-2.0, -3.0, -4.0))}
    assert rows["trained pairs, less in other words"].outcome == "contradicted"
    assert rows["trained pairs"].supported
    assert rows["trained pairs, DPOP"].outcome == "contradicted"


@pytest.mark.counterfactual("DP-4")
def test_dp_4_is_not_supported_by_a_fall_that_other_words_bring_as_well() -> None:
    bare = edited(-2.0, 0.1, -3.0, again=-3.0).without_cause()
    rows = catalogue.get("DP-4").check(bare)
    assert not any(r.supported for r in rows if "other words" in r.comparison)
    assert [r for r in rows if r.role == "primary"]
