"""Judging trajectories: curves made by hand, with each pattern a verdict names and its opposite."""

import itertools

import numpy as np
import pytest

from squeeze.claims.curves import cut_at_margin, fall_from_peak, peaks, rise_to_peak
from squeeze.claims.extend import check_extend
from squeeze.claims.finetuning import judge_run
from squeeze.claims.runs import Runs
from squeeze.scoring import ResponseScores
from squeeze.trajectory import ProbePoint, Trajectory

pytestmark = pytest.mark.cpu

N = 10
KINDS = ("chosen", "rejected", "chosen_rephrased", "permuted")


def trajectory(arms, speed=None):
    """Arms as {name: {kind: [values over DPO]}}, the argmax log-prob under "argmax".

    Every example has its own offset and drift, the same in every arm; `speed` slows an arm down.
    """
    rng = np.random.default_rng(0)
    cells = list(itertools.product(KINDS, ("train", "held_out"), range(N)))
    offset = dict(zip(cells, rng.normal(0, 1, len(cells)), strict=True))
    drift = dict(zip(cells, rng.normal(0, 0.3, len(cells)), strict=True))
    made = Trajectory.empty()
    for arm, curves in arms.items():
        times = np.arange(5) * (speed or {}).get(arm, 1.0)
        at = {kind: np.interp(times, range(5), values) for kind, values in curves.items()}
        for probe, time in enumerate(times):
            point = ProbePoint(arm, "dpo" if probe else "base", probe, float(probe), probe)
            rows = []
            for kind, split, i in cells:
                logp = at[kind][probe] + offset[kind, split, i] + time * drift[kind, split, i]
                argmax = at["argmax"][probe] - 40
                name = f"{split}-{i}"
                rows.append(
                    ResponseScores(
                        name, split, kind, float(logp - 150), float(argmax), 2.0, 0.3, 40
                    )
                )
            made = made.append(point, rows)
    return made


SQUEEZED = {
    "chosen": [0, 8, 12, 4, -6],
    "rejected": [0, -20, -50, -80, -110],
    "chosen_rephrased": [0, -3, -8, -14, -22],
    "permuted": [0, -5, -12, -20, -30],
    "argmax": [0, 0, 1, 4, 8],
}
# The counterfactual of DO-1 and DO-2: no rejected term, so everything like chosen goes up.
UNPUSHED = {
    "chosen": [0, 8, 16, 24, 30],
    "rejected": [0, 3, 5, 7, 8],
    "chosen_rephrased": [0, 2, 4, 5, 6],
    "permuted": [0, -1, -3, -4, -6],
    "argmax": [0, 1, 2, 3, 4],
}


def one(made):
    return Runs((made,), "pretrained", (0,))


def held(verdicts, claim):
    return {v.comparison: v.on_claimed_side for v in verdicts if v.claim == claim}


def test_the_squeezing_pattern_supports_every_part_of_do_1_and_do_2():
    verdicts = judge_run(trajectory({"dpo": SQUEEZED}), level="pretrained", seeds=(0,))
    train = {c: s for c, s in held(verdicts, "DO-1").items() if "held_out" not in c}
    assert set(train.values()) == {True}
    assert held(verdicts, "DO-2")["dpo, train"]


def test_without_the_rejected_term_the_same_checks_fail():
    verdicts = judge_run(trajectory({"dpo": UNPUSHED}), level="pretrained", seeds=(0,))
    found = held(verdicts, "DO-1")
    assert not found["dpo: chosen then falls"]
    assert not found["dpo: every other kind falls, train"]
    assert not found["dpo: rejected falls fastest"]
    assert set(held(verdicts, "DO-2").values()) == {False}


def test_one_kind_that_rises_is_enough_to_refute_that_every_other_falls():
    curves = SQUEEZED | {"permuted": [0, 1, 2, 3, 4]}
    verdicts = judge_run(trajectory({"dpo": curves}), level="pretrained", seeds=(0,))
    row = next(v for v in verdicts if v.comparison == "dpo: every other kind falls, train")
    assert not row.on_claimed_side
    assert row.evidence["nearest to failing"] == "permuted"


def test_a_gentler_fall_supports_the_remedy_at_equal_steps():
    gentle = SQUEEZED | {"chosen": [0, 8, 12, 10, 6]}
    made = trajectory({"dpo": SQUEEZED, "extend-dpo": gentle})
    verdict = check_extend(one(made), "extend-dpo", "dpo", "train", "steps")
    assert verdict.on_claimed_side
    assert verdict.effect == pytest.approx(12, abs=2)


def test_at_equal_margin_a_remedy_that_only_learns_slower_is_not_supported():
    arms = {"dpo": SQUEEZED, "extend-dpo": SQUEEZED}
    made = trajectory(arms, speed={"extend-dpo": 0.5})
    steps = check_extend(one(made), "extend-dpo", "dpo", "train", "steps")
    margin = check_extend(one(made), "extend-dpo", "dpo", "train", "margin")
    assert steps.on_claimed_side
    assert margin.effect == pytest.approx(0, abs=1e-3)
    assert not margin.on_claimed_side


def test_two_equal_arms_do_not_support_the_remedy():
    made = trajectory({"dpo": SQUEEZED, "extend-dpo": SQUEEZED})
    verdict = check_extend(one(made), "extend-dpo", "dpo", "train", "steps")
    assert not verdict.on_claimed_side


def test_flat_noise_does_not_seem_to_rise_and_fall():
    # The peak of a noisy mean curve lies above its start by construction; leaving the judged
    # example out of the choice of the peak removes that bias.
    rng = np.random.default_rng(0)
    means = [
        (rise_to_peak(v).mean(), fall_from_peak(v).mean()) for v in rng.normal(size=(400, N, 6))
    ]
    rises, falls = np.array(means).T
    for d in (rises, falls):
        assert abs(d.mean()) < 3 * d.std() / np.sqrt(len(d))
    naive = [v.mean(0).max() - v.mean(0)[0] for v in rng.normal(size=(400, N, 6))]
    assert np.mean(naive) > 0.2


def test_peaks_leave_the_example_out():
    values = np.array([[0.0, 0.0, 100.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    assert peaks(values).tolist() == [1, 2, 2]


def test_a_curve_is_cut_where_the_margin_is_reached():
    values, margin = np.array([[0.0, 10.0, 20.0]]), np.array([0.0, 4.0, 8.0])
    assert cut_at_margin(values, margin, 6.0).tolist() == [[0.0, 10.0, 15.0]]
    assert cut_at_margin(values, margin, 99.0).tolist() == values.tolist()
    assert cut_at_margin(values, margin, 0.0).tolist() == [[0.0]]


def test_without_held_out_prompts_their_rows_are_not_run_and_say_why():
    made = trajectory({"dpo": SQUEEZED})
    made = made.where(split="train")
    rows = [
        v for v in judge_run(made, level="pretrained", seeds=(0,)) if "held_out" in v.comparison
    ]
    assert rows
    assert all(v.outcome == "not run" and "--held-out" in v.reason for v in rows)
