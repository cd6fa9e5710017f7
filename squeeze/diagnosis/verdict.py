"""The verdicts on pairs and the rules that lead to them; see docs/diagnosis.md for the definitions.

Works on `RunSeries`, whatever they come from: a log, a trajectory, a pair of checkpoints. Pure:
same series, same verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from squeeze.diagnosis import consistency
from squeeze.diagnosis import series as q
from squeeze.diagnosis.movements import (
    MOVE_P,
    SHORT,
    Direction,
    Evidence,
    direction,
    evidence,
    fall_p,
    margin_direction,
    unit,
)
from squeeze.diagnosis.other_trainings import nothing_to_judge, of_method
from squeeze.diagnosis.rollouts import SAMPLED, judge_rollouts
from squeeze.diagnosis.series import Finding, RunSeries, Series
from squeeze.diagnosis.severity import VERDICTS, Name, worst
from squeeze.diagnosis.trend import FEWEST, Change, Fit
from squeeze.diagnosis.view import MATERIAL_REWARD, PER_TOKEN_BELOW, Measured, View, both, view
from squeeze.errors import InputError

EARLY_SHARE = 1 / 3  # a fall below this share of the rise before it is "early"
LEVEL_SHARE = 0.1  # below this share the end counts as level with the peak
COLLAPSE_SHARE = 0.05  # argmax must fall by this share of its level, and chosen of its own
HARDLY_SHARE = 0.05  # of chosen's fall: a margin that grows by less tells nothing apart
COLLAPSE_NATS, COLLAPSE_REWARD = 2.0, 0.3  # chosen must fall by so much besides
NOISE_SHARE = 0.05  # a fall of this share of the level must be excluded to say "healthy"
NOISE_OF_MOVEMENT = 0.25  # the same for rewards: of the largest movement
REPETITION_RISE = 0.1  # of all n-grams


@dataclass(frozen=True)
class SplitVerdict:
    """The verdict on one split, the one sentence behind it, and what weakens it.

    `advice` names what the split's own numbers ask for first: "stronger" (it learns slowly) or
    "labels" (they seem to be swapped).
    """

    split: str
    verdict: Name
    reason: str
    cautions: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    notes: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The verdict on a run; `split` is the one that decided it, `missing` what would tell more.

    `findings` are what is certain or inconsistent in the log, before any verdict.
    """

    run: RunSeries
    verdict: Name
    split: str
    reason: str
    splits: tuple[SplitVerdict, ...] = ()
    missing: tuple[str, ...] = ()
    cautions: tuple[str, ...] = field(default=())
    findings: tuple[Finding, ...] = ()
    advice: str = ""


def require_beta(beta: float | None) -> None:
    """Raise `InputError` for a β that no training has: rewards at it would be no numbers."""
    if beta is not None and not 1e-6 <= beta <= 1e6:
        raise InputError(f"--beta must be between 1e-06 and 1e+06, not {beta:g}")


def diagnose(run: RunSeries, *, beta: float | None = None) -> Diagnosis:
    """Return the verdict on a run; `beta` converts rewards to nats where the log does not tell.

    Raises `InputError` as `require_beta`.

    >>> from pathlib import Path
    >>> from squeeze import diagnose, load
    >>> lines = [f'{{"step": {n}, "rewards/chosen": {-n}, "rewards/rejected": {-3 * n}}}'
    ...          for n in range(12)]
    >>> size = Path("log.jsonl").write_text("\\n".join(lines))
    >>> (run,) = load(Path("log.jsonl"))
    >>> diagnose(run).verdict in ("displacement", "squeezing", "collapse")
    True
    """
    require_beta(beta)
    findings = consistency.check(run, beta)
    splits = run.splits() or list(dict.fromkeys(s.split for s in run.series))
    views = [view(run, split, beta, findings) for split in splits]
    judged = [judge(v) for v in views if v.chosen is not None or v.margin is not None]
    missing = _missing(views)
    if run.method in SAMPLED:
        probed = [_lazy(j) for j in judged if _of_probe(run, j.split)]
        if probed or run.method == "grpo":
            return _sampled(run, probed, missing, findings)
    if not judged or run.method.startswith(q.REWARD_MODEL):
        name, reason = _lead("undetermined", nothing_to_judge(run), findings)
        return Diagnosis(run, name, "", reason, (), missing, of_method(run), findings)
    decided = _deciding(judged)
    others = [
        f"on the {_called(j.split)} split: {j.verdict} ({j.reason})"
        for j in judged
        if j is not decided
    ]
    name, reason = _lead(decided.verdict, decided.reason, findings)
    if name == "healthy" and run.method == "online dpo":
        name = "undetermined"  # its curves compare different texts
    cautions = tuple(dict.fromkeys((*decided.cautions, *others, *of_method(run))))
    return Diagnosis(
        run,
        name,
        decided.split,
        reason,
        tuple(judged),
        missing,
        cautions,
        findings,
        decided.advice if name == decided.verdict else "",
    )


