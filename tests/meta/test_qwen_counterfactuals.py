"""QW-2's check on made curves: the remedy, and more SFT on the chosen answers in its place.

QW-1's counterfactual is in `tests/training/test_seed_runs.py`. The real ones need a GPU.
"""

import numpy as np
import pytest

from squeeze.claims.qwen import check_extended
from squeeze.claims.runs import Runs
from squeeze.scoring import ResponseScores
from squeeze.trajectory import ProbePoint, Trajectory

pytestmark = pytest.mark.cpu

EXAMPLES = 12
# Mean log-probs of chosen over DPO, nats. With SFT on chosen alone before it, DPO starts higher and
# peakier, and chosen falls as far as without (DO-4: the longer the SFT, the farther).
CONTROLS = {"dpo": [-90, -80, -84, -92, -98], "sft-dpo": [-70, -64, -69, -77, -84]}
REMEDY = [-72, -66, -67, -70, -73]
TWICE_SFT_ON_CHOSEN = [-55, -50, -56, -64, -71]
MARGIN = [0, 20, 40, 60, 80]  # in every arm, so that equal steps are equal margins


def runs(extended):
    """The controls and a run called extend-dpo; each example differs, in every arm anew."""
    rng, made = np.random.default_rng(0), Trajectory.empty()
    for arm, chosen in (CONTROLS | {"extend-dpo": extended}).items():
        offset, drift = rng.normal(0, 5, EXAMPLES), rng.normal(0, 0.5, EXAMPLES)
        for probe, mean in enumerate(chosen):
            values = mean + offset + probe * drift
            point = ProbePoint(arm, "dpo" if probe else "base", probe, float(probe), probe)
            rows = [
                ResponseScores(f"e{i}", "train", kind, float(value), -40.0, 1.0, 0.5, 10)
                for i in range(EXAMPLES)
                for kind, value in (("chosen", values[i]), ("rejected", values[i] - MARGIN[probe]))
            ]
            made = made.append(point, rows)
    return Runs((made,), "gpu", (0,))


def held(extended):
    return {v.comparison: v.on_claimed_side for v in check_extended(runs(extended))}


def test_QW_2_holds_where_chosen_falls_less_than_in_either_control():
    found = held(REMEDY)
    assert len(found) == 4  # two controls, at equal steps and at equal margin
    assert set(found.values()) == {True}


def test_QW_2_does_not_hold_for_twice_the_sft_on_the_chosen_answers():
    assert set(held(TWICE_SFT_ON_CHOSEN).values()) == {False}


def test_QW_2_rows_are_its_own():
    assert {v.claim for v in check_extended(runs(REMEDY))} == {"QW-2"}
