"""Judging trajectories: curves made by hand, with each pattern a verdict names and its opposite."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from squeeze.claims import catalogue
from squeeze.claims.curves import (
    cut_at_margin,
    fall_from_peak,
    peaks,
    probe_noise,
    rise_to_peak,
)
from squeeze.claims.finetuning import judge_run
from squeeze.claims.runs import Runs
from squeeze.claims.statistics import crossed_mean
from squeeze.scoring import ResponseScores
from squeeze.trajectory import ProbePoint, Trajectory

pytestmark = pytest.mark.cpu

N = 10
KINDS = ("chosen", "rejected", "chosen_rephrased", "permuted")


def trajectory(arms, speed=None, seed=0):
    """Arms as {name: {kind: [values over DPO]}}, the argmax log-prob under "argmax".

    Every example has its own offset and drift, the same in every arm and seed; a seed adds its own
    drift. `speed` slows an arm down.
    """
    rng = np.random.default_rng(0)
    cells = list(itertools.product(KINDS, ("train", "held_out"), range(N)))
    offset = dict(zip(cells, rng.normal(0, 1, len(cells)), strict=True))
    drift = dict(zip(cells, rng.normal(0, 0.3, len(cells)), strict=True))
    own = np.random.default_rng(seed + 1).normal(0, 0.1)
    made = Trajectory.empty()
    for arm, curves in arms.items():
        times = np.arange(5) * (speed or {}).get(arm, 1.0)
        at = {kind: np.interp(times, range(5), values) for kind, values in curves.items()}
        for probe, time in enumerate(times):
            point = ProbePoint(arm, "dpo" if probe else "base", probe, float(probe), probe)
            rows = []
            for kind, split, i in cells:
                logp = (
                    at[kind][probe] + offset[kind, split, i] + time * (drift[kind, split, i] + own)
                )
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


SEEDS = (0, 1, 2, 3, 4)


def runs(arms, roles, counterfactual=None, speed=None):
    """Five seeds of the same arms."""
    made = tuple(trajectory(arms, speed, seed) for seed in SEEDS)
    return Runs(made, "pretrained", SEEDS, roles, counterfactual or {})


def check(claim, *given, **more):
    return {v.comparison: v for v in catalogue.get(claim).check(runs(*given, **more))}


DPO = {"dpo": "dpo"}
BOTH = {"extend": "extend-dpo", "control": "sft-dpo"}
PRIMARY = "chosen, against sft-dpo, equal steps, train"
AT_EQUAL_MARGIN = "chosen, against sft-dpo, equal margin, train"


def test_the_squeezing_pattern_supports_every_part_of_do_1_and_do_2():
    for claim in ("DO-1", "DO-2"):
        found = check(claim, {"dpo": SQUEEZED}, DPO)
        train = [v for name, v in found.items() if "held_out" not in name]
        assert {v.outcome for v in train} == {"supported"}, claim
        assert [v.role for v in train].count("primary") == 1


@pytest.mark.parametrize(("most", "outcome"), [(0.4, "supported"), (0.25, "premise not met")])
def test_a_start_too_peaked_for_its_argmax_to_rise_leaves_do_2s_premise_unmet(most, outcome):
    """‖π‖² is 0.3 in these runs."""
    given = replace(runs({"dpo": SQUEEZED}, DPO), most_peakiness=most)
    assert {v.outcome for v in catalogue.get("DO-2").check(given)} == {outcome}


def test_the_effect_less_the_counterfactuals_is_a_row_of_its_own():
    arms = {"dpo": SQUEEZED, "dose-0": UNPUSHED}
    found = check("DO-1", arms, DPO, {"dpo": "dose-0"})
    contrast = found["dpo: chosen then falls, less that of dose-0"]
    assert (contrast.outcome, contrast.role) == ("supported", "secondary")
    assert contrast.effect == pytest.approx(-18, abs=1)


def test_a_contrast_whose_arm_is_missing_is_not_run_and_says_so():
    found = check("DO-1", {"dpo": SQUEEZED}, DPO, {"dpo": "dose-0"})
    contrast = found["dpo: chosen then falls, less that of dose-0"]
    assert contrast.outcome == "not run"
    assert "dose-0" in contrast.reason


def test_without_the_rejected_term_the_same_checks_fail():
    found = check("DO-1", {"dpo": UNPUSHED}, DPO)
    for part in ("chosen then falls", "every other kind falls, train", "rejected falls fastest"):
        assert not found[f"dpo: {part}"].supported
    assert check("DO-2", {"dpo": UNPUSHED}, DPO)["dpo, train"].outcome == "contradicted"


def test_one_kind_that_rises_is_enough_against_every_other_falls():
    curves = SQUEEZED | {"permuted": [0, 1, 2, 3, 4]}
    row = check("DO-1", {"dpo": curves}, DPO)["dpo: every other kind falls, train"]
    assert row.outcome == "contradicted"
    assert row.evidence["nearest to failing"] == "permuted"


def test_one_seed_decides_nothing_but_shows_its_numbers():
    verdicts = judge_run(trajectory({"dpo": SQUEEZED}), level="pretrained", seeds=(0,))
    measured = [v for v in verdicts if v.ran]
    assert measured
    assert {v.outcome for v in measured} == {"inconclusive"}
    falls = next(v for v in verdicts if v.comparison == "dpo: chosen then falls")
    assert falls.reason.startswith("one seed")
    assert falls.on_claimed_side


GENTLE = SQUEEZED | {"chosen": [0, 8, 12, 10, 6], "argmax": [0, 0, 1, 2, 3]}


def test_a_gentler_dpo_supports_the_remedy_at_equal_steps():
    row = check("EX-1", {"sft-dpo": SQUEEZED, "extend-dpo": GENTLE}, BOTH)[PRIMARY]
    assert (row.outcome, row.role) == ("supported", "primary")
    assert row.effect == pytest.approx(12, abs=0.5)


def test_an_arm_that_rises_first_is_not_punished_for_it():
    """The paper compares changes over DPO; a fall from an arm's own peak would be larger here."""
    late = SQUEEZED | {"chosen": [0, 20, 25, 12, 2]}
    row = check("EX-1", {"sft-dpo": SQUEEZED, "extend-dpo": late}, BOTH)[PRIMARY]
    assert row.outcome == "supported"
    assert row.effect == pytest.approx(8, abs=0.5)


