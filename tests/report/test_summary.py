"""The report's numbers on trajectories whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from squeeze.report.content import duration, number
from squeeze.report.style import ARGMAX
from squeeze.report.summary import (
    RESAMPLES,
    Scores,
    View,
    band,
    metric_series,
    series,
    split_summary,
    timeline,
    values,
)
from squeeze.report.tokens import shade, token_view
from squeeze.trajectory import COLUMNS, Trajectory

pytestmark = pytest.mark.cpu

# phase, step, epoch, mean of chosen; chosen peaks at DPO epoch 1.
PROBES = [
    ("base", 0, 0.0, -100.0),
    ("sft", 8, 2.0, -90.0),
    ("dpo", 4, 1.0, -84.0),
    ("dpo", 8, 2.0, -95.0),
]


def known() -> Trajectory:
    """Four examples that differ by a constant, so that paired changes have no spread."""
    rows = []
    for probe, (phase, step, epoch, level) in enumerate(PROBES):
        for index in range(4):
            for kind, logp in (("chosen", level - index), ("rejected", -100.0 - 20 * probe)):
                key = ("arm", phase, step, epoch, probe, f"e{index}", "train", kind)
                rows.append((*key, logp, -30.0 + probe, 2.0, 0.5, 10))
    return Trajectory(pd.DataFrame(rows, columns=COLUMNS))


def test_the_time_axis_puts_the_start_of_dpo_at_zero() -> None:
    time = timeline(known(), "arm")
    assert list(time.position.values()) == [-2.0, 0.0, 1.0, 2.0]
    assert (time.start, time.unit) == (1, "DPO epoch")


def test_the_time_axis_counts_steps_where_epochs_stand_still() -> None:
    scores = known()
    scores.frame["epoch"] = 0.0
    time = timeline(scores, "arm")
    assert list(time.position.values()) == [-8.0, 0.0, 4.0, 8.0]
    assert time.unit == "DPO step"


def test_changes_are_counted_from_the_start_of_dpo() -> None:
    scores = Scores(known())
    line = series(values(scores, "arm", "chosen", "train", View()), scores.timeline("arm"))
    assert line is not None
    assert line.mean == [-10.0, 0.0, 6.0, -5.0]
    assert line.low == line.high == line.mean  # constant differences have no spread
    assert line.n == 4


def test_levels_per_token_divide_by_the_response_length() -> None:
    table = values(Scores(known()), "arm", "chosen", "train", View(per_token=True, change=False))
    assert table.loc["e0"].tolist() == [-10.0, -9.0, -8.4, -9.5]


def test_the_drop_is_measured_from_the_highest_mean_during_dpo() -> None:
    summary = split_summary(Scores(known()), "arm", "train")
    assert summary.chosen is not None
    assert summary.drop is not None
    assert summary.margin is not None
    assert (summary.chosen.value, summary.drop.value, summary.peak) == (-5.0, -11.0, 1.0)
    assert summary.margin.value == 35.0
    assert summary.argmax is not None
    assert summary.argmax.value == 2.0


def test_the_argmax_curve_is_scored_along_the_chosen_answer() -> None:
    table = values(Scores(known()), "arm", ARGMAX, "train", View(change=False))
    assert table.loc["e3"].tolist() == [-30.0, -29.0, -28.0, -27.0]


def test_an_example_that_misses_a_probe_is_left_out() -> None:
    frame = known().frame
    gap = (frame["example"] == "e3") & (frame["probe"] == 2)
    table = values(Scores(Trajectory(frame[~gap])), "arm", "chosen", "train", View())
    assert list(table.index) == ["e0", "e1", "e2"]


def test_what_was_not_scored_is_none_not_zero() -> None:
    summary = split_summary(Scores(known()), "arm", "held_out")
    assert (summary.chosen, summary.drop, summary.margin) == (None, None, None)
    assert metric_series(Scores(known()), "arm", "held_out", "margin") is None


def test_the_band_agrees_with_the_normal_interval_on_many_examples() -> None:
    samples = np.random.default_rng(0).normal(size=(2, 400))
    interval = band(samples)
    assert interval is not None
    half = 1.96 * samples.std(axis=1) / 20
    # The 2.5% quantile of 1000 draws has a standard error of 0.043 half widths: 3.5 of them.
    np.testing.assert_allclose(interval[0], samples.mean(axis=1) - half, atol=0.15 * half.max())
    np.testing.assert_allclose(interval[1], samples.mean(axis=1) + half, atol=0.15 * half.max())


def test_the_band_is_scipys_percentile_bootstrap_of_the_mean() -> None:
    samples = np.random.default_rng(1).normal(size=(3, 40)).cumsum(axis=0)
    interval = band(samples)
    assert interval is not None
    theirs = stats.bootstrap(
        (samples,), np.mean, axis=-1, n_resamples=RESAMPLES, method="percentile", rng=0
    )
    np.testing.assert_allclose(interval, theirs.confidence_interval, rtol=1e-12, atol=1e-12)


def test_numbers_carry_a_true_minus_and_as_many_decimals_as_they_deserve() -> None:
    assert [number(v) for v in (-12.34, 0.123, 0.0)] == ["−12.3", "+0.12", "0"]
    assert [duration(s) for s in (4.21, 42.0, 185.0, 7800.0)] == [
        "4.2 s",
        "42 s",
        "3 min 05 s",
        "2 h 10 min",
    ]


def _entry(*changes: float) -> dict[str, object]:
    tokens = [
        {"text": f" t{i}", "logp_before": -1.0, "logp_after": -1.0 + change}
        | {"argmax_before": " t0", "argmax_logp_before": -0.5}
        | {"argmax_after": " the", "argmax_logp_after": -0.1}
        for i, change in enumerate(changes)
    ]
    return {"arm": "a", "example": "e", "delta_logp": sum(changes), "tokens": tokens}


def test_half_of_the_loss_is_counted_over_the_largest_losses() -> None:
    view = token_view(_entry(-1.0, -6.0, +3.0, -2.0, -1.0), scale=2.0)
    assert (view.half, view.losing) == (1, 4)
    assert [t.position for t in view.largest[:2]] == [2, 4]
    assert [t.displaced for t in view.tokens] == [False, True, False, True, False]


def test_colour_runs_from_white_to_orange_for_losses_and_blue_for_gains() -> None:
    assert shade(0.0, 2.0) == "rgb(255,255,255)"
    assert shade(-5.0, 2.0) == "rgb(230,133,50)"
    assert shade(+5.0, 2.0) == "rgb(88,160,220)"
