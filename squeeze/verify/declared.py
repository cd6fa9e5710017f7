"""Losses that trainers declare: their settings read as losses and hyper-parameters of ours.

The formulas are those of `squeeze.losses`, which are from the papers. Each takes `PairLogps` and
the trainer's settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from squeeze.losses import PairLogps, get_loss
from squeeze.theory.residuals import divergence_score
from squeeze.verify.types import DoesNotApply

PairLoss = Callable[[PairLogps, Any], Tensor]


def _registered(name: str, fixed: Mapping[str, Any] | None = None, **renamed: str) -> PairLoss:
    """One of `squeeze.losses`, its hyper-parameters read from the trainer's settings.

    `fixed` are values of ours, `renamed` maps a hyper-parameter to the setting's other name.
    """
    known, own = get_loss(name), fixed or {}

    def loss(logps: PairLogps, args: Any) -> Tensor:
        names = [key for key in known.hyperparameters if key not in own]
        return known(logps, **own, **{key: getattr(args, renamed.get(key, key)) for key in names})

    return loss


_AS_OURS = (
    *("sigmoid", "hinge", "robust", "sppo_hard", "exo_pair", "nca_pair", "bco_pair", "aot"),
    *("aot_unpaired", "apo_zero", "apo_down", "discopop", "sigmoid_norm"),
)
DPO_LOSSES: Mapping[str, PairLoss] = {name: _registered(name) for name in _AS_OURS} | {
    "ipo": _registered("ipo", {"length_normalized": True}, tau="beta"),
    "sft": _registered("sft", {"normalization": "batch"}),
}
# what reads f'(π/π_ref) of another divergence where DPO reads the log-ratio
OF_SCORES = ("sigmoid", "hinge", "ipo", "robust", "exo_pair", "discopop", "sigmoid_norm")


def dpo_losses(logps: PairLogps, args: Any, whole: PairLogps) -> Tensor:
    """The loss of each pair, [batch], that a `DPOConfig` declares, without WPO's weights.

    `whole` are the log-probs that `ld_alpha` has not weighted, which the SFT term reads. Raises
    `DoesNotApply` where no closed form is known.
    """
    names = [args.loss_type] if isinstance(args.loss_type, str) else list(args.loss_type)
    weights = getattr(args, "loss_weights", None) or [1.0] * len(names)
    unknown = [name for name in names if name not in DPO_LOSSES]
    if unknown:
        raise DoesNotApply(f"no closed form is known here for loss_type {unknown[0]!r}")
    scored = _of_divergence(logps, args)
    read = dict.fromkeys(OF_SCORES, scored) | {"sft": whole}
    losses = [
        weight * DPO_LOSSES[name](read.get(name, logps), args)
        for name, weight in zip(names, weights, strict=True)
    ]
    return torch.stack(losses).sum(0)


def _of_divergence(logps: PairLogps, args: Any) -> PairLogps:
    """Scores f'(π/π_ref) in the place of log-ratios; f-DPO, arXiv 2309.16240, Eq. 10."""
    divergence = getattr(args, "f_divergence_type", "reverse_kl")
    alpha = getattr(args, "f_alpha_divergence_coef", 0.5)
    if divergence == "alpha_divergence" and alpha == 1:
        divergence = "reverse_kl"  # its limit
    chosen, rejected = (
        divergence_score(ratio, divergence, alpha)[0]
        for ratio in (logps.chosen_logratio, logps.rejected_logratio)
    )
    zero = torch.zeros_like(chosen)
    return replace(logps, chosen=chosen, rejected=rejected, ref_chosen=zero, ref_rejected=zero)


def cpo_loss(logps: PairLogps, args: Any) -> Tensor:
    """CPO (Xu et al. 2024, arXiv 2401.08417, Eq. 3) and SimPO, as a `CPOConfig` declares them."""
    if getattr(args, "alpha", 0.0):
        raise DoesNotApply("no closed form is known here for AlphaPO (alpha)")
    losses = _without_reference(logps, args)
    nll = get_loss("sft")(logps, normalization="batch")
    mean: Tensor = (losses + args.cpo_alpha * nll).mean()
    return mean


def _without_reference(logps: PairLogps, args: Any) -> Tensor:
    """DPO's kin against a reference of 0, which for SimPO's target margin is γ/β on one side."""
    zero = torch.zeros_like(logps.chosen)
    free = replace(logps, ref_chosen=zero, ref_rejected=zero)
    if args.loss_type == "hinge":
        return get_loss("hinge")(free, beta=args.beta)
    if args.loss_type == "ipo":
        return get_loss("ipo")(free, tau=args.beta, length_normalized=True)
    if args.loss_type == "simpo":
        free = replace(
            free,
            chosen=logps.chosen / logps.n_chosen_tokens,
            rejected=logps.rejected / logps.n_rejected_tokens,
            ref_chosen=zero + args.simpo_gamma / args.beta,
        )
    return get_loss("cdpo")(free, beta=args.beta, label_smoothing=args.label_smoothing)


def orpo_loss(logps: PairLogps, args: Any) -> Tensor:
    """ORPO, Hong et al. 2024, arXiv 2403.07691, Eq. 6, the SFT term a mean over the batch's tokens.

    `squeeze.losses` takes each answer's own mean; with one pair the two are the same.
    """
    own = get_loss("sft")(logps, normalization="token")
    batch = get_loss("sft")(logps, normalization="batch")
    return (get_loss("orpo")(logps, lam=args.beta) - own + batch).mean()
