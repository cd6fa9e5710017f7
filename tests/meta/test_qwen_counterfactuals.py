"""QW-1 and QW-2 on made curves: the effect, and the same checks with its cause removed.

The real ones need a GPU.
"""

from dataclasses import replace

import numpy as np
import pytest

from squeeze.claims import catalogue
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
    roles = {"extend": "extend-dpo", "control": "sft-dpo", "base": "dpo"}
    return Runs((made,), "gpu", (0,), roles)


def held(extended):
    return {v.comparison: v.on_claimed_side for v in catalogue.get("QW-2").check(runs(extended))}


STEPS, EQUAL = (f"chosen, against sft-dpo, equal {at}, train" for at in ("steps", "margin"))


def test_QW_2_holds_where_chosen_falls_less_than_in_the_control():
    found = held(REMEDY)
    assert found[STEPS]
    assert found[EQUAL]
    assert found["chosen's end, against base DPO, train"]


@pytest.mark.counterfactual("QW-2")
def test_QW_2_does_not_hold_for_twice_the_sft_on_the_chosen_answers():
    found = held(TWICE_SFT_ON_CHOSEN)
    assert not found[STEPS]
    assert not found[EQUAL]


def test_QW_2_rows_are_its_own():
    assert {v.claim for v in catalogue.get("QW-2").check(runs(REMEDY))} == {"QW-2"}


def of_dpo(chosen):
    """QW-1's deciding row on a run in which chosen goes so over DPO."""
    made = replace(runs(chosen), roles={"dpo": "extend-dpo"})
    rows = catalogue.get("QW-1").check(made)
    assert {v.claim for v in rows} == {"QW-1"}
    (decides,) = [v for v in rows if v.role == "primary"]
    return decides


def test_QW_1_holds_where_chosen_rises_then_falls():
    assert of_dpo(CONTROLS["dpo"]).on_claimed_side


@pytest.mark.counterfactual("QW-1")
def test_QW_1_does_not_hold_without_the_rejected_term():
    assert not of_dpo([-90, -80, -76, -73, -71]).on_claimed_side
