"""Preference losses as pure functions of log-probs, each with its paper, and the registry of them.

Signature, the same for all: `loss(logps: PairLogps, **hyper) -> Tensor[batch]`, one loss a pair;
the batch's loss is the mean. `register_loss` adds one; `get_loss(name)` finds one, "gated_NAME"
with Gate-DPO's gate, "weighted_NAME" with a weight on the rejected term. Their derivatives are
formulas in `squeeze.theory.residuals`. Nothing here knows a model or a trainer.
"""

# imported for the losses they register
from squeeze.losses import pairwise, reference_free, trl_kin  # noqa: F401
from squeeze.losses.gate import gate, gated
from squeeze.losses.kto import kto_unpaired, kto_unpaired_residual
from squeeze.losses.packed import packed_loss, ranked_pairs, sequence_logps
from squeeze.losses.registry import LOSSES, get_loss, register_loss
from squeeze.losses.types import Loss
from squeeze.losses.weighted import weighted
from squeeze.theory.logps import PairLogps

__all__ = [
    "LOSSES",
    "Loss",
    "PairLogps",
    "gate",
    "gated",
    "get_loss",
    "kto_unpaired",
    "kto_unpaired_residual",
    "packed_loss",
    "ranked_pairs",
    "register_loss",
    "sequence_logps",
    "weighted",
]
