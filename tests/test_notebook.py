"""The notebook in examples/ runs top to bottom and says what it should."""

import json
from pathlib import Path

import matplotlib
import pytest

pytestmark = pytest.mark.cpu

NOTEBOOK = Path(__file__).parents[1] / "examples" / "squeezing.ipynb"


@pytest.mark.filterwarnings("default")  # a reader's notebook shows libraries' warnings
def test_the_notebook_runs_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    said = capsys.readouterr().out
    assert "labels that fall: [1, 2" in said
    assert names["diagnosis"].verdict in said
    assert len(names["mean"]["split"].unique()) == 2
    passed = [result for result in names["results"] if result.outcome == "passes"]
    assert len(passed) > 25
