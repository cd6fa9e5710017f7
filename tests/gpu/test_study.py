"""The registered study on a GPU: every observation of level gpu, with LoRA and with all weights.

`squeeze observe gpu` shows its progress; arms are cached, so a stopped study goes on, and records
of finished ones lie beside the ledger, for another machine. What is registered, LoRA's, is
recorded; the same with all weights trained is printed (-rP). With `--rehearse` one seed of a tiny
model runs through all of it.
"""

import pytest

from squeeze import models
from squeeze.study.observations import claims_at, judge
from squeeze.study.study import Study
from tests.ledger_plugin import out_directory
from tests.quick import RECIPE, SETTINGS
from tests.study.rows import unregistered

pytestmark = pytest.mark.gpu
FULL = {"finetuning": "full", "learning_rate": 5e-6, "sft_learning_rate": 1e-5}


@pytest.fixture(scope="module", params=["lora", "full"])
def study(request, rehearsing, tmp_path_factory):
    changed = FULL if request.param == "full" else {}
    out = tmp_path_factory.mktemp("out") if rehearsing else out_directory(request.config)
    if rehearsing:
        return Study(
            "gpu",
            (0,),
            model=request.getfixturevalue("small_model"),
            recipe=changed | RECIPE,
            settings=SETTINGS,
            cache=tmp_path_factory.mktemp("experiments"),
            records=out / "records",
        )
    name = request.config.getoption("--squeeze-model")
    if name in models.EMBEDDED and not models.is_cached(name):
        pytest.skip(f"{name} is not cached; run: squeeze models fetch {name}")
    return Study("gpu", model=name, recipe=changed, records=out / "records")


@pytest.mark.parametrize(
    "claim",
    [pytest.param(claim, marks=pytest.mark.claim(claim, "gpu")) for claim in claims_at("gpu")],
)
def test_study(claim, study, ledger):
    verdicts = judge(study, claim)
    assert verdicts
    assert not unregistered(verdicts)
    assert all(v.ran or v.reason for v in verdicts)
    if study.registered:
        ledger.record(*verdicts)
    else:
        print(*verdicts, sep="\n")
