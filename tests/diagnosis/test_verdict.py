"""The seven verdicts: each on the run it is defined for, and calm on runs that only look bad."""

import numpy as np
import pytest

from squeeze.diagnosis import VERDICTS, RunSeries, Series, diagnose, worst
from squeeze.diagnosis.trend import fit
from squeeze.errors import InputError
from tests.diagnosis.logs import noisy, run

pytestmark = pytest.mark.cpu

FALLS, FALLS_FASTER, GROWS = (-150, -175), (-130, -220), (-110, -80)


def curves(**ends: tuple[float, ...]) -> dict[str, np.ndarray]:
    return {f"{k}_logp": noisy(*v, seed=i) for i, (k, v) in enumerate(ends.items())}


@pytest.mark.parametrize(
    ("verdict", "ends"),
    [
        ("healthy", {"chosen": (-150, -135), "rejected": FALLS_FASTER, "argmax": GROWS}),
        ("healthy", {"chosen": (-150, -150), "rejected": FALLS_FASTER, "argmax": (-110, -110)}),
        ("healthy", {"chosen": (-150, -138, -138.5), "rejected": FALLS_FASTER}),
        ("early", {"chosen": (-150, -143, -136, -139), "rejected": FALLS_FASTER}),
        ("squeezing", {"chosen": (-150, -139, -147), "rejected": FALLS_FASTER, "argmax": GROWS}),
        ("squeezing", {"chosen": FALLS, "argmax": GROWS}),
        ("displacement", {"chosen": FALLS, "rejected": FALLS_FASTER, "argmax": (-110, -110)}),
        ("displacement", {"chosen": FALLS, "rejected": FALLS_FASTER}),
        ("collapse", {"chosen": FALLS, "rejected": (-130, -155), "argmax": (-110, -140)}),
        ("collapse", {"chosen": FALLS, "rejected": (-130, -155)}),
        ("collapse", {"chosen": (-150, -450), "rejected": (-130, -440)}),
        ("no learning", {"chosen": (-150, -150), "rejected": (-130, -130)}),
        ("no learning", {"chosen": FALLS, "rejected": (-130, -100), "argmax": GROWS}),
    ],
)
def test_verdict_follows_its_definition(verdict: str, ends: dict[str, tuple[float, ...]]) -> None:
    assert diagnose(run(**curves(**ends))).verdict == verdict


def test_a_dip_within_noise_is_calm() -> None:
    d = diagnose(run(chosen_logp=noisy(-150, -151, noise=3.0), rejected_logp=noisy(*FALLS_FASTER)))
    assert d.verdict in ("healthy", "undetermined")


def test_a_passing_dip_is_calm() -> None:
    chosen = noisy(-150, -150, -157, -150, -149)
    assert (
        diagnose(run(chosen_logp=chosen, rejected_logp=noisy(*FALLS_FASTER))).verdict == "healthy"
    )


def test_one_spike_at_the_end_is_calm() -> None:
    chosen = noisy(-150, -140, n=30)
    chosen[-3] -= 40
    assert (
        diagnose(run(chosen_logp=chosen, rejected_logp=noisy(*FALLS_FASTER))).verdict == "healthy"
    )


@pytest.mark.parametrize("scale", [1 / 100, 1.0, 5.0])
def test_the_verdict_does_not_depend_on_the_scale(scale: float) -> None:
    """Means over tokens (÷ 100) and longer answers (× 5) have the same shape."""
    ends = curves(chosen=(-150, -139, -147), rejected=FALLS_FASTER, argmax=GROWS)
    scaled = {k: v * scale for k, v in ends.items()}
    assert diagnose(run(**scaled)).verdict == "squeezing"


@pytest.mark.parametrize("n", [8, 24, 200, 3000])
def test_the_verdict_does_not_depend_on_the_length(n: int) -> None:
    chosen, argmax = noisy(-150, -175, n=n), noisy(*GROWS, n=n, seed=1)
    assert diagnose(run(chosen_logp=chosen, argmax_logp=argmax)).verdict == "squeezing"


@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_evaluations_are_undetermined(n: int) -> None:
    d = diagnose(run(chosen_logp=noisy(-150, -190, n=n), argmax_logp=noisy(*GROWS, n=n)))
    assert d.verdict == "undetermined"
    assert "at least 5" in d.reason


