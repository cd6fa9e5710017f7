"""The checks of theorems SM-1 … SM-9: what a gradient step, or many, does to a softmax.

Each check takes the system under test (a step, a threshold, …) as an argument, so that its
counterfactual runs through the very same lines. The formulas are in `squeeze.theory.softmax`.
Signs are compared exactly where the formulas keep them, else up to the rounding bounds derived
there; no other tolerance appears. The claims' entries are in `softmax`, SM-5 in `softmax_trend`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.claims.situations import Situation, standard_situations
from squeeze.claims.types import Outcome, Verdict
from squeeze.theory import softmax as theory
from squeeze.theory.softmax import Step, combined_step, negative_step, positive_step

LABEL_PROBABILITIES = (1 - 1e-12, 0.999, 0.9, 0.5, 0.2, 0.1, 0.03, 0.01, 1e-3, 1e-6, 1e-12, 1e-30)


def pool(verdicts: Sequence[Verdict]) -> Verdict:
    """Return one theorem's verdict over all inputs that the given verdicts on it were taken over.

    Inputs of which the theorem says nothing count in no verdict's n; if none is left, it was not
    run. Raises `ValueError` for verdicts on several claims, or for none.
    """
    (claim,) = {verdict.claim for verdict in verdicts}
    tried = sum(verdict.n for verdict in verdicts)
    broken = [text for verdict in verdicts for text in verdict.evidence["counterexamples"]]
    if not tried:
        nothing = "no input met the theorem's conditions"
        return Verdict(claim, "toy", "not run", reason=nothing, evidence={"counterexamples": []})
    return Verdict(
        claim,
        "toy",
        "contradicted" if broken else "supported",
        statistic="share of inputs on which it holds",
        effect=1 - len(broken) / tried,
        bound=1.0,
        n=tried,
        evidence={"counterexamples": broken},
    )


def _on_all(
    claim: str,
    holds: Callable[[Situation], bool | None],
    situations: Iterable[Situation] | None,
) -> Verdict:
    """Try every situation; `holds` returns None where the theorem says nothing."""
    verdicts = []
    for situation in standard_situations() if situations is None else situations:
        held = holds(situation)
        evidence = {"counterexamples": [repr(situation)] if held is False else []}
        outcome: Outcome = "contradicted" if held is False else "supported"
        verdicts.append(Verdict(claim, "toy", outcome, n=int(held is not None), evidence=evidence))
    return pool(verdicts)


def check_pushed_down_label_falls(
    situations: Iterable[Situation] | None = None, *, step: Step = negative_step
) -> Verdict:
    """SM-1: log π'(y−) − log π(y−) < 0."""

    def holds(s: Situation) -> bool:
        moved = step(s.logits, s.labels, s.eta)
        return bool((theory.log_prob_change_at(s.logits, moved, s.labels) < 0).all())

    return _on_all("SM-1", holds, situations)


def check_most_likely_other_gains(
    situations: Iterable[Situation] | None = None, *, step: Step = negative_step
) -> Verdict:
    """SM-2: log π'(y*) − log π(y*) > 0."""

    def holds(s: Situation) -> bool:
        moved = step(s.logits, s.labels, s.eta)
        best = theory.most_likely_other(s.logits, s.labels)
        return bool((theory.log_prob_change_at(s.logits, moved, best) > 0).all())

    return _on_all("SM-2", holds, situations)


def check_rich_get_richer(
    situations: Iterable[Situation] | None = None, *, step: Step = negative_step
) -> Verdict:
    """SM-3: among i ≠ y−, log π'_i − log π_i increases with π_i, in order of π_i.

    Normalisation is common to all labels, so displacements are compared. Two neighbours whose
    logits differ by more than four times the relative error of a displacement must differ
    strictly; nearer ones may be swapped by rounding, by no more than that error.
    """

    def holds(s: Situation) -> bool | None:
        logits, moved = _others(s, s.logits), _others(s, step(s.logits, s.labels, s.eta))
        order = logits.argsort(-1)
        gaps, rises = logits[order].diff(), moved[order].diff()
        error = float(theory.relative_rounding(s.logits))
        told_apart = gaps > 4 * error
        if not told_apart.any():
            return None
        slack = 2 * error * moved[order].abs()[1:]
        return bool((rises[told_apart] > 0).all() and (rises >= -slack).all())

    return _on_all("SM-3", holds, situations)


