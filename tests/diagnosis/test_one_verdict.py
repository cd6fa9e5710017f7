"""One verdict a run: ten trainings that go wrong on purpose, three that go well, asked five ways.

The callback's closing line, `diagnose` of the output directory and of the record in it, the pytest
fixture of either, and the page must all say the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from squeeze import SqueezeCallback
from squeeze.diagnosis import diagnose, load, worst
from squeeze.diagnosis.page import report
from squeeze.models import load_model
from tests.diagnosis.test_callback import LORA, dpo
from tests.tiny_model import save_tiny_model

pytestmark = [
    pytest.mark.cpu,
    pytest.mark.filterwarnings("ignore::squeeze.diagnosis.callback.SqueezeWarning"),
    # transformers and TRL to each other, while TRL switches checkpointing off for its own passes.
    pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning"),
]

RATE = {"learning_rate": 5e-4}


def turned(data: Dataset) -> Dataset:
    """Chosen and rejected swapped."""
    return data.map(lambda row: {"chosen": row["rejected"], "rejected": row["chosen"]})


def half_turned(data: Dataset) -> Dataset:
    """Every other pair swapped."""
    names = ("chosen", "rejected")

    def turn(row: dict[str, Any], i: int) -> dict[str, Any]:
        return {a: row[b] for a, b in zip(names, names[:: 1 - 2 * (i % 2)], strict=True)}

    return data.map(turn, with_indices=True)


def alike(data: Dataset) -> Dataset:
    """The rejected answer is the chosen one."""
    return data.map(lambda row: {"rejected": row["chosen"]})


def unasked(data: Dataset) -> Dataset:
    """Every prompt is the first row's."""
    return data.map(lambda row: {"prompt": data[0]["prompt"]})


GOOD: dict[str, dict[str, Any]] = {
    "good": RATE,
    "good, slower": {"learning_rate": 1e-4},
    "good, with LoRA": {"learning_rate": 5e-3, "peft_config": LORA},
}
BAD: dict[str, dict[str, Any]] = {
    "learning rate too high": {"learning_rate": 3e-2},
    "weights that are no numbers": {"learning_rate": 1e30, "max_grad_norm": 0},
    "nothing trained": {"learning_rate": 0.0},
    "identical answers": {"change": alike},
    "swapped answers": {"change": turned},
    "half of the answers swapped": {"change": half_turned, "learning_rate": 1e-2},
    "prompts that belong to another answer": {"change": unasked, "learning_rate": 1e-2},
    "weights decayed away": {"learning_rate": 1e-3, "weight_decay": 500.0},
    "beta of 0": {"beta": 0.0, "learning_rate": 1e-2},
    "reference of another model": RATE | {"reference": 5},
}


def asked_in_a_suite(path: Path, pytester: pytest.Pytester) -> str:
    """The verdict that `pytest --squeeze-run PATH` gives its fixture."""
    (pytester.path / "said").unlink(missing_ok=True)
    found = pytester.runpytest_inprocess("-p", "no:cacheprovider", f"--squeeze-run={path}")
    found.assert_outcomes(passed=1)
    return (pytester.path / "said").read_text()


@pytest.mark.parametrize("case", [*GOOD, *BAD])
def test_every_way_of_asking_gives_the_callbacks_verdict(
    case: str,
    tiny_directory: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = (GOOD | BAD)[case]
    if seed := options.get("reference"):
        other = load_model(str(save_tiny_model(tmp_path / "other", seed=seed)))
        options = {k: v for k, v in options.items() if k != "reference"} | {"ref_model": other}
    out, callback = tmp_path / "out", SqueezeCallback(every=1, examples=3)
    trainer = dpo(tiny_directory, out, [callback], **options)
    trainer.train()
    trainer.save_state()
    (out / "wandb" / "run-1").mkdir(parents=True)
    (out / "wandb" / "run-1" / "run-1.wandb").write_bytes(b":W&B\xe1\xbe\0")
    assert callback.diagnosis is not None
    verdict, places = callback.diagnosis.verdict, (out, out / "squeeze")
    (closing,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("squeeze: ")]
    # It forgets what was imported since it began; pyarrow's types cannot be registered twice.
    pytester: pytest.Pytester = request.getfixturevalue("pytester")
    pytester.makepyfile(
        "from pathlib import Path\n"
        "def test_it(squeeze_verdict):\n    Path('said').write_text(squeeze_verdict)\n"
    )
    said = {
        "closing line": closing.removeprefix("squeeze: ").partition(" (")[0],
        "run.json": json.loads((out / "squeeze" / "run.json").read_text())["verdict"],
        **{f"diagnose {p}": worst(diagnose(r).verdict for r in load(p)) for p in places},
        **{f"suite of {p}": asked_in_a_suite(p, pytester) for p in places},
    }
    assert set(said.values()) == {verdict}, said
    if case == "weights that are no numbers":
        assert verdict == "collapse"
    if case in GOOD:
        assert verdict not in {"squeezing", "collapse", "displacement"}


@pytest.mark.parametrize("rate", [5e-4, 3e-2], ids=["good", "learning rate too high"])
def test_page_has_the_callbacks_verdict_and_its_evidence(
    rate: float, tiny_directory: Path, tmp_path: Path
) -> None:
    callback = SqueezeCallback(every=2, examples=3)
    dpo(tiny_directory, tmp_path, [callback], learning_rate=rate).train()
    page = report([tmp_path])
    assert page == tmp_path / "squeeze" / "index.html"
    assert callback.diagnosis is not None
    text = page.read_text(encoding="utf-8").partition("</main>")[0]
    assert f">{callback.diagnosis.verdict.capitalize()}: " in text
    assert 'href="#evidence-0"' in text
    assert 'id="evidence-0"' in text
    for contradiction in ("were not run", "holds no verdicts", "were held out"):
        assert contradiction not in text
