"""Prompts that lack an optional response kind leave their own rows alone, and n says how many."""

import numpy as np
import pytest

from squeeze.claims.curves import own_peak, peaks, probe_noise, scored
from squeeze.claims.finetuning import judge_run
from squeeze.claims.runs import Runs
from squeeze.claims.variants import arm_of, loss_rows
from squeeze.trajectory import Trajectory
from tests.report import synthetic

pytestmark = pytest.mark.cpu


@pytest.fixture(scope="module")
def whole():
    return synthetic.trajectory(n_train=6, n_held_out=4, epochs=5)


@pytest.fixture(scope="module")
def lacking(whole):
    """The first training prompt has no rephrased answers, the held-out ones no unseen answer."""
    frame = whole.frame
    gone = (frame["example"] == "e00") & frame["kind"].isin(["chosen_rephrased", "other_answer"])
    gone |= (frame["split"] == "held_out") & (frame["kind"] == "unseen_answer")
    return Trajectory(frame[~gone].reset_index(drop=True))


def test_every_claim_is_judged_on_the_prompts_that_have_what_it_needs(whole, lacking):
    before = {(v.claim, v.comparison, v.statistic): v for v in judge_run(whole, "pretrained", (0,))}
    found = {
        (v.claim, v.comparison, v.statistic): v for v in judge_run(lacking, "pretrained", (0,))
    }
    assert found.keys() == before.keys()
    fewer = {key for key in found if found[key].n < before[key].n}
    assert {key[0] for key in fewer} >= {"SF-4", "EX-1"}
    chosen = [v for key, v in found.items() if key[0] == "DO-2"]
    assert [v.effect for v in chosen] == [v.effect for k, v in before.items() if k[0] == "DO-2"]
    assert all(v.effect is None or np.isfinite(v.effect) for v in found.values())


def test_a_row_is_that_of_a_run_without_the_prompt(whole, lacking):
    without = Trajectory(whole.frame[whole.frame["example"] != "e00"].reset_index(drop=True))

    def row(trajectory):
        runs = Runs((trajectory,), "pretrained", (0,), roles={"sft": "sft-dpo"})
        of = lambda r: r.curve("sft", "chosen_rephrased", phase="sft")[..., -1]  # noqa: E731
        return runs.row("SF-2", "a number", of, "above")

    assert row(lacking).effect == pytest.approx(row(without).effect)
    assert row(lacking).n == row(without).n == 5


def test_losses_are_compared_where_a_prompt_lacks_a_kind(lacking):
    frame = lacking.where(arm="sft-dpo").frame
    named = Trajectory(frame.assign(arm=arm_of("sigmoid")))
    rows = loss_rows(Runs((named,), "pretrained", (0,)), ["sigmoid"], "train")
    assert rows[0].changes["others"].n == 5
    assert rows[0].changes["chosen"].n == 6


def test_statistics_leave_what_is_lacking_out():
    values = np.arange(24.0).reshape(2, 3, 4)
    values[0, 1] = np.nan
    assert scored(values).shape == (2, 2, 4)
    assert peaks(values).tolist() == [[3] * 3] * 2
    assert np.isnan(own_peak(values)).tolist() == [[False, True, False], [False] * 3]
    assert probe_noise(values) == pytest.approx(probe_noise(scored(values)))
    assert probe_noise(np.full((2, 3, 4), np.nan)) == 0
