"""Liger's fused losses (hidden states to loss, no whole logits) against squeeze.losses, on a CPU.

    python benchmarks/liger_fused.py    # needs liger-kernel >= 0.8; seconds

Three pairs of uneven lengths, with ignored positions, in chunks of one and two pairs. Value, and
the gradients of hidden states and head as a share of their largest entry, against autograd in
float64.
"""

import torch
from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss, LigerFusedLinearSimPOLoss

from squeeze.losses import get_loss
from squeeze.theory.logps import PairLogps

PAIRS, LENGTH, WIDTH, VOCAB = 3, 7, 16, 50
SMOOTHED = {"robust": {"label_smoothing": 0.1}, "exo_pair": {"label_smoothing": 1e-3}}
DPO = [
    *("sigmoid", "hinge", "exo_pair", "nca_pair", "robust"),
    *("bco_pair", "sppo_hard", "apo_zero", "apo_down", "discopop"),
]


def inputs() -> dict[str, torch.Tensor]:
    """Hidden states [2 · pairs, length, width] of policy and reference, their heads, targets."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"hidden": (2 * PAIRS, LENGTH, WIDTH), "head": (VOCAB, WIDTH)}
    drawn = {
        name + of: torch.randn(size, generator=generator) * (0.3 if name == "head" else 1)
        for of in ("", "_reference")
        for name, size in sizes.items()
    }
    targets = torch.randint(VOCAB, sizes["hidden"][:2], generator=generator)
    targets[0, 4:] = targets[4, 2:] = targets[2, 0] = -100
    return drawn | {"targets": targets}


def logps(given: dict[str, torch.Tensor]) -> PairLogps:
    """The sequence log-probs in float64."""
    targets, kept = given["targets"].clamp_min(0), given["targets"] != -100
    halves = []
    for of in ("", "_reference"):
        logits = given["hidden" + of].double() @ given["head" + of].double().T
        tokens = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        halves += (tokens * kept).sum(-1).split(PAIRS)
    return PairLogps(*halves, *kept.sum(-1).split(PAIRS))


def compare(name: str, fused, loss: str, **hyper: float) -> None:
    """Print value and gradients of Liger's fused pass beside ours."""
    of_liger, ours = inputs(), inputs()
    for given in (of_liger, ours):
        given["hidden"].requires_grad_()
        given["head"].requires_grad_()
    value = fused(of_liger)[0]
    value.backward()
    expected = get_loss(loss)(logps(ours), **hyper).mean()
    expected.backward()
    shares = [
        ((of_liger[of].grad - ours[of].grad).abs().max() / ours[of].grad.abs().max()).item()
        for of in ("hidden", "head")
    ]
    print(f"{name:22} {value.item():.6f} {expected.item():.6f} {shares[0]:.1e} {shares[1]:.1e}")


print(f"{'loss':22} Liger    ours     gradient of hidden states, head")
for chunk in (1, 2):
    for loss in DPO:
        smoothing = SMOOTHED.get(loss, {})
        module = LigerFusedLinearDPOLoss(
            compiled=False, chunk_size=chunk, loss_type=loss, **smoothing
        )
        compare(
            f"DPO {loss}, chunk {chunk}",
            lambda x, module=module: module(
                x["head"],
                x["hidden"],
                x["targets"],
                ref_input=x["hidden_reference"],
                ref_weight=x["head_reference"],
            ),
            loss,
            **smoothing,
        )
    simpo = LigerFusedLinearSimPOLoss(
        compiled=False, compute_nll_loss=False, beta=2.0, gamma=1.0, chunk_size=chunk
    )
    compare(
        f"SimPO, chunk {chunk}",
        lambda x, module=simpo: module(x["head"], x["hidden"], x["targets"]),
        "simpo",
    )
