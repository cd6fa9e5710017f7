"""CH-1's check finds a planted correlation, and is not supported once it is broken."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from squeeze.claims import catalogue
from squeeze.claims.displacement import Displacement, predicted_and_seen
from squeeze.claims.types import Verdict
from squeeze.errors import InputError
from squeeze.scan import ScanRow
from squeeze.scoring import ResponseScores
from squeeze.trajectory import ProbePoint, Trajectory

pytestmark = pytest.mark.cpu
SEEDS = (11, 12, 13, 14, 15)
N = 90


def planted(noise: float = 0.5) -> pd.DataFrame:
    """Three seeds on the same examples: CHES drives the fall, the edit distance does not."""
    rng = np.random.default_rng(0)
    ches, distance = rng.normal(size=N), rng.uniform(size=N)
    frames = [
        pd.DataFrame(
            {
                "example": [f"e{i}" for i in range(N)],
                "seed": seed,
                "fall": np.exp(ches) + noise * rng.normal(size=N) + 10 * seed,
                "ches": 30 * ches - 200,
                "normalised_ches": ches + 0.2 * rng.normal(size=N),
                "edit_distance": distance,
            }
        )
        for seed in SEEDS
    ]
    return pd.concat(frames, ignore_index=True)


def permuted(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The columns with their examples shuffled, the same way in every seed."""
    order = np.random.default_rng(1).permutation(N)
    rows = np.concatenate([order + N * i for i in range(len(SEEDS))])
    return frame.assign(**{name: frame[name].to_numpy()[rows] for name in columns})


def ranks(frame: pd.DataFrame) -> list[Verdict]:
    """CH-1's secondary rows, on rank correlation."""
    return catalogue.get("CH-1").check(Displacement("tiny", frame))[1:]


def outcomes(frame: pd.DataFrame) -> set[str]:
    return {verdict.outcome for verdict in ranks(frame)}


def test_a_planted_correlation_is_supported_in_all_four_rows() -> None:
    verdicts = ranks(planted())
    assert [v.outcome for v in verdicts] == ["supported"] * 4
    assert [v.comparison for v in verdicts] == [
        "CHES",
        "normalised CHES",
        "CHES against edit distance",
        "normalised CHES against edit distance",
    ]
    assert {(v.n, v.seeds) for v in verdicts} == {(N, SEEDS)}


@pytest.mark.counterfactual("CH-1")
def test_permuted_scores_are_not_supported() -> None:
    assert outcomes(permuted(planted(), ["ches", "normalised_ches"])) == {"inconclusive"}


def test_a_correlation_of_the_wrong_sign_contradicts() -> None:
    frame = planted()
    assert outcomes(frame.assign(fall=-frame["fall"])) == {"contradicted"}


def test_a_baseline_that_is_as_good_leaves_no_gain_whatever_its_sign() -> None:
    frame = planted()
    rows = ranks(frame.assign(edit_distance=-frame["ches"]))
    assert [v.outcome for v in rows] == ["supported"] * 2 + ["inconclusive"] * 2
    assert rows[2].effect == pytest.approx(0.0, abs=1e-12)


def test_how_far_a_seed_went_is_not_counted_as_a_difference_of_examples() -> None:
    frame = planted()
    other = frame[(frame["seed"] == 13) == (frame["example"].str[1:].astype(int) < 45)]
    near = ranks(other)
    far = ranks(other.assign(fall=other["fall"] + 1e3 * other["seed"]))
    assert [v.effect for v in far] == pytest.approx([v.effect for v in near])


def test_fewer_than_five_examples_are_not_run_with_the_reason() -> None:
    for verdict in ranks(planted().head(4)):
        assert verdict.outcome == "not run"
        assert "at least 5 examples" in verdict.reason


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns="ches"), r"column\(s\) ches"),
        (lambda f: pd.concat([f, f.head(1)]), "'e0' stands twice under seed 11"),
        (lambda f: f.assign(fall=[np.nan, *f["fall"][1:]]), "'e0' has a number that is not finite"),
    ],
)
def test_unusable_frames_are_refused(spoil, message) -> None:
    with pytest.raises(InputError, match=message):
        ranks(spoil(planted()))


def test_fewer_than_85_examples_decide_nothing_about_ranks() -> None:
    frame = planted()
    few = ranks(frame[frame["example"].str[1:].astype(int) < 84])
    assert {v.outcome for v in few} == {"inconclusive"}
    assert "84 examples" in few[0].reason


def subsets(high: float, low: float) -> Displacement:
    """Five seeds in which chosen changes so much over DPO on the pairs of either half."""
    rng = np.random.default_rng(0)
    changes = [shift + rng.normal(0, 1, (len(SEEDS), 1)) + np.zeros(2) for shift in (high, low)]
    return Displacement("tiny", high=changes[0], low=changes[1], seeds=SEEDS)


@pytest.mark.parametrize(
    ("high", "low", "outcome"),
    [
        (-20, -5, "supported"),
        (-5, -20, "contradicted"),
        pytest.param(-9, -9, "inconclusive", marks=pytest.mark.counterfactual("CH-1")),
    ],
)
def test_the_contrast_of_the_two_subsets_decides(high: float, low: float, outcome: str) -> None:
    (row,) = catalogue.get("CH-1").check(subsets(high, low))
    assert (row.outcome, row.role, row.n) == (outcome, "primary", 4)


def test_without_the_two_subsets_the_contrast_is_not_run() -> None:
    row = catalogue.get("CH-1").check(Displacement("tiny", planted()))[0]
    assert (row.outcome, row.role) == ("not run", "primary")


def scan_row(example: str, ches: float) -> ScanRow:
    return ScanRow(example, ches, ches / 100, 0.5, 10, 10, *[-9.0] * 4, 0.3, 0.2, 0.9, 0.1)


def run_of(before: dict[str, float], after: dict[str, float]) -> Trajectory:
    trajectory = Trajectory.empty()
    for probe, (phase, logps) in enumerate((("base", before), ("dpo", after))):
        scores = [
            ResponseScores(e, "train", "chosen", x, -1.0, 1.0, 1.0, 5) for e, x in logps.items()
        ]
        trajectory = trajectory.append(ProbePoint("dpo", phase, 4 * probe, 1.0, probe), scores)
    return trajectory


def test_a_fall_is_the_start_of_dpo_less_its_end_joined_by_example() -> None:
    run = run_of({"b": -10.0, "a": -20.0}, {"a": -19.0, "b": -14.0})
    frame = predicted_and_seen([scan_row("a", -5.0), scan_row("b", -3.0)], run, "dpo", seed=3)
    found = frame.set_index("example")[["fall", "ches", "seed"]].to_dict("index")
    assert found == {
        "a": {"fall": -1.0, "ches": -5, "seed": 3},
        "b": {"fall": 4.0, "ches": -3, "seed": 3},
    }
    with pytest.raises(InputError, match="such as 'b'"):
        predicted_and_seen([scan_row("a", -5.0)], run, "dpo", seed=3)
