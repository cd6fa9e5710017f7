"""Content of a report: plain values that the HTML and the Markdown templates both lay out.

Words and tables only: numbers come from `summary`, pictures from `figures` and `interactive`.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from squeeze.claims import catalogue
from squeeze.claims.types import Verdict
from squeeze.data.probe_set import KINDS
from squeeze.report.source import Arm, RunData
from squeeze.report.style import ARM_COLOURS, description, in_order, split_name, style
from squeeze.report.summary import Mean, SplitSummary, split_summary
from squeeze.report.tokens import TokenView, colour_scale, token_view

SQUEEZE_CLAIM = "DO-2"
MOST_RUNS = 20  # diagnoses that a page shows whole; of more, the worst ones
PHASES = {"base": "before training", "sft": "after SFT", "dpo": "after DPO"}


@dataclass(frozen=True)
class VerdictRow:
    """A verdict and its claim's sentence (empty when the claim is not registered)."""

    verdict: Verdict
    sentence: str


@dataclass(frozen=True)
class ArmPage:
    """An arm with its numbers by split."""

    arm: Arm
    colour: str
    splits: tuple[SplitSummary, ...]
    n_probes: int
    unit: str
    has_dpo: bool


@dataclass(frozen=True)
class Generations:
    """One prompt's generations: `cells[arm][phase]` is a text or None."""

    example: str
    prompt: str
    cells: dict[str, dict[str, str | None]]


@dataclass(frozen=True)
class Content:
    """Everything a report says."""

    run: RunData
    headline: str
    tone: str
    lead: str
    happened: str
    arms: tuple[ArmPage, ...]
    kinds: tuple[tuple[str, str, str], ...]
    verdicts: tuple[VerdictRow, ...]
    diagnoses: tuple[dict[str, Any], ...]
    tokens: tuple[tuple[str, tuple[TokenView, ...]], ...]
    scale: float
    phases: tuple[tuple[str, str], ...]
    generations: tuple[Generations, ...]
    costs: tuple[tuple[str, str, float], ...]
    facts: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    config: tuple[tuple[str, str], ...]
    precision: str
    not_run: tuple[tuple[str, str], ...]
    command: str
    citation: str


def number(value: float | None, signed: bool = True) -> str:
    """A number in nats with a real minus sign: one decimal from 1 on, two below."""
    if value is None:
        return "not run"
    if value == 0:
        return "0"
    text = f"{value:{'+' if signed else ''}.{1 if abs(value) >= 0.95 else 2}f}"
    return text.replace("-", "−")


def interval(mean: Mean | Verdict | None) -> str:
    """The 95% interval in brackets; says so when there is none."""
    pair = None if mean is None else mean.interval
    return "no interval" if pair is None else f"[{number(pair[0])}, {number(pair[1])}]"


def effect(mean: Mean | None) -> str:
    """A mean with its interval, or "not run"."""
    return "not run" if mean is None else f"{number(mean.value)} {interval(mean)}"