def _sampled(
    run: RunSeries,
    probed: list[SplitVerdict],
    missing: tuple[str, ...],
    findings: tuple[Finding, ...],
) -> Diagnosis:
    """The verdict on a training that samples its answers: the worse of rollouts and probe.

    Without a probe nothing is healthy, as a log of samples does not show where right answers go.
    """
    samples = judge_rollouts(run)
    if not probed:
        name: Name = "undetermined" if samples.verdict == "healthy" else samples.verdict
        reason = samples.reason
        if name == "undetermined":
            reason += f"; {nothing_to_judge(run)}"
        name, reason = _lead(name, reason, findings)
        return Diagnosis(run, name, "", reason, (), missing, samples.cautions, findings)
    decided = _deciding(probed)
    cautions = tuple(dict.fromkeys((*decided.cautions, *samples.cautions)))
    name, split, reason = decided.verdict, decided.split, decided.reason
    if (
        samples.verdict not in ("healthy", "undetermined")
        and worst((name, samples.verdict)) != name
    ):
        cautions = (f"on the probe: {name} ({reason})", *cautions)
        name, split, reason = samples.verdict, "", samples.reason
    name, reason = _lead(name, reason, findings)
    rows = tuple(probed)
    return Diagnosis(run, name, split, reason, rows, missing, cautions, findings, decided.advice)


def _of_probe(run: RunSeries, split: str) -> bool:
    """Whether a split is of fixed answers, not of those that a training samples."""
    return split.startswith("probe") or any(
        s.examples is not None for s in run.series if s.split == split
    )


def _lazy(judged: SplitVerdict) -> SplitVerdict:
    """A probe's verdict in the words of sampled trainings: chosen are right answers.

    Lazy displacement: they fall, or do not gain while the wrong answers fall (margin grows).
    """
    if judged.verdict in ("displacement", "squeezing"):
        return replace(judged, verdict="lazy displacement")
    level = {e.role: e.direction for e in judged.evidence}
    if (
        judged.verdict == "healthy"
        and level["chosen"] != "rises"
        and level.get("margin") == "rises"
    ):
        reason = "the right answers do not gain while the wrong ones fall"
        return replace(judged, verdict="lazy displacement", reason=f"{judged.reason}; {reason}")
    return judged


def _lead(name: Name, reason: str, findings: tuple[Finding, ...]) -> tuple[Name, str]:
    """What is certain leads: a divergence decides.

    Another reference, no loss, columns that are each other's or the same, and a log-prob that falls
    while its reward rises are never healthy.
    A log that is saturated from its first line on shows neither health nor a lack of learning.
    """
    leading = [f for f in findings if f.kind in consistency.LEADING]
    kinds = {f.kind for f in leading}
    unseen = any(f.kind == "saturated" and f.where for f in findings)
    good = ("healthy", "no learning") if unseen else ("healthy",)
    if "diverged" in kinds:
        name = "collapse"
    elif name in good and (unseen or kinds & {"reference", "no loss"}):
        name = "undetermined"
    elif name == "healthy":
        doubtful = [
            f
            for f in findings
            if f.kind in ("swapped", "direction") or (f.kind == "copies" and f.where)
        ]
        name, leading = ("undetermined", doubtful) if doubtful else (name, leading)
    return name, "; ".join([*dict.fromkeys(f.what for f in leading), reason])


def _deciding(judged: list[SplitVerdict]) -> SplitVerdict:
    """The worst split that is determined; one split that learns refutes "no learning"."""
    determined = [j for j in judged if j.verdict != "undetermined"]
    learning = [j for j in determined if j.verdict != "no learning"]
    return max(
        learning or determined or judged,
        key=lambda j: (VERDICTS.index(j.verdict), max((e.n for e in j.evidence), default=0)),
    )


# --- one split --------------------------------------------------------------------------------


