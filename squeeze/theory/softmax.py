"""How gradient steps on a label's log-probability move a softmax distribution, in closed form.

A step is described by its *displacement* z' − z of the logits and not by z' itself: every
inequality of claims SM-1 … SM-9 is about differences of displacements, which z' would round away
(η = 1e-6 on a label of probability 1e-30 moves y* by 1e-36 nats). Memory is O(batch · vocab).
Steps act on logits; models, losses and training are not here. Source of the dynamics: Ren &
Sutherland, arXiv 2407.10490, §3.3 and appendix E.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Step = Callable[
    [Float[Tensor, "batch vocab"], Int[Tensor, " batch"], float], Float[Tensor, "batch vocab"]
]
"""(logits, labels, eta) → displacement z' − z of the logits by one step of size eta."""


def others_mass(
    logits: Float[Tensor, "batch vocab"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return 1 − π(y), summed over the other labels, so it keeps its digits when π(y) is near 1."""
    return _put(logits.softmax(-1), labels, 0.0).sum(-1)


def most_likely_other(
    logits: Float[Tensor, "batch vocab"], labels: Int[Tensor, " batch"]
) -> Int[Tensor, " batch"]:
    """Return y*, the most likely label other than y; the first of them if several tie."""
    return _put(logits, labels, -torch.inf).argmax(-1)


def negative_step(
    logits: Float[Tensor, "batch vocab"], labels: Int[Tensor, " batch"], eta: float
) -> Float[Tensor, "batch vocab"]:
    """Return the displacement η(π − e_y) of a step that lowers log π(y) (§3.3).

    For a linear read-out z = Wh trained on W, `eta` is the learning rate times ‖h‖².
    """
    return _put(eta * logits.softmax(-1), labels, -eta * others_mass(logits, labels))


def positive_step(
    logits: Float[Tensor, "batch vocab"], labels: Int[Tensor, " batch"], eta: float
) -> Float[Tensor, "batch vocab"]:
    """Return the displacement η(e_y − π) of a step that raises log π(y), as SFT's does."""
    return -negative_step(logits, labels, eta)


def combined_step(
    logits: Float[Tensor, "batch vocab"],
    chosen: Int[Tensor, " batch"],
    rejected: Int[Tensor, " batch"],
    eta: float,
    chosen_weight: float = 1.0,
    rejected_weight: float = 1.0,
) -> Float[Tensor, "batch vocab"]:
    """Return the displacement of a step that raises one label and lowers another in one context.

    η·(w₊(e_{y+} − π) + w₋(π − e_{y−})); with equal weights the π terms cancel exactly.
    """
    raised = positive_step(logits, chosen, eta)
    lowered = negative_step(logits, rejected, eta)
    return chosen_weight * raised + rejected_weight * lowered


def iterate_steps(
    logits: Float[Tensor, "batch vocab"],
    labels: Int[Tensor, " batch"],
    eta: float,
    n_steps: int,
    steps: Sequence[Step] = (negative_step,),
) -> Iterator[Float[Tensor, "batch vocab"]]:
    """Yield the logits after each of `n_steps` steps, taken from `steps` in turn.

    The logits are shifted so that the largest is 0, which keeps their rounding error small.
    """
    for step in islice(cycle(steps), n_steps):
        logits = logits + step(logits, labels, eta)
        logits = logits - logits.amax(-1, keepdim=True)
        yield logits


def log_prob_change(
    logits: Float[Tensor, "batch vocab"], displacement: Float[Tensor, "batch vocab"]
) -> Float[Tensor, "batch vocab"]:
    """Return log π'_i − log π_i (nats) of every label, to `change_rounding` absolute accuracy."""
    return displacement - _log_mean_exp(logits, displacement)[..., None]


def log_prob_change_at(
    logits: Float[Tensor, "batch vocab"],
    displacement: Float[Tensor, "batch vocab"],
    labels: Int[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Return log π'(y) − log π(y) (nats) of one label a row, to high *relative* accuracy.

    It is −log Σ_j π_j exp(d_j − d_y): for the label that moves least or most, all terms of
    Σ_j π_j expm1(d_j − d_y) have one sign and nothing cancels, however small the change is, until
    its terms underflow.
    """
    return -_log_mean_exp(logits, displacement - _at(displacement, labels)[..., None])


def relative_rounding(logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, " batch"]:
    """Return a bound on the relative rounding error of π, of 1 − π(y) and of a step's displacement.

    With u = eps/2 and exact logits: z_i − max z is off by u·range(z), exp by 2u; the normalising
    sum inherits that and adds V·u (the worst order of summing); 1 − π(y) adds V·u again, the
    products 2u. The 16 leaves room for the library's exp being off by two more units.
    """
    u = torch.finfo(logits.dtype).eps / 2
    spread = logits.amax(-1) - logits.amin(-1)
    return u * (2 * spread + 2 * logits.shape[-1] + 16)


def change_rounding(
    logits: Float[Tensor, "batch vocab"], displacement: Float[Tensor, "batch vocab"]
) -> Float[Tensor, "batch vocab"]:
    """Return a bound on the rounding error of `log_prob_change` (nats) for steps of this module.

    With r = `relative_rounding`, Z = Σ π_j e^{d_j}, D = Σ π_j |d_j| e^{d_j}/Z and
    E = Σ π_j |expm1 d_j|/Z: d_i is off by r|d_i|; Σ π_j expm1(d_j) by at most 2r(E + D)Z (π_j, d_j,
    expm1 and the sum), hence its log1p by 2r(E + D) + 2u|log Z|. That way is taken where the sum is
    within ½ of 0, hence E ≤ 5; log-sum-exp, taken elsewhere, is off by r(1 + D) + u(max|z| +
    |log Z|), and there E ≥ 1/3. A factor of 4 covers both and all terms of second order in u.
    """
    u = torch.finfo(logits.dtype).eps / 2
    relative = (relative_rounding(logits) + u * logits.abs().amax(-1))[..., None]
    probs = logits.softmax(-1)
    grown = probs * displacement.exp()
    total = grown.sum(-1)
    excess = ((probs * torch.expm1(displacement).abs()).sum(-1) / total).clamp(max=5)
    drift = (grown * displacement.abs()).sum(-1) / total
    log_z = _log_mean_exp(logits, displacement).abs()
    return 4 * relative * (displacement.abs() + (excess + drift + log_z)[..., None])


def squeezing_threshold(
    logits: Float[Tensor, "batch vocab"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return ‖π‖² − π(y): to first order, a negative step lowers the others less likely than this.

    Computed as Σ_{j≠y} π_j (π_j − π_y), each difference from the logits' gap, so a flat π gives
    exactly 0 and a π(y) above all others a negative number (claim SM-4).
    """
    probs = logits.softmax(-1)
    gap = logits - _at(logits, labels)[..., None]
    larger = torch.maximum(probs, _at(probs, labels)[..., None])
    return (probs * larger * gap.sign() * -torch.expm1(-gap.abs())).sum(-1)


def finite_threshold(
    logits: Float[Tensor, "batch vocab"], labels: Int[Tensor, " batch"], eta: float
) -> Float[Tensor, " batch"]:
    """Return log(Σ_j π_j exp(η g_j))/η, g = π − e_y: a step of size η lowers the others below it.

    It grows from ‖π‖² − π(y) at η → 0 to π(y*) at η → ∞.
    """
    return _log_mean_exp(logits, negative_step(logits, labels, eta)) / eta


def negative_rates(
    logits: Float[Tensor, "batch vocab"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, "batch vocab"]:
    """Return d log π_i/dη at η = 0 of the negative step; the positive step's rates are its minus.

    π_i − (‖π‖² − π(y)) for i ≠ y, and −((1 − π(y))² + Σ_{j≠y} π_j²) for y (claims SM-4, SM-8).
    """
    probs = logits.softmax(-1)
    others = _put(probs, labels, 0.0)
    own = -(others.sum(-1) ** 2 + (others**2).sum(-1))
    return _put(probs - squeezing_threshold(logits, labels)[..., None], labels, own)


def falling_set(
    logits: Float[Tensor, "batch vocab"], labels: Int[Tensor, " batch"], eta: float = 0.0
) -> Bool[Tensor, "batch vocab"]:
    """Return which labels other than y lose probability under a negative step of size η.

    `eta = 0` asks for the first-order answer.
    """
    if eta == 0:
        falls = negative_rates(logits, labels) < 0
    else:
        falls = log_prob_change(logits, negative_step(logits, labels, eta)) < 0
    return falls.scatter(-1, labels[..., None], False)


def captured_share(
    logits: Float[Tensor, "batch vocab"],
    displacement: Float[Tensor, "batch vocab"],
    labels: Int[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """Return the share (0 … 1) that y* gets of all probability gained; NaN if nothing moves."""
    gained = logits.softmax(-1) * torch.expm1(log_prob_change(logits, displacement)).clamp(min=0)
    return _at(gained, most_likely_other(logits, labels)) / gained.sum(-1)


def entropy(logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, " batch"]:
    """Return the entropy of π in nats."""
    each: Tensor = torch.special.entr(logits.softmax(-1))
    return each.sum(-1)


def _log_mean_exp(
    logits: Float[Tensor, "batch vocab"], shift: Float[Tensor, "batch vocab"]
) -> Float[Tensor, " batch"]:
    """Return log Σ_j π_j exp(shift_j), keeping the digits of a result near 0."""
    excess = (logits.softmax(-1) * torch.expm1(shift)).sum(-1)
    # Far from 0 (or beyond exp's range, where `excess` is inf or NaN) log-sum-exp loses nothing.
    far = torch.logsumexp(logits.log_softmax(-1) + shift, -1)
    return torch.where(excess.abs() < 0.5, torch.log1p(excess), far)


def _at(
    values: Float[Tensor, "batch vocab"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    return values.gather(-1, labels[..., None])[..., 0]


def _put(
    values: Float[Tensor, "batch vocab"],
    labels: Int[Tensor, " batch"],
    value: float | Float[Tensor, " batch"],
) -> Float[Tensor, "batch vocab"]:
    if isinstance(value, Tensor):
        return values.scatter(-1, labels[..., None], value[..., None])
    return values.scatter(-1, labels[..., None], value)
