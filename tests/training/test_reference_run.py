"""The committed reference run against today: the same pairs, the same scores before training.

What training makes of them depends on the processor beyond rounding, and is not compared here.
"""

import json
from pathlib import Path

import pytest
import torch

from squeeze import models
from squeeze.data.encoding import apply_template
from squeeze.models import load_tokenizer
from squeeze.scoring import score
from squeeze.training.config import make_config
from squeeze.training.inputs import Pairs, pretrained, probe_items
from squeeze.trajectory import Trajectory

pytestmark = pytest.mark.pretrained

REFERENCE = Path(__file__).parents[2] / "reports" / "reference" / "smollm2-cpu"


def test_the_untrained_model_is_scored_as_in_the_reference_run(request):
    """Within 1e-4 nats a response on average, and 1e-3 for each: another CPU rounds otherwise."""
    config = make_config(json.loads((REFERENCE / "run.json").read_text())["config"])
    if not models.is_cached(config.model):
        pytest.skip(f"{config.model} is not cached; run: squeeze models fetch {config.model}")
    tokenizer = load_tokenizer(config.model)
    apply_template(tokenizer, config.template)
    items = probe_items(tokenizer, Pairs.of(config).fitting(tokenizer, config), config)
    frame = Trajectory.read(REFERENCE / "trajectory.parquet").where(arm="dpo").frame
    then = frame[frame["probe"] == 0].set_index(["example", "split", "kind"])
    assert sum(len(item.response_ids) for item in items) == len(then) == 140
    asked = items[:1] if request.config.getoption("--quick") else items
    now = score(pretrained(config), asked, dtype=torch.float32)
    for column in ("logp", "argmax_logp"):
        known = (then.loc[(row.example, row.split, row.kind), column] for row in now)
        off = [abs(getattr(row, column) - old) for row, old in zip(now, known, strict=True)]
        assert max(off) < 1e-3
        assert sum(off) / len(off) < 1e-4