def judge(v: View) -> SplitVerdict:
    """Return the verdict on one split."""
    name, reason, cautions = _rule(v)
    advice, rows = _advice(v, name), tuple(evidence(v))
    return SplitVerdict(v.split, name, reason, tuple(cautions), rows, v.notes, advice)


def _rule(v: View) -> tuple[Name, str, list[str]]:
    if v.chosen is None:
        return "undetermined", "the log has margins but not where the chosen answers go", []
    n = v.chosen.fit.n
    if not v.chosen.fit.known_noise or n < 2:
        lines = "1 evaluation" if n == 1 else f"{n} evaluations"
        return (
            "undetermined",
            f"{lines} cannot show a trend; at least {FEWEST} are needed, better {SHORT} or more",
            _against_reference(v.chosen),
        )
    degenerate = _degenerate(v)
    if degenerate:
        return "collapse", degenerate, []
    fall, rise = v.chosen.fit.fall(), v.chosen.fit.rise()
    threshold = v.threshold(v.chosen)
    rose = rise.p <= MOVE_P and rise.effect >= threshold
    fell = fall.p <= fall_p(n) and -fall.effect >= threshold
    if fell and not (rose and -fall.effect < LEVEL_SHARE * rise.effect):
        peak = float(v.chosen.fit.steps[v.chosen.fit.peak])
        return _fallen(v, fall, rise if rose else None, peak)
    plateau = _plateau(v.chosen.fit, n, threshold)
    if plateau is not None and not rose:
        return _fallen(v, plateau, None, -np.inf)
    return _not_fallen(v, fall)


def _against_reference(chosen: Measured) -> list[str]:
    """Where the last of a few rewards of one set stands, as the reference is known exactly."""
    last = float(chosen.series.values[-1])
    if (
        chosen.anchor is None
        or chosen.series.batches
        or abs(last - chosen.anchor) < MATERIAL_REWARD
    ):
        return []
    where = "below" if last < chosen.anchor else "above"
    return [
        f"chosen ends at {last:.3g}, {where} the reference's {chosen.anchor:.3g}, which is exact; "
        "how sure that is of other prompts is not known"
    ]


def _plateau(f: Fit, n: int, threshold: float) -> Change | None:
    """A fall from the start onto a noisy plateau, whose mean is surer than its last value."""
    level = f.level_change()
    below = -level.effect >= threshold and -f.change().effect >= threshold
    return level if below and level.p <= fall_p(n) / 2 else None


def _fallen(
    v: View, fall: Change, rise: Change | None, since: float
) -> tuple[Name, str, list[str]]:
    """Chosen falls; what else happens since its peak says which kind of fall it is."""
    assert v.chosen is not None
    argmax = direction(v, v.argmax, since)
    rejected, margin = direction(v, v.rejected, since), margin_direction(v, since)
    if any(f.kind == "copies" for f in v.findings):
        rejected = margin = None  # one of both columns is not what it says
    chosen = _sentence("chosen", fall, v.chosen, rise is not None)
    if v.phase == "sft" or (v.phase == "" and rise is not None and _looks_like_sft(v)):
        return (
            "undetermined",
            f"{chosen} in an SFT run: overfitting, if these prompts are held out, and divergence, "
            "if they are trained on; the verdicts on preference runs do not apply",
            [],
        )
    if rise is not None and -fall.effect < EARLY_SHARE * rise.effect:
        turned = f"{chosen}, {-fall.effect / rise.effect:.0%} of what it had gained"
        cautions = ["argmax rises: squeezing has begun"] if argmax == "rises" else []
        return "early", turned, cautions
    if margin == "falls" and rejected == "rises":
        return (
            "no learning",
            f"{chosen} while rejected rises: the preference is learned the wrong way round",
            ["check whether chosen and rejected are swapped, in the data or in the columns"],
        )
    if argmax == "rises":
        return "squeezing", f"{chosen} while argmax rises", _margin_caution(margin)
    collapse = _collapse(v, fall, since, argmax, rejected, margin)
    if collapse:
        return "collapse", f"{chosen}, {collapse}", []
    return _displaced(v, chosen, argmax, margin)


