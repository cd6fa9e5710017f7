"""TRL's DPOTrainer with the loss replaced by any function registered in `squeeze.losses`.

TRL's trainer is used as it is: its forward pass, its reference log-probs and its metrics. Only the
number that is differentiated is ours, computed from the log-probs of that same forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from squeeze.errors import InputError
from squeeze.losses import Loss, PairLogps
from squeeze.training.trl_compat import PolicyLogpsTrainer


def pair_logps(
    token_logps: Float[Tensor, "rows tokens"],
    completion_mask: Int[Tensor, "rows length"],
    ref_chosen: Float[Tensor, " batch"] | None = None,
    ref_rejected: Float[Tensor, " batch"] | None = None,
) -> PairLogps:
    """What a loss sees of one batch in TRL's layout: the chosen rows, then the rejected ones.

    `token_logps` holds the log-prob of every token but the first of each row, 0 outside the
    responses; the mask is 1 at response tokens.
    """
    mask = completion_mask[:, 1:].bool()
    logps, lengths = token_logps.sum(dim=1), mask.sum(dim=1)
    half = len(logps) // 2
    return PairLogps(
        chosen=logps[:half],
        rejected=logps[half:],
        ref_chosen=ref_chosen,
        ref_rejected=ref_rejected,
        chosen_length=lengths[:half],
        rejected_length=lengths[half:],
        rejected_token_logps=token_logps[half:],
        rejected_mask=mask[half:],
    )


class RegisteredLossTrainer(PolicyLogpsTrainer):
    """DPOTrainer that minimises the batch mean of a registered loss.

    `loss` comes from `squeeze.losses.get_loss`, `loss_options` are its hyper-parameters; everything
    else is DPOTrainer's. The arguments must have `precompute_ref_log_probs=True`. `rewards/*` stay
    TRL's: β times the log-ratios, with the β of its arguments.

    Raises `InputError` for unknown hyper-parameters or arguments that it cannot honour.
    """

    def __init__(
        self, *args: Any, loss: Loss, loss_options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        options = dict(loss_options or {})
        loss.check_names(options)
        super().__init__(*args, **kwargs)
        if not self.precompute_ref_logps or self.aux_loss_enabled:
            raise InputError(
                f"loss {loss.name!r} needs DPOConfig(precompute_ref_log_probs=True) and a model "
                "without a router loss (output_router_logits=False)"
            )
        self._loss, self._loss_options = loss, options

    def loss_of(self, token_logps: Float[Tensor, "rows tokens"], inputs: dict[str, Any]) -> Tensor:
        """The batch mean of the loss."""
        logps = pair_logps(
            token_logps,
            inputs["completion_mask"],
            inputs["ref_chosen_logps"].float(),
            inputs["ref_rejected_logps"].float(),
        )
        return self._loss(logps, **self._loss_options).mean()
