"""Theorems SM-1 to SM-4 and SM-6 to SM-9: what a gradient step, or many, does to a softmax.

Each check takes the system under test (inputs, a step, a threshold, …), so that its counterfactual
runs through the very same lines. The formulas are in `squeeze.theory.softmax`.
Signs are compared exactly where the formulas keep them, else up to the rounding bounds derived
there; no other tolerance appears. SM-5, a trend, is in `softmax_trend`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from squeeze.claims.catalogue import claim
from squeeze.claims.situations import Situation, Softmax, standard_situations
from squeeze.claims.types import Outcome, Verdict
from squeeze.theory import softmax as theory
from squeeze.theory.softmax import Step, negative_step, positive_step

SOURCE = "Ren & Sutherland, arXiv 2407.10490, §3.3 and appendix E"
TESTS = "pytest tests/theory/test_softmax.py -k"
HOLDS = "share of inputs on which it holds"

LABEL_PROBABILITIES = (1 - 1e-12, 0.999, 0.9, 0.5, 0.2, 0.1, 0.03, 0.01, 1e-3, 1e-6, 1e-12, 1e-30)


def pool(verdicts: Sequence[Verdict]) -> Verdict:
    """Return one theorem's verdict over all inputs that the given verdicts on it were taken over.

    Inputs of which the theorem says nothing count in no verdict's n; if none is left, it was not
    run. Raises `ValueError` for verdicts on several claims, or for none.
    """
    (id,) = {verdict.claim for verdict in verdicts}
    tried = sum(verdict.n for verdict in verdicts)
    broken = [text for verdict in verdicts for text in verdict.evidence["counterexamples"]]
    if not tried:
        nothing = "no input met the theorem's conditions"
        return Verdict(id, "toy", "not run", reason=nothing, evidence={"counterexamples": []})
    return Verdict(
        id,
        "toy",
        "contradicted" if broken else "supported",
        statistic=HOLDS,
        effect=1 - len(broken) / tried,
        bound=1.0,
        n=tried,
        evidence={"counterexamples": broken},
    )


def _on_all(
    id: str,
    holds: Callable[[Situation], bool | None],
    situations: Iterable[Situation] | None,
) -> Verdict:
    """Try every situation; `holds` returns None where the theorem says nothing."""
    verdicts = []
    for situation in standard_situations() if situations is None else situations:
        held = holds(situation)
        evidence = {"counterexamples": [repr(situation)] if held is False else []}
        outcome: Outcome = "contradicted" if held is False else "supported"
        verdicts.append(Verdict(id, "toy", outcome, n=int(held is not None), evidence=evidence))
    return pool(verdicts)


@claim(
    "SM-1",
    sentence="A negative gradient lowers the probability of the label it pushes down.",
    source=SOURCE,
    kind="theorem",
    levels=("toy",),
    counterfactual="positive gradient on y−",
    primary=HOLDS,
    math="π'(y−) < π(y−), for every η > 0 and every π with 0 < π(y−) < 1",
    run=f"{TESTS} pushed_down_label",
)
def check_pushed_down_label_falls(system: Softmax) -> Verdict:
    """SM-1: log π'(y−) − log π(y−) < 0."""

    step = system.step or negative_step

    def holds(s: Situation) -> bool:
        moved = step(s.logits, s.labels, s.eta)
        return bool((theory.log_prob_change_at(s.logits, moved, s.labels) < 0).all())

    return _on_all("SM-1", holds, system.situations)


@claim(
    "SM-2",
    sentence="The most likely label other than y−, y*, gains probability.",
    source=SOURCE,
    kind="theorem",
    levels=("toy",),
    counterfactual="positive gradient on y−",
    primary=HOLDS,
    math="π'(y*) > π(y*), for every η > 0; each of several tied y* gains, and y* need not be "
    "the most likely of all labels",
    run=f"{TESTS} most_likely_other",
)
def check_most_likely_other_gains(system: Softmax) -> Verdict:
    """SM-2: log π'(y*) − log π(y*) > 0."""

    step = system.step or negative_step

    def holds(s: Situation) -> bool:
        moved = step(s.logits, s.labels, s.eta)
        best = theory.most_likely_other(s.logits, s.labels)
        return bool((theory.log_prob_change_at(s.logits, moved, best) > 0).all())

    return _on_all("SM-2", holds, system.situations)


@claim(
    "SM-3",
    sentence="Rich get richer: among the other labels, the likelier gains more in ratio.",
    source=SOURCE,
    kind="theorem",
    levels=("toy",),
    counterfactual="uniform redistribution of y−'s lost mass",
    primary=HOLDS,
    math="π_i > π_j ⇒ π'_i/π_i > π'_j/π_j, i, j ≠ y−, for every η > 0; tied labels stay tied",
    run=f"{TESTS} rich_get_richer",
)
def check_rich_get_richer(system: Softmax) -> Verdict:
    """SM-3: among i ≠ y−, log π'_i − log π_i increases with π_i, in order of π_i.

    Normalisation is common to all labels, so displacements are compared. Two neighbours whose
    logits differ by more than four times the relative error of a displacement must differ
    strictly; nearer ones may be swapped by rounding, by no more than that error.
    """

    step = system.step or negative_step

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

    return _on_all("SM-3", holds, system.situations)


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