def _collapse(
    v: View,
    fall: Change,
    since: float,
    argmax: Direction | None,
    rejected: Direction | None,
    margin: Direction | None,
) -> str:
    """How the run loses likelihood everywhere, if it does; "" for a smaller or a partial loss."""
    assert v.chosen is not None
    level = abs(v.chosen.level or 0.0)
    nats = max(COLLAPSE_SHARE * level, COLLAPSE_NATS if level > PER_TOKEN_BELOW else 0.0)
    large = nats if v.chosen.unit == "nats" or level else COLLAPSE_REWARD
    others = [m for m in v.extra if m.series.quantity.startswith(q.OTHER)]
    rising = [m for m in others if m.fit.known_noise and both(m.fit.change()) <= MOVE_P]
    if -fall.effect < large or any(m.fit.change().effect > 0 for m in rising):
        return ""
    if argmax == "falls" and rejected in ("falls", None) and _argmax_collapses(v, since):
        too = " and every other kind of answer" if others else ""
        return "and argmax" + (", rejected" if rejected else "") + f"{too} with it"
    if rejected == "falls" and (margin in ("level", "falls") or _hardly_grows(v, fall)):
        grows = "hardly grows" if margin == "rises" else "does not grow"
        return f"rejected falls with it and the margin {grows}"
    return ""


def _displaced(
    v: View, chosen: str, argmax: Direction | None, margin: Direction | None
) -> tuple[Name, str, list[str]]:
    cautions = _margin_caution(margin)
    if argmax is None:
        has = (
            "cannot be used" if any(f.kind == "argmax" for f in v.findings) else "is not in the log"
        )
        cautions.append(
            f"argmax {has}, so where the mass went is unknown: displacement is certain, "
            "squeezing is possible" + _entropy_hint(v)
        )
    elif argmax == "unclear":
        cautions.append("argmax is too noisy to say whether it rises: squeezing is possible")
    grown = " while the margin grows" if margin == "rises" else ""
    not_up = ", and argmax does not rise" if argmax in ("level", "falls") else ""
    return "displacement", f"{chosen}{grown}{not_up}", cautions


def _not_fallen(v: View, fall: Change) -> tuple[Name, str, list[str]]:
    assert v.chosen is not None
    chosen = direction(v, v.chosen, -np.inf)
    margin = margin_direction(v, -np.inf)
    slow = _slowly(v, margin)
    if chosen == "rises":
        # Where the preference is not what is trained (SFT), the margin may do as it likes.
        if margin == "falls" and v.has_rewards:
            return (
                "no learning",
                "the margin falls: rejected rises more than chosen",
                ["check whether chosen and rejected are swapped, in the data or in the columns"],
            )
        return "healthy", f"chosen rises and has not turned{_shown(v)}", slow
    limit = _noise_limit(v)
    assert fall.interval is not None  # else `_rule` has ended
    hidden = max(-fall.interval[0], v.chosen.fit.detectable(fall_p(v.chosen.fit.n)) / 2)
    if hidden > limit and not slow:
        return (
            "undetermined",
            f"chosen is too noisy ({v.chosen.fit.n} values): a fall of up to {hidden:.3g} "
            f"{unit(v.chosen)} cannot be told from none",
            [],
        )
    if v.phase != "sft" and margin in ("level", "falls") and not slow:
        cautions = []
        if margin == "falls":
            cautions = ["the margin falls: check whether chosen and rejected are swapped"]
        return "no learning", "neither chosen nor the margin moves", cautions
    cautions = slow or ([] if margin == "rises" else ["whether the margin grows is not known"])
    return "healthy", f"chosen is level{_shown(v)}", cautions


def _shown(v: View) -> str:
    """The fall that the log could have shown, as "healthy" says no more than that."""
    assert v.chosen is not None
    least = max(v.chosen.fit.detectable(fall_p(v.chosen.fit.n)), v.threshold(v.chosen))
    whose = "these training batches" if v.chosen.series.batches else "this log"
    return (
        f": no fall that {whose} could show, which is one of {least:.2g} {unit(v.chosen)} or more"
    )


def _slowly(v: View, margin: Direction | None) -> list[str]:
    """What says that a run learns though its margin has not grown by what matters; else []."""
    if margin == "rises" or v.margin is None or not v.margin.fit.known_noise:
        return []
    grown = v.margin.fit.change()
    if grown.effect <= 0 or max(both(grown), both(v.margin.fit.level_change())) > MOVE_P:
        return []
    return [
        f"it learns slowly: the margin has grown by {grown.effect:.2g} {unit(v.margin)} only"
        f"{_accuracies(v)}; raise the learning rate, or train longer"
    ]


