"""What the kernels refuse, and that the sentence names the argument and the way out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from squeeze.errors import InputError
from squeeze.kernels import target_logps, token_statistics

pytestmark = pytest.mark.cpu

TARGETS = torch.tensor([0, 1, 2])
LOGITS = torch.zeros(3, 5)
HIDDEN = torch.zeros(3, 4)
HEAD = torch.zeros(5, 4)
META = torch.device("meta")

REFUSED: list[tuple[str, torch.Tensor, dict[str, Any]]] = [
    ("either logits, or hidden", TARGETS, {}),
    ("not both", TARGETS, {"logits": LOGITS, "hidden": HIDDEN, "head": HEAD}),
    ("belong together", TARGETS, {"hidden": HIDDEN}),
    ("belong together", TARGETS, {"logits": LOGITS, "head": HEAD}),
    ("add it to the logits", TARGETS, {"logits": LOGITS, "bias": torch.zeros(5)}),
    ("logits must be a matrix.*flatten", TARGETS, {"logits": LOGITS[None]}),
    ("hidden must be a matrix", TARGETS, {"hidden": HIDDEN[0], "head": HEAD}),
    ("logits is torch.int64", TARGETS, {"logits": LOGITS.long()}),
    ("no columns", TARGETS, {"logits": LOGITS[:, :0]}),
    ("head has no rows", TARGETS, {"hidden": HIDDEN, "head": HEAD[:0]}),
    ("not transposed", TARGETS, {"hidden": HIDDEN, "head": HEAD.T}),
    ("cast one", TARGETS, {"hidden": HIDDEN, "head": HEAD.half()}),
    ("move one", TARGETS, {"hidden": HIDDEN, "head": HEAD.to(META)}),
    ("bias has shape", TARGETS, {"hidden": HIDDEN, "head": HEAD, "bias": torch.zeros(3)}),
    (
        "bias is torch.int64",
        TARGETS,
        {"hidden": HIDDEN, "head": HEAD, "bias": TARGETS.new_zeros(5)},
    ),
    (r"it must be \[3\]", TARGETS[:2], {"logits": LOGITS}),
    (r"it must be \[3\]", TARGETS[None], {"logits": LOGITS}),
    ("int64 or int32", TARGETS.float(), {"logits": LOGITS}),
    ("targets is on meta", TARGETS.to(META), {"logits": LOGITS}),
    (r"targets\[1\] is 5, outside", torch.tensor([0, 5, 1]), {"logits": LOGITS}),
    (r"targets\[2\] is -1, outside.*ignore_index", torch.tensor([0, 1, -1]), {"logits": LOGITS}),
    ("temperature must be", TARGETS, {"logits": LOGITS, "temperature": 0.0}),
    ("softcap must be", TARGETS, {"logits": LOGITS, "softcap": float("inf")}),
    ("logit_scale must be", TARGETS, {"logits": LOGITS, "logit_scale": float("nan")}),
    ("top_k must lie", TARGETS, {"logits": LOGITS, "top_k": 6}),
]


@pytest.mark.parametrize(("sentence", "targets", "arguments"), REFUSED)
def test_unusable_input_is_refused_by_name(
    sentence: str, targets: torch.Tensor, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=sentence):
        token_statistics(targets, **arguments)


def test_the_differentiable_kernel_refuses_the_same() -> None:
    with pytest.raises(InputError, match=r"targets\[1\] is 9"):
        target_logps(torch.tensor([0, 9, 1]), hidden=HIDDEN, head=HEAD)


def test_int32_targets_are_taken() -> None:
    found = token_statistics(TARGETS.int(), logits=LOGITS)
    assert torch.equal(found.target_logp, torch.full((3,), -torch.tensor(5.0).log()))
