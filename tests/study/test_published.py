"""The authors' logs judged by our checks: what they decide, and what they cannot say."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from squeeze import cli
from squeeze.published_logs import read_published
from squeeze.study.published import as_trajectory, draw_published, judge_published, judge_run
from tests.test_published_logs import CHOSEN, EARLY, MENDED, REJECTED, values, write

AUTHORS = Path(__file__).parents[3] / "shared" / "data" / "authors"


def rising_then_falling(prompts=40):
    """A sound DPO log: chosen rises by 6 nats, then falls by 10; its argmax rises by 8."""
    array = values(MENDED, evaluations=9, prompts=prompts)
    course = np.array([0, 2, 4, 6, 4, 2, 0, -2, -4.0])
    chosen = array[0, MENDED.index(CHOSEN)]
    array[:, MENDED.index(CHOSEN)] = chosen + course[:, None]
    array[:, 2] = chosen + 30 + np.arange(9.0)[:, None]
    return array


def row(rows, statistic):
    """The one row of a statistic."""
    (found,) = [r for r in rows if r.statistic == statistic]
    return found


def test_a_sound_log_gives_do_1_and_do_2_with_their_numbers_and_one_run_decides_nothing(tmp_path):
    run = read_published(write(tmp_path / "pythia_dpo", MENDED, rising_then_falling()))
    rows = judge_run(run).rows
    fall = row(rows, "chosen, from its peak to the end of DPO, nats")
    squeeze = row(rows, "argmax's change over DPO less chosen's change, nats")
    assert fall.effect == pytest.approx(-10)
    assert squeeze.effect == pytest.approx(8 + 4)
    assert fall.n == squeeze.n == 40
    assert {r.outcome for r in rows} == {"inconclusive"}
    assert "one seed" in fall.reason


def test_an_argmax_of_another_text_is_never_judged_and_the_row_says_why(tmp_path):
    run = read_published(write(tmp_path / "early_dpo", EARLY, values(EARLY)))
    assert np.isnan(as_trajectory(run, "dpo").frame["argmax_logp"]).all()
    (refused,) = [r for r in judge_run(run).rows if r.claim == "DO-2"]
    assert refused.outcome == "not run"
    assert "random words" in refused.reason


def test_means_alone_give_the_same_effects_without_an_interval_and_decide_nothing(tmp_path):
    log = write(tmp_path / "pythia_dpo", MENDED, rising_then_falling(), keep_array=False)
    rows = judge_run(read_published(log)).rows
    fall = row(rows, "chosen, from its peak to the end of DPO, nats")
    squeeze = row(rows, "argmax's change over DPO less chosen's change, nats")
    assert (fall.effect, squeeze.effect) == (pytest.approx(-10), pytest.approx(8 + 4))
    assert {(r.outcome, r.interval, r.n) for r in rows} == {("inconclusive", None, 0)}
    assert all("only means" in r.reason for r in rows)


def test_norms_of_a_become_peakiness_by_ld_2(tmp_path):
    array = rising_then_falling()
    array[:, 0] = np.sqrt(50_304 * 0.25 + 50_304 - 2)  # ‖A‖ at ‖π‖² = 1/4
    run = read_published(write(tmp_path / "pythia_sft", MENDED, array))
    frame = as_trajectory(run, "sft").frame
    np.testing.assert_allclose(frame["peakiness"], 0.25)
    assert {r.claim for r in judge_run(run).rows} == {"SF-1", "SF-5"}


def test_a_log_of_every_kind_is_judged_on_all_of_do_1(tmp_path):
    array = values(EARLY, evaluations=6)
    array[:, EARLY.index(REJECTED)] -= 5 * np.arange(6.0)[:, None]
    rows = judge_run(read_published(write(tmp_path / "a_dpo", EARLY, array))).rows
    assert any(r.comparison.endswith("the margin grows throughout") for r in rows)


def test_the_command_records_rows_and_draws_the_sound_runs(tmp_path):
    write(tmp_path / "logs" / "pythia_dpo", MENDED, rising_then_falling())
    arguments = ["observe", "published", "--logs", str(tmp_path / "logs"), "--out"]
    result = CliRunner().invoke(cli.app, [*arguments, str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert {p.name for p in (tmp_path / "out").glob("*[!k]")} >= {
        "claims.json",
        "claims.md",
        "published-figure-4.png",
    }


def test_without_a_sound_run_there_is_no_figure(tmp_path):
    write(tmp_path / "logs" / "early_dpo", EARLY, values(EARLY))
    assert draw_published(judge_published(tmp_path / "logs"), tmp_path / "figure.png") is None


@pytest.mark.skipif(not AUTHORS.is_dir(), reason="the authors' logs are not beside the checkout")
def test_the_authors_logs_give_the_numbers_of_the_docs():
    """Computed from the files on 2026-11-25; docs/published-logs.md states them."""
    found = {j.run.name: j.rows for j in judge_published(AUTHORS)}
    early, high = found["prob_pythia410m_dpo"], found["pythia410_baseline_dpo_checkbug"]
    low = found["pythia410_baseline_dpo_checkbug_5e7"]
    rise = row(early, "chosen, from the start of DPO to its peak, nats")
    assert rise.effect == pytest.approx(11.8, abs=0.05)
    assert rise.interval == pytest.approx((10.7, 12.8), abs=0.05)
    fall = row(early, "chosen, from its peak to the end of DPO, nats")
    assert fall.effect == pytest.approx(-6.1, abs=0.05)
    assert fall.interval == pytest.approx((-7.2, -5.1), abs=0.05)
    others = row(early, "change over DPO of the kind that falls least, nats")
    assert others.on_claimed_side
    assert row(high, "chosen, from its peak to the end of DPO, nats").effect == pytest.approx(
        -25.1, abs=0.05
    )
    argmax = "argmax log-prob along chosen, change over DPO, nats"
    assert row(high, argmax).effect == pytest.approx(0.0, abs=0.05)
    assert row(low, argmax).effect == pytest.approx(7.2, abs=0.05)
    longest, sft = found["pythia410m_baseline_dpo_checkbug_5e7"], found["extend_sft_qwen18_observe"]
    assert row(longest, argmax).effect == pytest.approx(-41.2 + 61.6, abs=0.1)
    assert row(longest, "chosen, from its peak to the end of DPO, nats").effect == pytest.approx(
        -156.2 + 147.9, abs=0.1
    )
    copied = "change of another training prompt's answer over SFT, less an unseen one's, nats"
    assert row(sft, copied).effect == pytest.approx(22.8 + 0.7, abs=0.1)
    assert row(sft, "smallest growth of chosen between probes of SFT, nats").effect > 0