def _accuracies(v: View) -> str:
    series = _accuracy(v)
    if series is None:
        return ""
    return f", the accuracy from {series.values[0]:.3g} to {series.values[-1]:.3g}"


def _accuracy(v: View) -> Series | None:
    return next((m.series for m in v.extra if m.series.quantity == q.ACCURACY), None)


def _advice(v: View, name: Name) -> str:
    """What comes first: a learning rate where the accuracy is above ½, labels where it is below."""
    if name == "healthy":
        return (
            "stronger" if v.chosen is not None and _slowly(v, margin_direction(v, -np.inf)) else ""
        )
    if name != "no learning":
        return ""
    series = _accuracy(v)
    if series is not None and len(series) >= FEWEST:
        late = series.values[len(series) // 2 :]
        return "labels" if float(np.median(late)) < 0.5 else "stronger"
    return "labels" if margin_direction(v, -np.inf) == "falls" else "stronger"


# --- parts of the rules ---------------------------------------------------------------------------


def _margin_caution(margin: Direction | None) -> list[str]:
    if margin is None:
        return ["rejected is not in the log, so whether the margin grows is not known"]
    if margin == "unclear":
        return ["the margin is too noisy to say whether it grows"]
    return []


def _looks_like_sft(v: View) -> bool:
    """Without rewards, chosen and rejected rising together mean that neither is pushed down."""
    return not v.has_rewards and direction(v, v.rejected, -np.inf) == "rises"


def _hardly_grows(v: View, fall: Change) -> bool:
    """Whether the margin grows by next to nothing of what both sides lose."""
    if v.margin is None or not v.margin.fit.known_noise:
        return False
    return v.margin.fit.change().effect < HARDLY_SHARE * -fall.effect


def _argmax_collapses(v: View, since: float) -> bool:
    assert v.argmax is not None
    change = v.argmax.fit.change(v.argmax.fit.index(since))
    return -change.effect >= COLLAPSE_SHARE * abs(v.argmax.level or 0.0)


def _noise_limit(v: View) -> float:
    assert v.chosen is not None
    if v.chosen.unit == "reward" and v.chosen.level is None:
        return max(NOISE_OF_MOVEMENT * v.movement, 0.1)
    return max(NOISE_SHARE * abs(v.chosen.level or 0.0), v.threshold(v.chosen))


def _degenerate(v: View) -> str:
    for extra in v.extra:
        if extra.series.quantity == q.REPETITION and extra.fit.known_noise:
            change = extra.fit.change()
            if both(change) <= MOVE_P and change.effect >= REPETITION_RISE:
                return (
                    f"generated text degenerates: {extra.series.column} rises from "
                    f"{change.start:.2f} to {change.end:.2f}"
                )
    return ""


def _entropy_hint(v: View) -> str:
    for extra in v.extra:
        if extra.series.quantity == q.ENTROPY and extra.fit.known_noise:
            change = extra.fit.change()
            level = abs(float(np.median(extra.series.values)))
            if both(change) <= MOVE_P and abs(change.effect) >= 0.05 * level:
                return (
                    "; entropy falls too, as squeezing would have it"
                    if change.effect < 0
                    else "; entropy rises, which speaks against squeezing"
                )
    return ""


# --- words ------------------------------------------------------------------------------------


def _sentence(what: str, fall: Change, measured: Measured, rose: bool) -> str:
    amount = f"{-fall.effect:.3g} {unit(measured)}"
    if measured.level:
        amount += f" ({-fall.effect / abs(measured.level):.1%})"
    return f"{what} rose, then fell by {amount}" if rose else f"{what} falls by {amount}"


def _called(split: str) -> str:
    return split or "only"


def _missing(views: list[View]) -> tuple[str, ...]:
    has = {
        "chosen": any(v.chosen for v in views),
        "rejected": any(v.rejected or v.margin for v in views),
        "argmax": any(v.argmax for v in views),
        "held-out": any(v.split not in ("", "train", "probe") for v in views),
    }
    tells = {
        "chosen": "chosen (logps/chosen or rewards/chosen): whether the good answers fall",
        "rejected": "rejected (logps/rejected or rewards/rejected): whether the margin grows",
        "argmax": "argmax along the chosen answers (SqueezeCallback logs it): where the mass goes",
        "held-out": "a held-out split (eval_ series): whether unseen prompts suffer",
    }
    return tuple(tells[name] for name, present in has.items() if not present)
