"""Checks of log-probs, reference, loss and metrics: values and gradient at one point of training.

Away from the start three things are seen of each row: the loss, the logged log-probs and the logged
rewards. Which of them part from the independent scorer's tells what is wrong: all three, the
log-probs; loss and rewards, the reference; the loss alone, its formula; not the loss, the metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from squeeze.verify.families import LOGPS, REWARDS, Metrics
from squeeze.verify.scorer import gradient, moved
from squeeze.verify.subject import MOVED, Observed, TrainerSubject
from squeeze.verify.types import DoesNotApply, Measured, check

LOGPS_TOLERANCE = 1e-3  # nats, of a response's sum
LOSS_TOLERANCE = 1e-4  # relative, of losses above 1
GRADIENT_ROWS = 4  # whose gradients are looked at one by one
VANISHING = 1e-2  # of the largest gradient, below which one is measured against that
TOKENS = ("not-swapped", "prompt-masked", "whole-answer")


def relative(value: float, should: float) -> float:
    """How far a value is off, relative to it where it is above 1."""
    return abs(value - should) / max(1.0, abs(should))


def loss_away(
    subject: TrainerSubject,
    trainer: Any,
    change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    *,
    training: bool = True,
) -> float:
    """A trainer's loss of all its rows away from the start, the collated batch changed."""
    with moved(trainer.model, MOVED), torch.no_grad():
        loss, _ = subject.compute(trainer, subject.rows_of(trainer), change, training=training)
    return loss.item()


def compared(should: float, found: float, what: str) -> Measured:
    """How far one loss is off another; `what` says both, in this order, where it has {}."""
    return Measured(relative(found, should), what.format(f"{should:.6g}", f"{found:.6g}"))


def _off(logged: Metrics, should: Metrics, names: tuple[str, ...]) -> float:
    """The largest difference of the metrics of these names; 0 where none is logged."""
    both = [name for name in names if name in logged and name in should]
    return max((abs(logged[name] - should[name]) for name in both), default=0.0)


def _loss_off(seen: Observed) -> float:
    return relative(seen.loss, seen.expected_loss)


def _worst_loss(subject: TrainerSubject) -> Observed:
    return max(subject.observed, key=lambda seen: _nan_last(_loss_off(seen)))


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _logps_off(subject: TrainerSubject) -> float:
    return max(_off(o.logged, o.expected_logged, LOGPS) for o in subject.observed)


def _rewards_off(subject: TrainerSubject) -> float:
    """In nats of log-ratio: rewards are β times those."""
    beta = getattr(subject.args, "beta", 1.0) or 1.0
    return max(_off(o.logged, o.expected_logged, REWARDS) for o in subject.observed) / beta


def _loss_is_right(subject: TrainerSubject) -> bool:
    return _loss_off(_worst_loss(subject)) <= LOSS_TOLERANCE


def _right(subject: TrainerSubject, of: str) -> Measured:
    off = _loss_off(_worst_loss(subject))
    return Measured(off, f"the loss is that of the scorer's {of}, off by {off:.1g} of itself")


@check(
    "logps",
    TrainerSubject,
    standard="an answer's log-prob is the sum of its tokens' log-softmax, to 1e-3 nats (LD-3)",
    cure="the trainer's forward pass is not the model's: look at masks, at the shift of labels by "
    "one, at temperature, soft-capping and the type the logits are kept in",
    tolerance=LOGPS_TOLERANCE,
    needs=TOKENS,
)
def logps(subject: TrainerSubject) -> Measured:
    """Logged log-probs against the scorer's, where the loss is off as well."""
    off = _logps_off(subject)
    if _loss_is_right(subject):
        return _right(subject, "log-probs")
    if not any(name in o.logged for o in subject.observed for name in LOGPS):
        raise DoesNotApply("the trainer logs no log-probs, and its loss is off in some way")
    return Measured(off, f"log-prob of an answer off by {off:.3g} nats")


@check(
    "reference-logps",
    TrainerSubject,
    standard="the reference's log-probs are those of the model before training, on these data",
    cure="the reference is another model, or its cached log-probs are stale (of another model, "
    "other data, or 0): delete the cache, and pass the reference that you mean",
    tolerance=LOGPS_TOLERANCE,
    needs=("logps",),
)
def reference_logps(subject: TrainerSubject) -> Measured:
    """The reference that logged rewards imply, where the loss is off as well."""
    if not subject.family.has_reference:
        raise DoesNotApply("there is no reference")
    off = _rewards_off(subject)
    if _loss_is_right(subject):
        return _right(subject, "log-ratios")
    return Measured(off, f"log-ratio to the reference off by {off:.3g} nats")