def measured(value: float) -> str:
    """A level in any unit: four significant digits, no exponent, a real minus sign."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}".replace("-", "−")


def changed(change: Mapping[str, Any]) -> str:
    """A change of `diagnosis.json` with its interval, in any unit."""
    if change["interval"] is None:
        return f"{change['effect']:+.3g} [unknown]".replace("-", "−")
    low, high = change["interval"]
    return f"{change['effect']:+.3g} [{low:+.3g}, {high:+.3g}]".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as (dotted key, text) pairs."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += flat(value, f"{name}.")
        else:
            rows.append((name, _text(value)))
    return rows


def worst_of(severities: Sequence[float]) -> list[int]:
    """The places of the runs that a page shows whole, in order: the worst `MOST_RUNS`."""
    order = sorted(range(len(severities)), key=lambda place: -severities[place])
    return sorted(order[:MOST_RUNS])


def _diagnoses(run: RunData) -> tuple[dict[str, Any], ...]:
    """The diagnoses that the page shows whole; of too many those whose curves were kept."""
    if len(run.diagnoses) <= MOST_RUNS:
        return run.diagnoses
    return (tuple(d for d in run.diagnoses if d["curves"]) or run.diagnoses)[:MOST_RUNS]


def _headline(run: RunData) -> tuple[str, str]:
    """The verdict on squeezing in a few words, and its tone: yes, partly, no or unknown."""
    if run.run.get("headline"):
        return str(run.run["headline"]), str(run.run.get("tone", "unknown"))
    if run.running:
        return "This run has not ended", "unknown"
    judged = [v for v in run.verdicts or () if v.claim == SQUEEZE_CLAIM and v.ran]
    held = sum(v.on_claimed_side for v in judged)  # in this run; of other seeds it says nothing
    if not judged:
        return "No verdict: whether this squeezes was not judged", "unknown"
    if held == len(judged):
        return "Yes, it squeezes", "yes"
    if held:
        return f"It squeezes in {held} of {len(judged)} comparisons", "partly"
    return "No squeezing was found", "no"


def _lead(run: RunData) -> str:
    """What was trained on what, in one sentence."""
    if run.from_log:
        read = list(dict.fromkeys(f"{d['source']} ({d['format']})" for d in run.diagnoses))
        what = ", ".join(read) if len(read) <= MOST_RUNS else f"{len(read)} logs"
        return f"Read from {what}: means, and no single examples."
    model, data = run.section("model"), run.section("data")
    if not run.run:
        return "What was trained is not recorded here (no run.json)."
    pairs, held, scored = (data.get(key) for key in ("n_train", "n_held_out", "n_probe"))
    if "base" in model:
        return (
            f"{model.get('name')} was scored against {model['base']} on {scored} pairs of "
            f"{data.get('name', 'a data set')}; nothing was trained here."
        )
    what = f"{model.get('name', 'A model')} was trained on "
    what += (
        f"{pairs} preference pairs of {data.get('name', 'a data set')}"
        if pairs
        else str(data.get("name", "a data set that is not recorded"))
    )
    if len(run.arms) > 1:
        what += f" in {len(run.arms)} ways, called arms"
    if scored:
        return f"{what}; {scored} pairs were scored as it went."
    if held:
        return f"{what}; {held} more prompts were held out and only scored."
    return what + ("." if "held_out" in run.scores.splits else "; no prompts were held out.")


def _happened(pages: Iterable[ArmPage]) -> str:
    """The largest fall of chosen from its best, in one sentence; empty when none was measured."""
    falls = [
        (s.drop.value, page.arm.name, s)
        for page in pages
        for s in page.splits[:1]
        if s.drop is not None
    ]
    if not falls:
        return ""
    drop, arm, s = min(falls, key=lambda fall: fall[0])
    where = f" (the largest fall of {len(falls)} arms)" if len(falls) > 1 else ""
    if drop >= 0:
        return f"On {split_name(s.split)} the chosen answers ended at their best in every arm."
    text = f"In {arm}{where} the chosen answers of {split_name(s.split)} ended "
    text += f"{number(-drop, signed=False)} nats below their best"
    if s.argmax is not None:
        moved = "gained" if s.argmax.value > 0 else "lost"
        size = number(abs(s.argmax.value), signed=False)
        text += f", while the tokens that the model itself favours {moved} {size}"
    return text + "."


def _tokens(run: RunData, scale: float) -> tuple[tuple[str, tuple[TokenView, ...]], ...]:
    """Token views by arm, arms in the run's order, the most squeezed answer first."""
    views = sorted((token_view(entry, scale) for entry in run.tokens), key=lambda v: v.change)
    order = dict.fromkeys([arm.name for arm in run.arms] + [view.arm for view in views])
    grouped = [(arm, tuple(v for v in views if v.arm == arm)) for arm in order]
    return tuple((arm, found) for arm, found in grouped if found)


def _verdicts(run: RunData) -> tuple[VerdictRow, ...]:
    claims = catalogue.load() if run.verdicts else {}  # its modules need torch
    return tuple(
        VerdictRow(v, claims[v.claim].sentence if v.claim in claims else "")
        for v in run.verdicts or ()
    )


def _generations(run: RunData) -> tuple[tuple[tuple[str, str], ...], tuple[Generations, ...]]:
    """The phases as (key, title), and each prompt's last text of each phase by arm."""
    entries = sorted(run.generations, key=lambda e: float(e.get("epoch") or 0))
    found = list(dict.fromkeys(str(e["phase"]) for e in entries))
    order = [p for p in PHASES if p in found] + [p for p in found if p not in PHASES]
    arms = list(dict.fromkeys([a.name for a in run.arms] + [str(e["arm"]) for e in entries]))
    texts = {(e["example"], e["arm"], e["phase"]): str(e["text"]) for e in entries}
    prompts = {str(e["example"]): str(e.get("prompt", "")) for e in run.generations}
    pages = tuple(
        Generations(
            example,
            prompt,
            {arm: {p: texts.get((example, arm, p)) for p in order} for arm in arms},
        )
        for example, prompt in prompts.items()
    )
    return tuple((p, PHASES.get(p, p)) for p in order), pages


def _costs(seconds: Any) -> tuple[tuple[str, str, float], ...]:
    """Rows (group, stage, seconds) of a mapping of stages, nested by arm or not, without totals."""
    rows: list[tuple[str, str, float]] = []
    for key, value in (seconds or {}).items() if isinstance(seconds, Mapping) else ():
        if isinstance(value, Mapping):
            rows += [(str(key), name, number) for _, name, number in _costs(value)]
        elif str(key) != "total":
            rows.append(("", str(key), float(value)))
    return tuple(rows)