def test_two_evaluations_with_examples_behind_them_are_enough() -> None:
    """What two checkpoints give: every example before and after."""
    rng = np.random.default_rng(0)
    before = rng.normal(-150, 40, (60, 1))

    def series(name: str, by: float) -> Series:
        values = np.hstack([before, before + by + rng.normal(0, 5, (60, 1))])
        return Series(name, "eval", np.array([0.0, 1.0]), values.mean(0), name, values)

    found = tuple(series(n, by) for n, by in (("chosen_logp", -20.0), ("argmax_logp", 15.0)))
    d = diagnose(RunSeries("pair", "pair", "pair", "checkpoint", found))
    assert d.verdict == "squeezing"
    fall = d.splits[0].evidence[0].fall
    # The mean of 60 differences of standard deviation 5: -20 ± 2 · 5/√60.
    assert fall.interval == pytest.approx((fall.effect - 1.3, fall.effect + 1.3), abs=0.5)


def test_rewards_alone_show_displacement_and_say_that_squeezing_is_open() -> None:
    rewards = {
        "chosen_reward": noisy(0, -1.5, noise=0.05),
        "rejected_reward": noisy(0, -5, noise=0.05),
        "reward_margin": noisy(0, 3.5, noise=0.05),
    }
    d = diagnose(run(**rewards))
    assert d.verdict == "displacement"
    assert any("squeezing is possible" in c for c in d.cautions)
    assert any("argmax" in m for m in d.missing)


def test_sft_phase_is_calm_even_where_held_out_answers_fall() -> None:
    chosen, argmax = noisy(-150, -140, -155), noisy(*GROWS)
    d = diagnose(run(phase="sft", chosen_logp=chosen, argmax_logp=argmax))
    assert d.verdict == "undetermined"
    assert "overfitting" in d.reason


def test_swapped_labels_are_named() -> None:
    d = diagnose(run(chosen_logp=noisy(-150, -170), rejected_logp=noisy(-130, -110)))
    assert d.verdict == "no learning"
    assert any("swapped" in c for c in d.cautions)


def test_the_worst_split_decides_and_the_other_is_told() -> None:
    good = run("train", **curves(chosen=(-150, -130), rejected=FALLS_FASTER))
    bad = run("eval", **curves(chosen=FALLS, rejected=FALLS_FASTER))
    both = RunSeries("both", "test", "test", "step", (*good.series, *bad.series))
    d = diagnose(both)
    assert (d.verdict, d.split) == ("displacement", "eval")
    assert any("train split: healthy" in c for c in d.cautions)


def test_the_reference_value_is_recovered_from_rewards_of_a_fixed_set() -> None:
    """Evaluations that start after the fall: only rewards tell that chosen was at -12."""
    logps = np.array([-28.7, -27.4, -27.9, -27.2, -27.6, -27.3, -27.5, -27.4])
    rewards = 0.1 * (logps + 12)
    series = run(chosen_logp=logps, chosen_reward=rewards, rejected_logp=noisy(-60, -160, n=8))
    later = tuple(
        Series(s.quantity, s.split, s.steps + 500, s.values, s.column) for s in series.series
    )
    d = diagnose(RunSeries("late", "late", "late", "step", later))
    assert d.verdict == "displacement"
    row = d.splits[0].evidence[0]
    assert row.reference == pytest.approx(-12)
    assert (row.start, row.end) == (logps[0], logps[-1])  # only logged values are shown


def test_repetition_that_rises_is_collapse() -> None:
    curves_ = curves(chosen=(-150, -149), rejected=FALLS_FASTER)
    d = diagnose(run(**curves_, repetition=noisy(0.05, 0.6, noise=0.02)))
    assert d.verdict == "collapse"


def test_the_same_run_gets_the_same_diagnosis() -> None:
    series = run(**curves(chosen=FALLS, rejected=FALLS_FASTER, argmax=GROWS))
    assert diagnose(series) == diagnose(series)


def test_worst_orders_verdicts_from_healthy_to_collapse() -> None:
    assert worst(VERDICTS) == "collapse"
    assert worst(["healthy", "undetermined"]) == "undetermined"


def test_beta_must_be_positive() -> None:
    with pytest.raises(InputError, match="--beta"):
        diagnose(run(chosen_logp=noisy(*FALLS)), beta=0.0)


def test_level_run_whose_noise_has_a_memory_is_seldom_a_plateau_below_its_start() -> None:
    """Nominal 1 in 100; without allowing for the memory it is 1 in 10."""
    rng = np.random.default_rng(0)
    alarms = 0
    for seed in range(200):
        noise = rng.standard_t(5, 40) * np.sqrt(3 / 5)
        for i in range(2, 40):
            noise[i] = 0.3 * noise[i - 1] + noise[i] * np.sqrt(1 - 0.09)
        values = np.r_[-150.0, -150 + 1.5 * noise[1:]]
        series = Series("chosen_logp", "eval", np.arange(40.0), values, "chosen")
        level = fit(series, seed=seed).level_change()
        alarms += level.effect < 0 and level.p <= 0.01
    assert alarms <= 8
