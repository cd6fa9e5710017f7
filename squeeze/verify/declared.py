"""Losses that trainers declare, in closed form from the papers: functions of log-probs alone.

`squeeze.losses` where it has the loss; the others of TRL's DPOTrainer here. Each takes `PairLogps`
and the trainer's settings and returns one loss a pair, [batch].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from squeeze.losses import PairLogps, get_loss
from squeeze.verify.types import DoesNotApply

PairLoss = Callable[[PairLogps, Any], Tensor]


def _registered(name: str, fixed: Mapping[str, Any] | None = None, **read: str) -> PairLoss:
    """One of `squeeze.losses`; `read` maps its hyper-parameters to the trainer's attributes."""

    def loss(logps: PairLogps, args: Any) -> Tensor:
        hyper = {key: getattr(args, attribute) for key, attribute in read.items()}
        return get_loss(name)(logps, **(fixed or {}), **hyper)

    return loss


def _exo_pair(logps: PairLogps, args: Any) -> Tensor:
    """KL(softmax of rewards ‖ (1 − ε, ε)); Ji et al. 2024, arXiv 2402.00856, Eq. 16."""
    x, epsilon = args.beta * logps.margin, args.label_smoothing
    won, lost = logsigmoid(x), logsigmoid(-x)
    return won.exp() * (won - math.log1p(-epsilon)) + lost.exp() * (lost - math.log(epsilon))


def _nca_pair(logps: PairLogps, args: Any) -> Tensor:
    """−log σ(r+) − ½ log σ(−r+) − ½ log σ(−r−); Chen et al. 2024, arXiv 2402.05369, Eq. 11."""
    chosen, rejected = args.beta * logps.chosen_logratio, args.beta * logps.rejected_logratio
    return -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2


def _bco_pair(logps: PairLogps, args: Any) -> Tensor:
    """−log σ(r+) − log σ(−r−), no shift; Jung et al. 2024, arXiv 2404.04656, §3."""
    chosen, rejected = args.beta * logps.chosen_logratio, args.beta * logps.rejected_logratio
    return -logsigmoid(chosen) - logsigmoid(-rejected)


def _smoothed(x: Tensor, epsilon: float) -> Tensor:
    return -(1 - epsilon) * logsigmoid(x) - epsilon * logsigmoid(-x)


def _aot(logps: PairLogps, args: Any) -> Tensor:
    """Sorted margins against sorted reference margins; Melnyk et al. 2024, arXiv 2406.05882."""
    margins = logps.chosen - logps.rejected
    policy, reference = margins.sort().values, (margins - logps.margin).sort().values
    return _smoothed(args.beta * (policy - reference), args.label_smoothing)


def _aot_unpaired(logps: PairLogps, args: Any) -> Tensor:
    """Sorted chosen log-ratios against sorted rejected ones; arXiv 2406.05882."""
    delta = logps.chosen_logratio.sort().values - logps.rejected_logratio.sort().values
    return _smoothed(args.beta * delta, args.label_smoothing)


def _apo_zero(logps: PairLogps, args: Any) -> Tensor:
    """(1 − σ(r+)) + σ(r−); D'Oosterlinck et al. 2024, arXiv 2408.06266, Eq. 7."""
    chosen, rejected = args.beta * logps.chosen_logratio, args.beta * logps.rejected_logratio
    return torch.sigmoid(-chosen) + torch.sigmoid(rejected)


def _apo_down(logps: PairLogps, args: Any) -> Tensor:
    """σ(r+) + (1 − σ(r+ − r−)); arXiv 2408.06266, Eq. 8."""
    return torch.sigmoid(args.beta * logps.chosen_logratio) + torch.sigmoid(
        -args.beta * logps.margin
    )


def _discopop(logps: PairLogps, args: Any) -> Tensor:
    """−log σ(x)(1 − σ(x/τ)) + e^(−x)σ(x/τ); Lu et al. 2024, arXiv 2406.08414, Eq. 5."""
    x = args.beta * logps.margin
    share = torch.sigmoid(x / args.discopop_tau)
    return -logsigmoid(x) * (1 - share) + torch.exp(-x) * share