def test_at_equal_margin_a_remedy_that_only_learns_slower_shows_no_gain():
    arms = {"sft-dpo": SQUEEZED, "extend-dpo": SQUEEZED}
    found = check("EX-1", arms, BOTH, speed={"extend-dpo": 0.5})
    assert found[PRIMARY].supported
    assert found[AT_EQUAL_MARGIN].effect == pytest.approx(0, abs=1e-3)
    assert not found[AT_EQUAL_MARGIN].supported


def test_two_equal_arms_do_not_support_the_remedy():
    found = check("EX-1", {"sft-dpo": SQUEEZED, "extend-dpo": SQUEEZED}, BOTH)
    assert found[PRIMARY].outcome == "inconclusive"


def test_a_control_in_which_nothing_falls_leaves_the_premise_unmet():
    rising = {kind: [0, 2, 4, 6, 8] for kind in SQUEEZED}
    found = check("EX-1", {"sft-dpo": rising, "extend-dpo": rising}, BOTH)
    assert {v.outcome for v in found.values()} == {"premise not met"}
    assert found[PRIMARY].evidence["its effect"] == pytest.approx(8, abs=0.5)


def test_flat_noisy_runs_neither_rise_nor_fall():
    """Noise that a run's prompts share at each probe, as sampling order or dropout gives."""
    rng = np.random.default_rng(0)
    supported = {"rise": 0, "fall": 0}
    naive = 0
    n = 400
    for _ in range(n):
        shared = rng.normal(size=(5, 1, 6))
        flat = shared + 0.3 * rng.normal(size=(5, N, 6)) + rng.normal(size=(1, N, 1))
        noise = probe_noise(flat)
        rise, fall = crossed_mean(rise_to_peak(flat)), crossed_mean(fall_from_peak(flat))
        supported["rise"] += rise.interval[0] > noise
        supported["fall"] += fall.interval[1] < -noise
        own = flat.mean(axis=1).argmax(axis=-1)  # the run's own peak, as an example left out gives
        away = flat[..., -1] - np.take_along_axis(flat, own[:, None, None], axis=-1)[..., 0]
        naive += crossed_mean(away).interval[1] < 0
    assert max(supported.values()) <= 0.035 * n
    assert naive > 0.2 * n


