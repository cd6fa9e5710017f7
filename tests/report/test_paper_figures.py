"""The paper's figures from curves made by hand: what is drawn, from where, and the band."""

import numpy as np
import pytest

from squeeze.claims.runs import Runs
from squeeze.errors import InputError
from squeeze.scoring import ResponseScores
from squeeze.study.figures import figure_3, figure_4, write_paper_figures
from squeeze.trajectory import ProbePoint, Trajectory

pytestmark = pytest.mark.cpu

# Mean log-prob by kind at the base model, after each epoch of SFT and of DPO.
SHAPE = [("base", 0), ("sft", 1), ("sft", 2), ("dpo", 1), ("dpo", 2), ("dpo", 3)]
KINDS = {
    "chosen": [0, 20, 30, 34, 20, 5],
    "chosen_rephrased": [0, 9, 6, 2, -8, -20],
    "rejected": [0, 8, 9, -30, -60, -90],
    "other_answer": [0, 3, 5, -2, -9, -18],
    "permuted": [0, -8, -14, -30, -45, -60],
}


def trajectory(seed, examples=4, splits=("train", "held_out")):
    rng = np.random.default_rng(seed)
    made = Trajectory.empty()
    drift = rng.normal(0, 1, (len(splits), len(KINDS), examples))
    for probe, (phase, epoch) in enumerate(SHAPE):
        rows = [
            ResponseScores(
                f"{split}-{i}", split, kind, float(v[probe] - 100 + probe * drift[s, k, i]),
                float(3 * probe - 40), 2.0, 0.3, 40,
            )
            for s, split in enumerate(splits)
            for k, (kind, v) in enumerate(KINDS.items())
            for i in range(examples)
        ]  # fmt: skip
        made = made.append(ProbePoint("arm", phase, epoch, float(epoch), probe), rows)
    return made


@pytest.fixture(scope="module")
def runs():
    return Runs((trajectory(0), trajectory(1)), "tiny", (100, 101))


def line(figure, panel, kind):
    (found,) = [x for x in figure.axes[panel].get_lines() if x.get_label() == kind]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def mean_change(runs, kind, first, last):
    tables = [t.by_example("arm", kind, "train") for t in runs.trajectories]
    return np.mean([(t[last] - t[first]).mean() for t in tables])


def test_figure_3_shows_sft_as_the_change_from_before_it(runs):
    figure = figure_3(runs, "arm")
    x, y = line(figure, 0, "chosen")
    assert x.tolist() == [0, 1, 2]
    assert y == pytest.approx([0, *(mean_change(runs, "chosen", 0, p) for p in (1, 2))], abs=1e-4)


def test_figure_4_starts_where_sft_ended_and_has_the_argmax(runs):
    figure = figure_4(runs, "arm")
    x, y = line(figure, 1, "rejected")
    assert x.tolist() == [0, 1, 2, 3]
    assert y[-1] == pytest.approx(mean_change(runs, "rejected", 2, 5), abs=1e-4)
    assert line(figure, 3, "argmax")[1] == pytest.approx([0, 3, 6, 9])
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"chosen, words shuffled", "model's favourite tokens"} <= labels


def test_the_band_holds_the_mean_and_starts_at_zero_width(runs):
    figure = figure_4(runs, "arm")
    band = figure.axes[1].collections[0].get_paths()[0].vertices
    ends = sorted(v[1] for v in band if v[0] == 3)
    assert ends[0] < line(figure, 1, "rejected")[1][-1] < ends[-1]
    assert {v[1] for v in band if v[0] == 0} == {0.0}


def test_one_seed_is_drawn_from_its_examples_alone():
    figure = figure_3(Runs((trajectory(0, splits=("train",)),), "tiny", (100,)), "arm")
    assert len(figure.axes) == 4
    assert "seed 100" in figure.get_suptitle()


def test_seeds_of_different_sizes_are_refused():
    uneven = Runs((trajectory(0), trajectory(1, examples=3)), "tiny", (100, 101))
    with pytest.raises(InputError, match="run them with one recipe"):
        figure_3(uneven, "arm")


def test_an_empty_cache_names_the_command_that_fills_it(tmp_path):
    with pytest.raises(InputError, match="squeeze observe pretrained"):
        write_paper_figures("pretrained", tmp_path, tmp_path / "nothing")
