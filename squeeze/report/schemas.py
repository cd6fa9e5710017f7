"""Schemas of the files that a report is made of, checked where they are read (`source.read_run`).

They say what the report uses; whatever else stands in a file is left alone.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

_AS_WRITTEN = ConfigDict(extra="allow", allow_inf_nan=False)


@with_config(_AS_WRITTEN)
class _Phase(TypedDict, total=False):
    kind: str
    on: str | list[str] | None
    epochs: float | None


@with_config(_AS_WRITTEN)
class _Arm(TypedDict):
    name: str
    title: NotRequired[str | None]
    phases: NotRequired[list[_Phase] | None]


@with_config(_AS_WRITTEN)
class _ScoringError(TypedDict):
    mean: float
    max: float
    n: int


@with_config(_AS_WRITTEN)
class _Scoring(TypedDict, total=False):
    dtype: str
    error_nats: _ScoringError | None


@with_config(_AS_WRITTEN)
class _Run(TypedDict, total=False):
    """A run.json; a report needs none of its fields, a run that goes on does (`RunRecord`)."""

    name: str | None
    status: str | None
    headline: str | None
    tone: str
    command: str | list[str] | None
    arms: list[_Arm | str] | None
    seconds: dict[str, float | dict[str, float]] | None
    scoring: _Scoring | str | None
    not_run: list[dict[str, Any]] | None


@with_config(_AS_WRITTEN)
class _Token(TypedDict):
    text: str
    logp_before: float
    logp_after: float
    argmax_before: str
    argmax_logp_before: float
    argmax_after: str
    argmax_logp_after: float


@with_config(_AS_WRITTEN)
class _Tokens(TypedDict):
    arm: str
    example: str
    delta_logp: float
    tokens: list[_Token]


@with_config(_AS_WRITTEN)
class _Generation(TypedDict):
    arm: str
    phase: str
    example: str
    text: str
    epoch: NotRequired[float | None]


@with_config(_AS_WRITTEN)
class _Samples(TypedDict, total=False):
    tokens: list[_Tokens]
    generations: list[_Generation]


@with_config(_AS_WRITTEN)
class _Verdicts(TypedDict, total=False):
    schema: int
    verdicts: list[dict[str, Any]]


@with_config(_AS_WRITTEN)
class _Change(TypedDict):
    effect: float
    interval: tuple[float, float] | None


@with_config(_AS_WRITTEN)
class _Evidence(TypedDict):
    series: str
    n: int
    start: float
    peak: float
    peak_step: float
    end: float
    change: _Change
    fall_from_peak: _Change
    unit: str
    direction: str


@with_config(_AS_WRITTEN)
class _Split(TypedDict):
    split: str
    verdict: str
    evidence: list[_Evidence]


@with_config(_AS_WRITTEN)
class _Remedy(TypedDict):
    action: str
    how: str
    claim: str
    status: str


@with_config(_AS_WRITTEN)
class _Finding(TypedDict):
    what: str
    where: str
    cause: str


@with_config(_AS_WRITTEN)
class _Curve(TypedDict):
    kind: str
    unit: str
    split: str
    steps: list[float]
    values: list[float]
    trend_steps: list[float]
    trend: list[float]


def _whole(curve: _Curve) -> _Curve:
    for steps, values in (("steps", "values"), ("trend_steps", "trend")):
        if not len(curve[steps]) == len(curve[values]) > 0:  # type: ignore[literal-required]
            raise ValueError(f"{steps} and {values} should be equally many, and some")
    return curve


@with_config(_AS_WRITTEN)
class _Diagnosis(TypedDict):
    run: str
    source: str
    format: str
    verdict: str
    split: str
    reason: str
    meaning: str
    axis: str
    cautions: list[str]
    missing: list[str]
    notes: list[str]
    splits: list[_Split]
    remedies: list[_Remedy]
    findings: NotRequired[list[_Finding]]
    curves: list[Annotated[_Curve, AfterValidator(_whole)]]


@with_config(_AS_WRITTEN)
class _Diagnoses(TypedDict, total=False):
    runs: list[_Diagnosis]


_AGAIN = "delete it, and run `squeeze report` again (the report then says what is absent)"

# file -> what it holds, and what to do where it does not
SCHEMAS: dict[str, tuple[TypeAdapter[Any], str]] = {
    "run.json": (TypeAdapter(_Run), f"put it back as it was, or {_AGAIN}"),
    "verdicts.json": (TypeAdapter(_Verdicts), _AGAIN),
    "samples.json": (TypeAdapter(_Samples), _AGAIN),
    "diagnosis.json": (TypeAdapter(_Diagnoses), "run `squeeze diagnose --report` again"),
}
