"""Scores of models of which two processes hold a part each: those of one process, exactly."""

import json
import re

import pytest

from tests.scoring import sharded
from tests.training.processes import run_pair

pytestmark = pytest.mark.cpu

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=["fsdp", "zero3"])
def found(request, tmp_path_factory):
    """What both processes found, under FSDP2 or DeepSpeed's ZeRO-3."""
    if request.param == "zero3":
        pytest.importorskip("deepspeed", reason="needs DeepSpeed, which no extra installs")
    out = tmp_path_factory.mktemp(request.param)
    run_pair(getattr(sharded, request.param), out, preload=sharded.__name__)
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("case", sharded.CASES)
def test_sharded_weights_are_scored_as_whole_ones_before_and_after_training(case, found):
    for here in (rank[case] for rank in found):
        assert here["before"] <= TOLERANCE
        assert here["after"] <= TOLERANCE
        assert here["moved"] > 100 * TOLERANCE, "the training moved nothing"


@pytest.mark.parametrize("case", sharded.CASES)
def test_no_process_holds_more_than_a_layer_and_the_head_beside_its_shards(case, found):
    for here in (rank[case] for rank in found):
        norm = 32  # the final one's weights are in the outermost group
        assert max(here["layer"], here["head"]) <= here["most"]
        assert here["most"] <= here["layer"] + here["head"] + norm
        assert here["left"] == 0, "weights stayed whole after the probe"


@pytest.mark.parametrize("case", sharded.CASES)
def test_a_process_with_nothing_to_score_takes_part(case, found):
    first, second = (rank[case]["nothing to score"] for rank in found)
    assert first > 1
    assert second == 0


WAYS_OUT = {"tensor parallel": "vocabulary.*FSDP2 or ZeRO", "FSDP1": "fsdp_version: 2"}


@pytest.mark.parametrize("found", ["fsdp"], indirect=True)
@pytest.mark.parametrize("name", WAYS_OUT)
def test_what_splits_more_than_weights_is_refused_with_its_reason(name, found):
    for rank in found:
        assert re.search(WAYS_OUT[name], rank["refusals"][name])