def _precision(run: RunData) -> str:
    scoring = run.section("scoring")
    if "dtype" not in scoring:
        return "The scoring precision is not recorded."
    error = scoring.get("error_nats")
    if not error:
        exact = " No scoring error was measured." if scoring["dtype"] != "float32" else ""
        return f"Log-probs were scored in {scoring['dtype']}.{exact}"
    return (
        f"Log-probs were scored in {scoring['dtype']}. Against float32 this costs "
        f"{error['mean']:.3g} nats a response on average and at most {error['max']:.3g} "
        f"(n = {error['n']})."
    )


def _not_run(
    run: RunData, verdicts: Iterable[VerdictRow], splits: list[str]
) -> list[tuple[str, str]]:
    rows = [(str(r.get("what", "")), str(r.get("why", ""))) for r in run.run.get("not_run") or []]
    reasons = {
        "run.json": ("The run's record", "run.json is absent: model, data and cost are unknown"),
        "verdicts.json": ("The claims' verdicts", "verdicts.json is absent"),
        "samples.json": ("Tokens and generations", "samples.json is absent"),
    }
    rows += [
        reasons[name]
        for name in run.absent
        if not (name == "verdicts.json" and run.diagnoses)  # judged by rules, not by claims
    ]
    rows += [
        (
            f"{row.verdict.claim} {row.verdict.comparison}".strip(),
            row.verdict.reason or "no reason given",
        )
        for row in verdicts
        if not row.verdict.ran
    ]
    declared = [a["name"] if isinstance(a, dict) else a for a in run.run.get("arms") or []]
    scored = run.trajectory.arms()
    rows += [(f"Arm {name}", "no probe of it yet") for name in declared if name not in scored]
    if "held_out" not in splits:
        rows.append(("Held-out prompts", "the run did not score any"))
    absent = [style(kind).name for kind in KINDS if kind not in run.scores.kinds]
    if absent:
        rows.append((f"Response kinds: {', '.join(absent)}", "they were not scored"))
    once = [a.name for a in run.arms if len(run.trajectory.points(a.name)) == 1]
    if once:
        rows.append((f"Changes in {', '.join(once)}", "only one probe: nothing to compare"))
    return rows


def _command(run: RunData) -> str:
    """The command that makes this run again, or an empty string when that is not recorded."""
    if run.run.get("command"):
        command = run.run["command"]
        return shlex.join(map(str, command)) if isinstance(command, list) else str(command)
    if (run.directory / "config.yaml").exists():
        return "squeeze replicate --config config.yaml --out NEW_DIRECTORY"
    return ""


def _facts(run: RunData) -> list[tuple[str, str]]:
    model, data = run.section("model"), run.section("data")
    rows = [("model", model), ("data", data)]
    facts = [(f"{name} {key}".replace("_", " "), text) for name, d in rows for key, text in flat(d)]
    for key in ("device", "git", "created", "status"):
        value = run.run.get(key)
        if value:
            nested = flat(value, f"{key} ") if isinstance(value, Mapping) else [(key, str(value))]
            facts += nested
    return facts


def build_content(run: RunData) -> Content:
    """Everything the report of a run says."""
    splits = run.scores.splits
    pages = []
    for index, arm in enumerate(run.arms):
        time = run.scores.timeline(arm.name)
        pages.append(
            ArmPage(
                arm,
                ARM_COLOURS[index % len(ARM_COLOURS)],
                tuple(split_summary(run.scores, arm.name, split) for split in splits),
                len(time.position),
                time.unit,
                time.has_dpo,
            )
        )
    headline, tone = _headline(run)
    verdicts = _verdicts(run)
    scale = colour_scale(run.tokens)
    phases, generations = _generations(run)
    revision = run.section("git")
    name = " ".join(str(v) for v in revision.values() if v)
    return Content(
        run=run,
        headline=headline,
        tone=tone,
        lead=_lead(run),
        happened=_happened(pages),
        arms=tuple(pages),
        kinds=tuple((k, style(k).name, description(k)) for k in in_order(run.scores.kinds)),
        verdicts=verdicts,
        diagnoses=_diagnoses(run),
        tokens=_tokens(run, scale),
        scale=scale,
        phases=phases,
        generations=generations,
        costs=_costs(run.run.get("seconds")),
        facts=tuple(_facts(run)),
        versions=tuple(flat(run.section("versions"))),
        config=tuple(flat(run.section("config"))),
        precision=_precision(run),
        not_run=tuple(_not_run(run, verdicts, splits)),
        command=_command(run),
        citation=f"dpo-squeeze, run {run.name}" + (f", revision {name}" if name else ""),
    )
