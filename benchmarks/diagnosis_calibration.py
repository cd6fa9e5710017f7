"""How often the verdicts are right on simulated runs: a ROC figure and a table for the docs.

`python -m benchmarks.diagnosis_calibration --out docs` writes both. The trajectories have the
shapes of published and measured runs, not their numbers. Bandwidth and p were tuned on these
simulations, so the rates are in-sample; the other thresholds were set by reason (see `view` and
`verdict`). Beside them stand published runs: with `--authors DIRECTORY`, training lines of batches
of 4 and 16 prompts are emulated from their values per prompt.
"""

from __future__ import annotations

import argparse
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from squeeze.diagnosis import series as q
from squeeze.diagnosis.movements import FALL_P, FALL_P_SHORT, SHORT
from squeeze.diagnosis.series import Array, RunSeries, Series
from squeeze.diagnosis.verdict import Diagnosis, Name, diagnose
from squeeze.diagnosis.view import view
from squeeze.files import replacing, write_text
from squeeze.published_logs import CHOSEN, read_published

LEVEL = -150.0  # nats, of the chosen answers at the start
BETA = 0.1
LENGTHS = (5, 12, 40, 400)
NOISES = (0.0025, 0.01, 0.03)  # standard deviation of an evaluation, as a share of the level
MISSING = ("nothing", "argmax", "rejected", "log-probs")
OTHER = "\n## Group-relative training\n"  # a section of the page that `rollouts_calibration` makes
ALARMS = frozenset({"early", "displacement", "squeezing", "collapse"})

Shape = Callable[[Array], Array]


@dataclass(frozen=True)
class Family:
    """Noise-free curves over training time t in [0, 1], in nats from the start."""

    name: str
    chosen: Shape
    rejected: Shape
    argmax: Shape
    right: frozenset[Name]


def _bump(rise: float, fall: float, peak: float = 0.4) -> Shape:
    """Rises to `rise` at `peak`, then falls by `fall` to the end."""

    def curve(t: Array) -> Array:
        up = rise * np.sin(np.clip(t / peak, 0, 1) * np.pi / 2)
        down = fall * np.clip((t - peak) / (1 - peak), 0, 1) ** 1.2
        return np.asarray(up - down)

    return curve


def _dip(depth: float) -> Shape:
    """Falls and comes back in the middle of the run."""
    return lambda t: np.asarray(depth * np.exp(-0.5 * ((t - 0.45) / 0.1) ** 2))


def _to(end: float) -> Shape:
    """Goes to `end`, fastest at first."""
    return lambda t: np.asarray(end * (1 - np.exp(-2 * t)) / (1 - np.exp(-2)))


def _names(*names: Name) -> frozenset[Name]:
    return frozenset(names)


# name, chosen, rejected, argmax, right verdicts where everything is logged
FAMILIES = tuple(
    Family(*columns)
    for columns in (
        ("squeezes after a rise", _bump(11.0, 9.0), _to(-75.0), _to(41.0), _names("squeezing")),
        ("squeezes from the start", _to(-30.0), _to(-90.0), _to(25.0), _names("squeezing")),
        ("displaces", _to(-20.0), _to(-60.0), _to(0.0), _names("displacement")),
        ("just past its turn", _bump(12.0, 3.0, 0.75), _to(-40.0), _to(25.0), _names("early")),
        ("diverges", _to(-60.0), _to(-60.0), _to(-50.0), _names("collapse")),
        ("goes well", _to(10.0), _to(-40.0), _to(10.0), _names("healthy")),
        ("chosen level", _to(0.0), _to(-40.0), _to(5.0), _names("healthy")),
        ("chosen level, with a passing dip", _dip(-5.0), _to(-40.0), _to(5.0), _names("healthy")),
        ("SFT", _to(35.0), _to(20.0), _to(15.0), _names("healthy")),
        ("nothing moves", _to(0.0), _to(0.0), _to(0.0), _names("no learning")),
    )
)


