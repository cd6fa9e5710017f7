"""The pictures of the softmax claims are written, and show what the theory says."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.image import imread

from squeeze.claims.theory_figures import draw_steps, draw_theory_figures

pytestmark = pytest.mark.cpu


def test_both_pictures_are_written_as_png_and_nothing_else_is_left(tmp_path: Path) -> None:
    paths = draw_theory_figures(tmp_path / "new")
    assert [path.name for path in paths] == ["softmax-steps.png", "squeezing-threshold.png"]
    assert sorted(paths) == sorted((tmp_path / "new").iterdir())
    for path in paths:
        assert imread(path).std() > 0.05  # not a blank page


def test_the_valley_panel_shows_the_squeeze_and_the_plateau_none() -> None:
    titles = [axis.get_title() for axis in draw_steps().axes[:4]]
    assert "valley: squeeze\n22 of 23 other labels fall" in titles[3]
    assert "plateau\n0 of 23 other labels fall" in titles[2]