def test_the_probe_noise_is_two_deviations_of_a_difference_of_two_probes():
    rng = np.random.default_rng(1)
    for n_seeds in (1, 5):
        found = [probe_noise(rng.normal(size=(n_seeds, 1, 40))) for _ in range(200)]
        assert np.mean(found) == pytest.approx(2 * np.sqrt(2 / n_seeds), rel=0.05)


def test_what_all_seeds_share_is_no_noise():
    curve = np.array([0.0, 8.0, 12.0, 4.0, -6.0])
    assert probe_noise(np.tile(curve, (5, 3, 1))) == pytest.approx(0)


def test_a_peak_is_chosen_by_the_other_seeds():
    values = np.zeros((3, 2, 4))
    values[0, :, 3] = 100.0  # one seed's outlier
    values[1:, :, 1] = 1.0
    assert peaks(values).tolist() == [[1, 1], [3, 3], [3, 3]]


def test_with_one_seed_the_other_prompts_choose():
    values = np.array([[[0.0, 0.0, 100.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]])
    assert peaks(values).tolist() == [[1, 2, 2]]


def test_a_curve_is_cut_where_the_margin_is_reached():
    values, margin = np.array([[0.0, 10.0, 20.0]]), np.array([0.0, 4.0, 8.0])
    assert cut_at_margin(values, margin, 6.0).tolist() == [[0.0, 10.0, 15.0]]
    assert cut_at_margin(values, margin, 99.0).tolist() == values.tolist()
    assert cut_at_margin(values, margin, 0.0).tolist() == [[0.0]]


def test_without_held_out_prompts_their_rows_are_not_run_and_say_why():
    made = trajectory({"dpo": SQUEEZED}).where(split="train")
    rows = [
        v for v in judge_run(made, level="pretrained", seeds=(0,)) if "held_out" in v.comparison
    ]
    assert rows
    assert all(v.outcome == "not run" and "--held-out" in v.reason for v in rows)


def test_ex_1_on_the_committed_reference_run():
    """One development seed: the numbers that §4.3's contrast gives, and no more than that."""
    run = Path(__file__).parents[2] / "reports/reference/smollm2-cpu/trajectory.parquet"
    verdicts = judge_run(Trajectory.read(run), level="pretrained", seeds=(0,))
    rows = {v.comparison: v for v in verdicts if v.claim == "EX-1"}
    assert rows[PRIMARY].effect == pytest.approx(11.59, abs=0.01)
    others = rows["others, against sft-dpo, equal steps, train"]
    assert others.effect == pytest.approx(17.44, abs=0.01)
    assert others.interval == pytest.approx((13.63, 21.26), abs=0.01)
    argmax = rows["argmax, against sft-dpo, equal steps, train"]
    assert argmax.effect == pytest.approx(-4.85, abs=0.01)
    assert argmax.interval == pytest.approx((-8.37, -1.33), abs=0.01)
    assert {(v.outcome, v.reason[:8]) for v in (rows[PRIMARY], others, argmax)} == {
        ("inconclusive", "one seed")
    }
    assert rows[PRIMARY].updates == 20