@dataclass(frozen=True)
class Case:
    """One simulated run and what became of it; `p` is of chosen's fall."""

    family: Family
    n: int
    noise: float
    missing: str
    verdict: Name
    p: float

    @property
    def bad(self) -> bool:
        """Whether an alarm is right."""
        return bool(self.family.right & ALARMS)


def simulate(family: Family, n: int, noise: float, missing: str, seed: int) -> RunSeries:
    """Return one noisy run of `n` evaluations that lacks what `missing` names.

    Noise has heavy tails and a memory (AR(1), ρ = 0.3, Student's t with 5 degrees of freedom), half
    of its variance shared by chosen and rejected; rewards are exact β multiples of the differences.
    """
    rng = np.random.default_rng([zlib.crc32(f"{family.name}/{noise}/{missing}".encode()), n, seed])
    t = np.linspace(0, 1, n)
    scale = noise * abs(LEVEL)
    shared, *own = scale / np.sqrt(2) * unit_noise(rng, (4, n))
    # The first evaluation is the untouched model itself: it has no noise.
    shared[0] = own[0][0] = own[1][0] = own[2][0] = 0.0
    chosen = LEVEL + family.chosen(t) + shared + own[0]
    rejected = LEVEL + 20 + family.rejected(t) + shared + own[1]
    argmax = LEVEL + 40 + family.argmax(t) + own[2]
    steps = np.arange(n, dtype=np.float64)
    if missing == "log-probs":
        values = {q.CHOSEN_REWARD: BETA * (chosen - LEVEL)}
        values[q.REJECTED_REWARD] = BETA * (rejected - LEVEL - 20)
        values[q.MARGIN] = values[q.CHOSEN_REWARD] - values[q.REJECTED_REWARD]
    else:
        values = {q.CHOSEN: chosen, q.REJECTED: rejected, q.ARGMAX: argmax}
        dropped = {"argmax": q.ARGMAX, "rejected": q.REJECTED}.get(missing)
        values = {k: v for k, v in values.items() if k != dropped}
    series = tuple(Series(k, "eval", steps, v, k) for k, v in values.items())
    return RunSeries(family.name, "simulated", "simulated", "step", series)


