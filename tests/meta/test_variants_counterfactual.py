"""VA-1 finds a planted order of the losses, and none where every arm had the same loss."""

import numpy as np
import pandas as pd
import pytest

from squeeze.claims import catalogue
from squeeze.claims.runs import Runs
from squeeze.claims.variants import ORDER, arm_of, loss_rows
from squeeze.trajectory import Trajectory

pytestmark = pytest.mark.cpu
LOSSES = list(dict.fromkeys(name for pair in ORDER for name in pair))
PLANTED = dict(zip(LOSSES, (-40, -20, -40, -5, -2, -2), strict=True))


def runs(drops):
    """One seed; chosen changes by `drops[loss]`, rejected by 30 more downwards."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=12)
    rows = [
        (
            arm_of(loss),
            "dpo" if probe > 1 else ("base", "sft")[probe],
            probe,
            f"e{i}",
            kind,
            -50.0 + max(probe - 1, 0) / 2 * (drop - 30 * (kind == "rejected") + noise[i]),
        )
        for loss, drop in drops.items()
        for probe in range(4)
        for i in range(12)
        for kind in ("chosen", "rejected", "other")
    ]
    frame = pd.DataFrame(rows, columns=["arm", "phase", "probe", "example", "kind", "logp"])
    frame = frame.assign(step=frame["probe"], epoch=frame["probe"] * 1.0, split="held_out")
    frame["argmax_logp"] = frame["logp"] / 2
    roles = {loss: arm_of(loss) for loss in drops}
    return Runs((Trajectory(frame),), "tiny", (0,), roles)


def test_the_planted_order_is_supported():
    assert all(v.on_claimed_side for v in catalogue.get("VA-1").check(runs(PLANTED)) if v.ran)


@pytest.mark.counterfactual("VA-1")
def test_arms_trained_with_the_same_loss_are_not_ordered():
    same = runs(dict.fromkeys(LOSSES, -20))
    assert not any(v.on_claimed_side for v in catalogue.get("VA-1").check(same))


def test_at_the_end_the_table_has_the_planted_change_of_chosen():
    row = loss_rows(runs(PLANTED), LOSSES)[0]
    assert (row.loss, row.cut) == ("sigmoid", "end")
    assert row.changes["chosen"].effect == pytest.approx(-40, abs=1.5)  # noise: 1 nat / sqrt(12)