def _rates_bracket(s: Situation, step: Step, rates: Float[Tensor, "1 vocab"]) -> bool:
    """0 ≤ rate_i − (log π'_i − log π_i)/η ≤ η·range(g)²/8 for i ≠ y, at every step size η.

    The change is ηg_i − log E_π exp(ηg): Jensen gives the left side, Hoeffding's lemma the right;
    at η → 0 they meet in the derivative. range(g) = 1 − π(y) + π(y*).
    """
    moved = step(s.logits, s.labels, s.eta)
    change = theory.log_prob_change(s.logits, moved)
    best = s.logits.softmax(-1)[0, theory.most_likely_other(s.logits, s.labels)]
    curvature = (theory.others_mass(s.logits, s.labels) + best) ** 2 / 8
    probs = s.logits.softmax(-1)
    # A rate is a sum of products of two probabilities: twice their relative error of its terms.
    terms = probs + (probs**2).sum() + probs[0, s.labels] + s.eta * curvature
    slack = theory.change_rounding(s.logits, moved) / s.eta
    slack = slack + 4 * theory.relative_rounding(s.logits) * terms
    lag = rates - change / s.eta
    fits = (lag >= -slack) & (lag <= s.eta * curvature + slack)
    return bool(_others(s, fits).all())


def check_squeezing_threshold(
    situations: Iterable[Situation] | None = None,
    *,
    step: Step = negative_step,
    threshold: Callable[[Tensor, Tensor], Tensor] = theory.squeezing_threshold,
) -> Verdict:
    """SM-4: d log π_i/dη = π_i − threshold for i ≠ y−, from the change at a finite step."""

    def holds(s: Situation) -> bool:
        rates = s.logits.softmax(-1) - threshold(s.logits, s.labels)[:, None]
        return _rates_bracket(s, step, rates)

    return _on_all("SM-4", holds, situations)


def hold_odds_fixed(
    others: Float[Tensor, " others"], label_probabilities: Float[Tensor, " family"]
) -> Float[Tensor, "family vocab"]:
    """Return logits with π(label 0) = p for each p, the others' relative odds as in `others`."""
    p = label_probabilities[:, None]
    rest = others.log_softmax(-1).expand(len(p), -1)
    return torch.cat([p.log() - torch.log1p(-p), rest], -1)


def check_unlikely_label_squeezes_more(
    situations: Iterable[Situation] | None = None,
    *,
    step: Step = negative_step,
    family: Callable[[Tensor, Tensor], Tensor] = hold_odds_fixed,
) -> Verdict:
    """SM-6: as π(y−) = p shrinks, a label that falls goes on falling, at every step size η.

    To first order it falls iff q_i < ‖q‖² − p(1 + ‖q‖²). A label whose change is smaller than its
    rounding bound is taken neither as falling nor as rising.
    """

    def holds(s: Situation) -> bool:
        p = torch.tensor(LABEL_PROBABILITIES, dtype=torch.float64)
        logits = family(_others(s, s.logits), p)
        labels = torch.zeros(len(p), dtype=torch.long)
        moved = step(logits, labels, s.eta)
        change = theory.log_prob_change(logits, moved)[:, 1:]
        error = theory.change_rounding(logits, moved)[:, 1:]
        fell_before = (change < -error).long().cummax(0).values.bool()
        squeezed = not (fell_before[:-1] & (change[1:] > error[1:])).any()

        q = _others(s, s.logits).softmax(-1)
        predicted = (q - (q**2).sum() + p[:, None] * (1 + (q**2).sum())) * (1 - p[:, None])
        terms = q + (q**2).sum() + p[:, None]
        rates = theory.negative_rates(logits, labels)[:, 1:]
        slack = 4 * theory.relative_rounding(logits)[:, None] * terms
        return squeezed and bool(((rates - predicted).abs() <= slack).all())

    return _on_all("SM-6", holds, situations)