def _sigmoid_norm(logps: PairLogps, args: Any) -> Tensor:
    """DPO on log-ratios a token, −log σ(β(Δ+/|y+| − Δ−/|y−|)): the margin a token."""
    chosen = logps.chosen_logratio / logps.n_chosen_tokens
    return -logsigmoid(args.beta * (chosen - logps.rejected_logratio / logps.n_rejected_tokens))


DPO_LOSSES: Mapping[str, PairLoss] = {
    "sigmoid": _registered("sigmoid", beta="beta"),
    "hinge": _registered("hinge", beta="beta"),
    "ipo": _registered("ipo", {"length_normalized": True}, tau="beta"),
    "robust": _registered("robust", beta="beta", label_smoothing="label_smoothing"),
    "sppo_hard": _registered("sppo_hard", beta="beta"),
    "sft": _registered("sft", {"normalization": "batch"}),
    "exo_pair": _exo_pair,
    "nca_pair": _nca_pair,
    "bco_pair": _bco_pair,
    "aot": _aot,
    "aot_unpaired": _aot_unpaired,
    "apo_zero": _apo_zero,
    "apo_down": _apo_down,
    "discopop": _discopop,
    "sigmoid_norm": _sigmoid_norm,
}


def dpo_loss(logps: PairLogps, args: Any) -> Tensor:
    """The batch loss that a `DPOConfig` declares; `DoesNotApply` where no closed form is known."""
    for name, off in (("use_weighting", False), ("ld_alpha", None)):
        if getattr(args, name, off) not in (off, None):
            raise DoesNotApply(f"no closed form is known here for {name}")
    if getattr(args, "f_divergence_type", "reverse_kl") != "reverse_kl":
        raise DoesNotApply("no closed form is known here for other divergences than reverse_kl")
    names = [args.loss_type] if isinstance(args.loss_type, str) else list(args.loss_type)
    weights = getattr(args, "loss_weights", None) or [1.0] * len(names)
    unknown = [name for name in names if name not in DPO_LOSSES]
    if unknown:
        raise DoesNotApply(f"no closed form is known here for loss_type {unknown[0]!r}")
    losses = [w * DPO_LOSSES[n](logps, args).mean() for n, w in zip(names, weights, strict=True)]
    return torch.stack(losses).sum()


def cpo_loss(logps: PairLogps, args: Any) -> Tensor:
    """CPO (Xu et al. 2024, arXiv 2401.08417, Eq. 3) and SimPO, as a `CPOConfig` declares them."""
    if getattr(args, "alpha", 0.0):
        raise DoesNotApply("no closed form is known here for AlphaPO (alpha)")
    chosen, rejected = logps.chosen, logps.rejected
    if args.loss_type in ("simpo", "ipo"):
        chosen, rejected = chosen / logps.n_chosen_tokens, rejected / logps.n_rejected_tokens
    margin = chosen - rejected
    if args.loss_type == "hinge":
        losses = torch.relu(1 - args.beta * margin)
    elif args.loss_type == "ipo":
        losses = (margin - 1 / (2 * args.beta)).square()
    else:
        gamma = args.simpo_gamma if args.loss_type == "simpo" else 0.0
        losses = _smoothed(args.beta * margin - gamma, args.label_smoothing)
    nll = get_loss("sft")(logps, normalization="batch")
    mean: Tensor = (losses + args.cpo_alpha * nll).mean()
    return mean


def orpo_loss(logps: PairLogps, args: Any) -> Tensor:
    """ORPO, Hong et al. 2024, arXiv 2403.07691, Eq. 6, the SFT term a mean over the batch's tokens.

    `squeeze.losses` takes each answer's own mean; with one pair the two are the same.
    """
    own = get_loss("sft")(logps, normalization="token")
    batch = get_loss("sft")(logps, normalization="batch")
    return (get_loss("orpo")(logps, lam=args.beta) - own + batch).mean()
