"""Every observation of Section 4 on the embedded real model, as pre-registered.

Trained on the evaluation seeds (44 minutes by two workers of xdist, who share the arms; a second
run only judges again; `squeeze observe pretrained` shows its progress). Nothing is recorded of
another model or other data (--squeeze-model gemma3-270m trains on the Chinese set) nor with
--quick, where one seed and a few examples check the machinery.
"""

import pytest
import xdist

from squeeze import models
from squeeze.study.observations import claims_at, judge
from squeeze.study.registration import plan
from squeeze.study.study import Study
from tests.quick import APART, RECIPE, SETTINGS
from tests.study.rows import regressions, unregistered

pytestmark = pytest.mark.pretrained


@pytest.fixture(scope="module")
def study(request, tmp_path_factory):
    name = request.config.getoption("--squeeze-model")
    if name in models.EMBEDDED and not models.is_cached(name):
        pytest.skip(f"{name} is not cached; run: squeeze models fetch {name}")
    data = request.config.getoption("--squeeze-data")
    recipe = {} if data is None else {"data": data}
    if not request.config.getoption("--quick"):
        return Study("pretrained", model=name, recipe=recipe)
    temporary = tmp_path_factory.getbasetemp()
    return Study(
        "pretrained",
        (0,),
        model=name,
        recipe=recipe | RECIPE,
        settings=SETTINGS,
        apart=APART,
        cache=(temporary.parent if xdist.is_xdist_worker(request) else temporary) / "experiments",
    )


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(claim, marks=pytest.mark.claim(claim, "pretrained"))
        for claim in claims_at("pretrained")
    ],
)
def test_observation(claim, study, ledger, request):
    verdicts = judge(study, claim)
    assert verdicts or request.config.getoption("--quick")
    assert not unregistered(verdicts)
    if study.registered or request.config.getoption("--quick"):
        ledger.record(*verdicts)  # checked, and with --quick kept out of the file by the plugin
    if not study.registered:
        print(*verdicts, sep="\n")  # another model, other data, a few examples: shown with -rP
        return
    registered = plan("pretrained", claim)
    assert {v.seeds for v in verdicts if v.ran} == {
        registered.seeds_of(claim, registered.evaluation)
    }
    assert not regressions(verdicts)