def unit_noise(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Unit variance in every row."""
    degrees, memory = 5, 0.3
    shocks = rng.standard_t(degrees, shape) * np.sqrt((degrees - 2) / degrees)
    unit: Array = shocks.copy()
    for i in range(1, shape[1]):
        unit[:, i] = memory * unit[:, i - 1] + np.sqrt(1 - memory**2) * shocks[:, i]
    return unit


def run(repeats: int) -> list[Case]:
    """Diagnose `repeats` runs of every family, length, noise and missing series."""
    return [
        _case(family, n, noise, missing, seed)
        for family in FAMILIES
        for n in LENGTHS
        for noise in NOISES
        for missing in MISSING
        for seed in range(repeats)
    ]


def _case(family: Family, n: int, noise: float, missing: str, seed: int) -> Case:
    simulated = simulate(family, n, noise, missing, seed)
    chosen = view(simulated, "eval", None).chosen
    assert chosen is not None  # every simulated run has it
    d: Diagnosis = diagnose(simulated)
    return Case(family, n, noise, missing, d.verdict, chosen.fit.fall().p)


# --- figure and table -----------------------------------------------------------------------------


def roc(cases: list[Case]) -> tuple[Array, Array]:
    """False-alarm and detection rates of "chosen falls" as the threshold on p goes from 0 to 1."""
    p = np.array([c.p for c in cases])
    bad = np.array([c.bad for c in cases])
    cuts = np.r_[0.0, np.unique(p)]
    false = np.array([np.mean(p[~bad] <= cut) for cut in cuts])
    hits = np.array([np.mean(p[bad] <= cut) for cut in cuts])
    return false, hits


def draw(cases: list[Case], path: Path) -> None:
    """Draw the ROC by length (a panel a noise level), with the operating point, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(NOISES), figsize=(9.6, 3.4), sharey=True, squeeze=False)
    for axis, noise in zip(axes[0], NOISES, strict=True):
        for n in LENGTHS:
            chosen = [c for c in cases if c.n == n and c.noise == noise]
            line = axis.step(*roc(chosen), where="post", label=f"{n} evaluations")[0]
            bad = [c for c in chosen if c.bad]
            good = [c for c in chosen if not c.bad]
            axis.plot(_alarms(good), _alarms(bad), "o", color=line.get_color(), ms=5)
        axis.set_title(f"noise {noise:.2%} of the level", fontsize=10)
        axis.set_xlabel("false alarms")
        axis.set_xlim(-0.02, 0.5)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("bad runs found")
    axes[0][-1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _alarms(cases: list[Case]) -> float:
    return float(np.mean([c.verdict in ALARMS for c in cases]))


def table(cases: list[Case], repeats: int, real: Sequence[Emulated] = ()) -> str:
    """Return the rates as Markdown."""
    lines = [
        "# How often the verdicts are right, on simulated runs",
        "",
        f"Made by `python -m benchmarks.diagnosis_calibration --out docs --repeats {repeats}`; "
        f"{len(cases)} runs, level {LEVEL:g} nats, β = {BETA:g}, chosen's fall judged at p ≤ "
        f"{FALL_P:g} ({FALL_P_SHORT:g} below {SHORT} evaluations). An alarm "
        "is *early*, *displacement*, *squeezing* or *collapse*; bad runs are "
        "the first five families below, good ones the others. Bad runs not "
        "found are those just past their turn, called *healthy*, and *undetermined* ones, which "
        "the last column counts.",
        "",
        "![ROC](diagnosis-roc.png)",
        "",
        "Lines: \"chosen falls\" as the threshold on its p goes from 0 to 1. Dots: the verdicts.",
        "",
        *_grid(cases),
        "",
        *(["## On published runs", "", *emulated_table(real, 10 * repeats), ""] if real else []),
        "## By family",
        "",
        *_families(cases),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _grid(cases: list[Case]) -> Iterator[str]:
    yield "| evaluations | noise | not in the log | bad runs found | false alarms | undetermined |"
    yield "|---:|---:|---|---:|---:|---:|"
    for n in LENGTHS:
        for noise in NOISES:
            for missing in MISSING:
                cell = [c for c in cases if (c.n, c.noise, c.missing) == (n, noise, missing)]
                bad, good = [c for c in cell if c.bad], [c for c in cell if not c.bad]
                open_ = np.mean([c.verdict == "undetermined" for c in cell])
                yield (
                    f"| {n} | {noise:.2%} | {missing} | {rate(bad)} | {rate(good)} | {open_:.0%} |"
                )


def rate(cases: Sequence[Case | Emulated]) -> str:
    """The share of alarms with its 95% interval (Clopper and Pearson)."""
    return share([c.verdict in ALARMS for c in cases])


def share(hits: Sequence[bool]) -> str:
    """The share of true ones with its 95% interval (Clopper and Pearson)."""
    if not hits:
        return "—"
    low, high = binomtest(sum(hits), len(hits)).proportion_ci()
    return f"{sum(hits) / len(hits):.0%} [{100 * low:.0f}, {100 * high:.0f}]"


# --- published runs -------------------------------------------------------------------------------

# The part of a run that is judged, and whether an alarm is right. The first rises by 11.8 nats
# before its 29th evaluation and falls by 6.1 after it.
PUBLISHED = (
    ("prob_pythia410m_dpo", slice(None), True),
    ("prob_pythia410m_dpo", slice(29), False),
    ("pythia410_baseline_dpo_checkbug", slice(None), True),
    ("pythia410_baseline_dpo_checkbug_5e7", slice(None), False),
)
BATCHES = (4, 16)


@dataclass(frozen=True)
class Emulated:
    """One emulated log of a published run and its verdict."""

    run: str
    evaluations: int
    bad: bool
    batch: int
    verdict: Name


def emulate(chosen: Array, rejected: Array | None, batch: int, seed: int) -> RunSeries:
    """What a trainer would have logged: at each line the mean reward of `batch` other prompts.

    `chosen` and `rejected` are log-probs [evaluations, prompts] from the untouched model on.
    """
    rng = np.random.default_rng([batch, seed])
    rows = np.arange(1, len(chosen))
    drawn = [rng.choice(chosen.shape[1], batch, replace=False) for _ in rows]

    def rewards(logps: Array, quantity: str) -> Series:
        moved = BETA * (logps - logps[0])
        values = np.array([moved[i, own].mean() for i, own in zip(rows, drawn, strict=True)])
        return Series(quantity, "train", rows.astype(float), values, quantity, batches=True)

    series = [rewards(chosen, q.CHOSEN_REWARD)]
    if rejected is not None:
        series.append(rewards(rejected, q.REJECTED_REWARD))
    return RunSeries("emulated", "emulated", "emulated", "step", tuple(series), "dpo")


def emulated(directory: Path, repeats: int) -> list[Emulated]:
    """Judge `repeats` emulated logs of each published run and batch size."""
    found = []
    for name, part, bad in PUBLISHED:
        run = read_published(directory / f"{name}.jsonl")
        chosen = run.values(CHOSEN)[part]
        field = run.kinds().get("rejected")
        rejected = None if field is None else run.values(field)[part]
        for batch in BATCHES:
            for seed in range(repeats):
                verdict = diagnose(emulate(chosen, rejected, batch, seed)).verdict
                found.append(Emulated(name, len(chosen), bad, batch, verdict))
    return found


def emulated_table(cases: Sequence[Emulated], repeats: int) -> Iterator[str]:
    """The rates on published runs as Markdown."""
    yield (
        f"Made with `--authors DIRECTORY` (arXiv 2407.10490's logs), {repeats} logs a row: at "
        "every line the mean reward of other prompts, as a trainer logs it. An alarm is right in "
        "the rows that say so, and a false alarm in the others."
    )
    yield ""
    yield "| published run | evaluations | alarm is right | batch | alarms | verdicts |"
    yield "|---|---:|---|---:|---:|---|"
    rows = dict.fromkeys((c.run, c.evaluations, c.bad, c.batch) for c in cases)
    for run, n, bad, batch in rows:
        own = [c for c in cases if (c.run, c.evaluations, c.bad, c.batch) == (run, n, bad, batch)]
        counts = Counter(c.verdict for c in own)
        listed = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        yield f"| {run} | {n} | {'yes' if bad else 'no'} | {batch} | {rate(own)} | {listed} |"


def _families(cases: list[Case]) -> Iterator[str]:
    """Verdicts where everything is logged, at the two lower noise levels and 12 or more points."""
    clear = [c for c in cases if c.missing == "nothing" and c.noise <= NOISES[1] and c.n >= 12]
    yield "All series logged, noise up to 1%, 12 evaluations or more:"
    yield ""
    yield "| family | right | verdicts |"
    yield "|---|---:|---|"
    for family in FAMILIES:
        own = [c for c in clear if c.family is family]
        counts: Mapping[str, int] = {
            name: sum(c.verdict == name for c in own)
            for name in dict.fromkeys(c.verdict for c in own)
        }
        listed = ", ".join(
            f"{k} {v / len(own):.0%}" for k, v in sorted(counts.items(), key=lambda kv: -kv[1])
        )
        right = np.mean([c.verdict in family.right for c in own])
        yield f"| {family.name} | {right:.0%} | {listed} |"


def main() -> None:
    """Write `diagnosis-roc.png` and `diagnosis-calibration.md` into `--out`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--authors", type=Path, help="the published logs, with their arrays")
    given = parser.parse_args()
    cases = run(given.repeats)
    real = emulated(given.authors, 10 * given.repeats) if given.authors else []
    draw(cases, given.out / "diagnosis-roc.png")
    page = given.out / "diagnosis-calibration.md"
    _, section, kept = page.read_text().partition(OTHER) if page.exists() else ("", "", "")
    write_text(page, table(cases, given.repeats, real) + section + kept)


if __name__ == "__main__":
    main()