@claim(
    "SM-4",
    sentence="To first order in η the labels below ‖π‖² − π(y−) fall and those above it rise.",
    source=SOURCE,
    kind="theorem",
    levels=("toy",),
    counterfactual="threshold computed without the −π(y−) term",
    primary=HOLDS,
    math="d log π_i/dη = π_i − (‖π‖² − π(y−)) at η = 0, i ≠ y−. At a finite step the "
    "change lags behind η times that by 0 to η²(1 − π(y−) + π(y*))²/8: labels at or below the "
    "threshold fall at every η, those above it rise only while η is small. So 'if π(y−) ≥ "
    "‖π‖² nobody else falls' holds to first order only",
    run=f"{TESTS} threshold",
)
def check_squeezing_threshold(system: Softmax) -> Verdict:
    """SM-4: d log π_i/dη = π_i − threshold for i ≠ y−, from the change at a finite step."""

    step = system.step or negative_step

    def holds(s: Situation) -> bool:
        rates = s.logits.softmax(-1) - system.threshold(s.logits, s.labels)[:, None]
        return _rates_bracket(s, step, rates)

    return _on_all("SM-4", holds, system.situations)


@claim(
    "SM-6",
    sentence="A less likely y− squeezes more: the falling set only grows as π(y−) shrinks.",
    source=SOURCE,
    kind="theorem",
    levels=("toy",),
    counterfactual="the others' odds not held fixed: they flatten as π(y−) shrinks",
    primary=HOLDS,
    math="with q = π/(1 − p) on i ≠ y− fixed and p = π(y−): i falls at first order iff "
    "q_i < ‖q‖² − p(1 + ‖q‖²). The set grows at every finite η, too: the threshold "
    "log E exp(aX)/a on q_i, X = −1 with probability p, else q, a = η(1 − p), falls in p and "
    "rises in a",
    run=f"{TESTS} unlikely_label",
)
def check_unlikely_label_squeezes_more(system: Softmax) -> Verdict:
    """SM-6: as π(y−) = p shrinks, a label that falls goes on falling, at every step size η.

    To first order it falls iff q_i < ‖q‖² − p(1 + ‖q‖²). A label whose change is smaller than its
    rounding bound is taken neither as falling nor as rising.
    """

    step = system.step or negative_step

    def holds(s: Situation) -> bool:
        p = torch.tensor(LABEL_PROBABILITIES, dtype=torch.float64)
        logits = system.family(_others(s, s.logits), p)
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

    return _on_all("SM-6", holds, system.situations)


@claim(
    "SM-7",
    sentence="Repeated negative gradients drive π to one-hot on y* and its entropy to 0.",
    source=SOURCE,
    kind="theorem",
    levels=("toy",),
    counterfactual="positive and negative steps in turn",
    primary=HOLDS,
    math="if y* is unique: π_i/π* after n steps ≤ (π_i/π*)(0)·exp(−nη(π* − π_i)(0)), i ≠ y−, "
    "and ≤ (π_i/π*)(0)·exp(−nη(1 − π(y−) + π*)(0)) for y−. Tied y* share the limit evenly, and "
    "the entropy's way to 0 need not be monotone",
    run=f"{TESTS} one_hot",
)
def check_repeated_steps_end_one_hot(system: Softmax) -> Verdict:
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
        for n, after in enumerate(
            theory.iterate_steps(logits, labels, s.eta, system.n_steps, system.steps), 1
        ):
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

    return _on_all("SM-7", holds, system.situations)


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


@claim(
    "SM-8",
    sentence="The positive gradient is the mirror: labels below ‖π‖² − π(y+) rise.",
    source=SOURCE,
    kind="theorem",
    levels=("toy",),
    counterfactual="negative gradient",
    primary=HOLDS,
    math="d log π_i/dη = (‖π‖² − π(y+)) − π_i at η = 0, i ≠ y+, lagging by at most "
    "η(1 − π(y+) + π(y*))²/8. It brings the others' odds nearer to 1 for η ≤ 4/(1 − π(y+)); a "
    "larger step can overshoot and reverse them",
    run=f"{TESTS} positive",
)
def check_positive_step_mirrors(system: Softmax) -> Verdict:
    """SM-8: d log π_i/dη = (‖π‖² − π(y+)) − π_i for i ≠ y+, from the change at a finite step."""

    step = system.step or positive_step

    def holds(s: Situation) -> bool:
        rates = theory.squeezing_threshold(s.logits, s.labels)[:, None] - s.logits.softmax(-1)
        return _rates_bracket(s, step, rates)

    return _on_all("SM-8", holds, system.situations)


@claim(
    "SM-9",
    sentence="Chosen and rejected pushed equally in one context: the others keep their odds.",
    source=SOURCE,
    kind="theorem",
    levels=("toy",),
    counterfactual="chosen and rejected in different contexts",
    primary=HOLDS,
    math="z' = z + η(e_{y+} − e_{y−}): π'_i/π'_j = π_i/π_j for i, j ∉ {y+, y−}; y+ gains, y− "
    "loses. The others move by one common factor, down iff π(y+)e^η > π(y−)",
    run=f"{TESTS} same_context",
)
def check_same_context_cancels(system: Softmax) -> Verdict:
    """SM-9: no odds among labels other than y+ and y− change; y+ gains and y− loses.

    No tolerance: a + (−a) is 0 in floating point, too.
    """

    step = system.pair_step

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

    return _on_all("SM-9", holds, system.situations)


def _others(s: Situation, values: Tensor) -> Tensor:
    """Return the values [1, vocab] of all labels but the pushed one, as [vocab − 1]."""
    return values[0, torch.arange(s.logits.shape[-1]) != s.labels]