def check_repeated_steps_end_one_hot(
    situations: Iterable[Situation] | None = None,
    *,
    steps: Sequence[Step] = (negative_step,),
    n_steps: int = 50,
) -> Verdict:
    """SM-7: after n steps log(π_i/π*) ≤ log(π_i/π*)(0) − n·η·speed_i with speed_i > 0 for i ≠ y*.

    speed_i = π*(0) − π_i(0), and 1 − π(y−)(0) + π*(0) for y−: odds against y* shrink at least
    geometrically, so π tends to one-hot on y* and the entropy to 0. (π* rises and π_i/π* falls at
    every step, so no speed ever falls.) Rounding: a step leaves each logit off by `error`, from the
    displacement's relative error, the addition and the recentring; that costs 2·error in the odds
    at once, and lowers later speeds by at most 4·error each (`drift`).
    """

    def holds(s: Situation) -> bool | None:
        logits, labels = s.logits, s.labels
        best = theory.most_likely_other(logits, labels)
        probs = logits.softmax(-1)
        # The gap π* − π_i by expm1, so that a near tie keeps its digits.
        speed = probs[:, best] * -torch.expm1(logits - logits[:, best])
        speed[:, labels] = theory.others_mass(logits, labels) + probs[:, best]
        others = torch.arange(logits.shape[-1]) != best
        if not (speed[:, others] > 0).all():
            return None  # several labels tie for y* and share the limit
        odds = logits - logits[:, best]
        u = torch.finfo(logits.dtype).eps / 2
        slack = drift = torch.zeros(1, dtype=torch.float64)
        before = logits
        for n, after in enumerate(theory.iterate_steps(logits, labels, s.eta, n_steps, steps), 1):
            size = torch.maximum(before.abs().amax(), after.abs().amax()) + s.eta
            error = s.eta * theory.relative_rounding(before) + 4 * u * size
            before = after
            slack = slack + 2 * error + s.eta * drift
            drift = drift + 4 * error
            ceiling = odds - n * s.eta * speed
            if ((after - after[:, best]) > ceiling + slack)[:, others].any():
                return False
        left_over = float((ceiling + slack)[:, others].exp().sum())
        return _is_one_hot(after, best, left_over)

    return _on_all("SM-7", holds, situations)


def _is_one_hot(
    logits: Float[Tensor, "1 vocab"], best: Int[Tensor, " 1"], left_over: float
) -> bool:
    """Whether all but at most `left_over` of the mass, and the entropy that leaves, sits on best.

    Entropy is at most that of mass ε spread evenly over the rest: h(ε) + ε log(V − 1). Nothing is
    asked while ε > 1/2. Rounding: ε, an exponential, is off by u times its exponent; −π log π of a
    π that is off by the factor 1 + r by r·π(1 + |log π|), so an entropy H by r(1 + H). That is an
    absolute error: near one-hot it is more than H itself.
    """
    if left_over > 0.5:
        return True
    rounding = float(theory.relative_rounding(logits))
    eps = torch.tensor(left_over, dtype=torch.float64)
    eps = eps * (1 + 4 * rounding * (1 + logits.abs().amax()))
    most = torch.special.entr(eps) + torch.special.entr(1 - eps)
    most = most + eps * torch.tensor(logits.shape[-1] - 1.0, dtype=torch.float64).log()
    rest = float(theory.others_mass(logits, best))
    entropy = float(theory.entropy(logits))
    return rest <= float(eps) and entropy <= float(most + 4 * rounding * (1 + most))


def check_positive_step_mirrors(
    situations: Iterable[Situation] | None = None, *, step: Step = positive_step
) -> Verdict:
    """SM-8: d log π_i/dη = (‖π‖² − π(y+)) − π_i for i ≠ y+, from the change at a finite step."""

    def holds(s: Situation) -> bool:
        rates = theory.squeezing_threshold(s.logits, s.labels)[:, None] - s.logits.softmax(-1)
        return _rates_bracket(s, step, rates)

    return _on_all("SM-8", holds, situations)


def check_same_context_cancels(
    situations: Iterable[Situation] | None = None,
    *,
    step: Callable[[Tensor, Tensor, Tensor, float], Tensor] = combined_step,
) -> Verdict:
    """SM-9: no odds among labels other than y+ and y− change; y+ gains and y− loses.

    No tolerance: a + (−a) is 0 in floating point, too.
    """

    def holds(s: Situation) -> bool | None:
        if s.vocab < 4:
            return None  # fewer than two labels besides y+ and y−: no odds to keep
        chosen = (s.labels + 1) % s.vocab
        moved = step(s.logits, chosen, s.labels, s.eta)
        bystanders = torch.ones(s.vocab, dtype=torch.bool)
        bystanders[[int(chosen), int(s.labels)]] = False
        kept = moved[:, bystanders]
        gained = theory.log_prob_change_at(s.logits, moved, chosen) > 0
        lost = theory.log_prob_change_at(s.logits, moved, s.labels) < 0
        return bool((kept == kept[:, :1]).all() and gained.all() and lost.all())

    return _on_all("SM-9", holds, situations)


def _others(s: Situation, values: Tensor) -> Tensor:
    """Return the values [1, vocab] of all labels but the pushed one, as [vocab − 1]."""
    return values[0, torch.arange(s.logits.shape[-1]) != s.labels]