@check(
    "initial-loss",
    TrainerSubject,
    standard="at policy = reference the loss is its closed form for any model and data: ln 2 for "
    "DPO, 1/(4τ²) for IPO, ... (DP-1)",
    cure="another loss is computed than the loss_type says, or the reference, label smoothing or "
    "β is dropped on the way",
    tolerance=LOSS_TOLERANCE,
    unit="relative",
    needs=("reference-logps",),
)
def initial_loss(subject: TrainerSubject) -> Measured:
    """The loss of every row at the start against the closed form."""
    if not subject.family.has_reference:
        raise DoesNotApply("without a reference the loss at the start depends on model and data")
    with torch.no_grad():
        values = [
            (
                subject.compute(subject.trainer, [subject.rows[i]])[0].item(),
                subject.closed_form([i]),
            )
            for i in subject.all_rows
        ]
    loss, should = max(values, key=lambda pair: _nan_last(relative(*pair)))
    found = f"loss at step 0: {loss:.6g}, closed form {should:.6g}"
    return Measured(relative(loss, should), found)


@check(
    "initial-rewards",
    TrainerSubject,
    standard="at policy = reference every reward and margin is 0 (DP-1)",
    cure="the logged rewards leave the reference out, or are of another model's",
    tolerance=1e-4,
    unit="reward",
    needs=("reference-logps",),
)
def initial_rewards(subject: TrainerSubject) -> Measured:
    """Logged rewards of a full batch at the start."""
    if not subject.family.has_reference:
        raise DoesNotApply("without a reference rewards at the start depend on model and data")
    with torch.no_grad():
        _, logged = subject.compute(subject.trainer, subject.rows)
    names = [n for n in (*REWARDS, "rewards/margins") if n in logged]
    if not names:
        raise DoesNotApply("the trainer logs no rewards")
    off = max(abs(logged[name]) for name in names)
    return Measured(off, f"largest logged reward at step 0: {off:.3g}")


@check(
    "initial-gradient",
    TrainerSubject,
    standard="the gradient is the declared loss's residual times the gradients of the answers' "
    "log-probs: Σ ∂L/∂s ∇s (LD-4)",
    cure="the value is right and what is differentiated is not: a detached term, a weight, a "
    "fused copy of the loss",
    tolerance=1e-3,
    unit="relative",
    needs=("logps", "initial-loss"),
)
def initial_gradient(subject: TrainerSubject) -> Measured:
    """The parameters' gradient at the start, of each of some rows, against the closed form."""
    seen = []
    for row in subject.all_rows[:GRADIENT_ROWS]:
        loss, _ = subject.compute(subject.trainer, [subject.rows[row]])
        found = gradient(loss, subject.trainer.model)
        seen.append((row, found, subject.expected_gradient([row], subject.args)))
    largest = max(float(should.norm()) for _, _, should in seen)
    if not largest > 0:
        raise DoesNotApply("the gradient at the start is 0")

    def off(found: torch.Tensor, should: torch.Tensor) -> float:
        # of a row whose gradient vanishes (equal answers) only rounding is left
        size = max(float(should.norm()), VANISHING * largest)
        return _nan_last(float((found - should).norm()) / size)

    row, found, should = max(seen, key=lambda one: off(*one[1:]))
    cosine = torch.cosine_similarity(found, should, dim=0).item()
    ratio = (found.norm() / should.norm()).item()
    what = f"length {ratio:.4f} of the theorem's, cosine {cosine:.5f}"
    return Measured(off(found, should), f"gradient at step 0, row {row + 1}: {what}")


def distance(found: torch.Tensor, should: torch.Tensor) -> float:
    """‖found − should‖ / ‖should‖."""
    return float((found - should).norm() / should.norm())


@check(
    "declared-loss",
    TrainerSubject,
    standard="away from the start too the loss is the declared function of the log-probs (DP-3)",
    cure="the formula agrees at policy = reference only: a clamped or rescaled margin, a wrong "
    "curvature, another normalisation",
    tolerance=LOSS_TOLERANCE,
    unit="relative",
    needs=("initial-gradient", "reference-logps"),
)
def declared_loss(subject: TrainerSubject) -> Measured:
    """Each row's loss after the weights were moved."""
    worst = _worst_loss(subject)
    off = _loss_off(worst)
    return Measured(off, f"loss off the start: {worst.loss:.6g}, formula {worst.expected_loss:.6g}")


@check(
    "logged-metrics",
    TrainerSubject,
    standard="logged log-probs, rewards, margins, accuracies and entropy are those of the answers "
    "alone",
    cure="metrics are averaged over padding or prompts, or taken from another pass: what is "
    "trained is right, what you watch is not",
    tolerance=LOGPS_TOLERANCE,
    unit="logged units",
    needs=("declared-loss", "initial-rewards"),
)
def logged_metrics(subject: TrainerSubject) -> Measured:
    """Every metric that the trainer logs and theory knows, single rows and a full batch."""
    batch = subject.observe(subject.all_rows)
    # where the batch's loss is off, which another check says, its metrics are off with it
    seen = [*subject.observed, *([batch] if _loss_off(batch) <= LOSS_TOLERANCE else [])]
    names = sorted({n for o in seen for n in o.expected_logged if n in o.logged})
    if not names:
        raise DoesNotApply("the trainer logs nothing that is known of answers")
    off = {name: max(_off(o.logged, o.expected_logged, (name,)) for o in seen) for name in names}
    worst = max(off, key=lambda name: off[name])
    return Measured(
        off[worst], f"{len(names)} metrics, the largest difference {worst}: {off[worst]:.3g}"
    )
