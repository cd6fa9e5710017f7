"""A preference loss of your own: one function and its residual, then its row in the table.

`squeeze compare-losses --plugin examples/loss_of_my_own.py --losses sigmoid,squared_hinge` trains
it beside DPO and shows what it does to chosen, rejected, the others and the argmax.
"""

import torch
from torch import Tensor

from squeeze.losses import PairLogps, register_loss


def residual(logps: PairLogps, *, beta: float = 0.1) -> tuple[Tensor, Tensor]:
    """(∂L/∂s+, ∂L/∂s−) of the squared hinge: ∓2β·max(0, 1 − βm)."""
    push = 2 * beta * torch.relu(1 - beta * logps.margin)
    return -push, push


@register_loss(
    "squared_hinge",
    paper="an example of squeeze's documentation",
    formula="max(0, 1 − βm)²",
    init=lambda beta: 1.0,
    residual=residual,
)
def squared_hinge(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """One loss a pair, [batch]: the squared hinge of βm."""
    return torch.relu(1 - beta * logps.margin) ** 2
