"""Two log-prob benchmark reports side by side, and each case against the machine's own rates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from rich.table import Table
from typing_extensions import TypedDict

from squeeze.bench.candidates import OURS
from squeeze.errors import InputError
from squeeze.files import read_as, write_figure

_AS_WRITTEN = ConfigDict(extra="allow", allow_inf_nan=False)
_Positive = Annotated[float, Field(gt=0)]


@with_config(_AS_WRITTEN)
class _Record(TypedDict):
    name: str
    gives: str
    error: float
    extra_megabytes: float
    median_ms: _Positive
    quartiles_ms: tuple[_Positive, _Positive]
    rounds: int
    times_naive: float | None
    times_best_peer: float | None
    times_limit: _Positive


@with_config(_AS_WRITTEN)
class _Case(TypedDict):
    title: str
    task: str
    shape: str
    n_tokens: int
    dtype: str
    best_peer: str | None
    limit: str
    limit_ms: _Positive
    records: list[_Record]
    not_measured: dict[str, str]
    noise: NotRequired[float]
    operations: NotRequired[_Positive]
    bytes: NotRequired[_Positive]


@with_config(_AS_WRITTEN)
class _Rates(TypedDict):
    read: _Positive
    float32: NotRequired[_Positive]
    bfloat16: NotRequired[_Positive]


@with_config(_AS_WRITTEN)
class _Machine(TypedDict):
    date: str
    device: str
    capability: str
    threads: int
    torch: str
    python: str
    load: NotRequired[float | None]
    rates: NotRequired[_Rates]


@with_config(_AS_WRITTEN)
class _Peer(TypedDict):
    name: str
    gives: str
    needs: str


@with_config(_AS_WRITTEN)
class _Report(TypedDict):
    """The JSON of the benchmark: what tables, plots and comparisons use of it."""

    machine: _Machine
    cases: list[_Case]
    not_measured: dict[str, str]
    partial: NotRequired[bool]
    note: NotRequired[str]
    peers: NotRequired[list[_Peer]]


_REPORT: TypeAdapter[Any] = TypeAdapter(_Report)


def read_report(path: Path) -> dict[str, Any]:
    """Return what `squeeze bench kernels --json` wrote. Raises InputError where it did not."""
    report: dict[str, Any] = read_as(path, _REPORT, "run `squeeze bench kernels --json` again")
    if not report["cases"]:
        raise InputError(
            f"{path} has no measured cases; make it with `squeeze bench kernels --json`."
        )
    return report


def differences(new: dict[str, Any], old: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each kernel of each case that both reports measured.

    Time is compared as a multiple of the case's limit, measured beside it in the same run, so that
    a slower day is no slower kernel. `beyond_noise` is whether the two differ by more than both
    runs' noise together (unknown, 0, in reports that did not state it).
    """
    before = {
        (case["title"], record["name"]): (case, record)
        for case in old["cases"]
        for record in case["records"]
    }
    rows = []
    for case in new["cases"]:
        for record in case["records"]:
            if (case["title"], record["name"]) not in before:
                continue
            old_case, old_record = before[case["title"], record["name"]]
            ratio = record["times_limit"] / old_record["times_limit"]
            noise = case.get("noise", 0.0) + old_case.get("noise", 0.0)
            rows.append(
                {"case": case["title"], "name": record["name"], "ratio": ratio}
                | {"old": old_record["times_limit"], "new": record["times_limit"]}
                | {"beyond_noise": abs(ratio - 1) > noise, "noise": noise}
            )
    if not rows:
        raise InputError("the two reports have no case in common; compare runs of the same form.")
    return rows


def comparison(new: dict[str, Any], old: dict[str, Any]) -> Table:
    """Return the differences as a table."""
    title = f"against {old['machine']['date']}: time as a multiple of the limit"
    table = Table("case", "kernel", "old", "new", "new / old", title=title, title_justify="left")
    for row in differences(new, old):
        verdict = "" if row["beyond_noise"] else " (noise)"
        cells = [f"{row['old']:.2f}", f"{row['new']:.2f}", f"{row['ratio']:.2f}{verdict}"]
        table.add_row(row["case"], row["name"], *cells, style="bold" if row["name"] == OURS else "")
    return table


def roofline(report: dict[str, Any], path: Path) -> None:
    """Draw each case's best kernels under the machine's measured read and matmul rates, as PNG.

    Raises InputError for a report that did not measure the rates.
    """
    from matplotlib.figure import Figure

    rates = report["machine"].get("rates")
    if rates is None:
        raise InputError("this report has no measured rates; run `squeeze bench kernels` again.")
    figure = Figure(figsize=(8, 5), layout="constrained")
    panel = figure.subplots()
    points = [point for case in report["cases"] for point in _points(case)]
    low = min([point["intensity"] for point in points], default=1.0) / 3
    high = max([point["intensity"] for point in points], default=100.0) * 3
    for dtype, style in (("float32", "-"), ("bfloat16", "--")):
        corner = rates[dtype] / rates["read"]
        xs = [low, corner, max(high, 2 * corner)]
        roof = [min(x * rates["read"], rates[dtype]) / 1e9 for x in xs]
        panel.plot(xs, roof, style, color="0.4", label=f"measured read and {dtype} matmul")
    names = sorted({point["name"] for point in points}, key=lambda name: name != OURS)
    for position, name in enumerate(names):
        of_name = [point for point in points if point["name"] == name]
        xs, ys = [[point[axis] for point in of_name] for axis in ("intensity", "rate")]
        marker, size = ("o", 9) if name == OURS else ("^v<>sPX*d"[position % 9], 6)
        panel.plot(xs, ys, marker, color=f"C{position}", markersize=size, label=name, alpha=0.8)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("operations a byte that must be read")
    panel.set_ylabel("GFLOP/s (12 operations a logit, or the matmuls')")
    panel.set_title("each case: squeeze, naive and the best peer", loc="left", fontsize=11)
    panel.grid(color="0.9")
    panel.legend(frameon=False, fontsize=8)
    write_figure(figure, path, dpi=130)


def _points(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Intensity and rate of squeeze, naive and the best peer in one case."""
    if "operations" not in case:
        return []
    intensity = case["operations"] / case["bytes"]
    wanted = (OURS, "naive", case["best_peer"])
    return [
        {
            "name": record["name"] if record["name"] in (OURS, "naive") else "best peer",
            "intensity": intensity,
            "rate": case["operations"] / record["median_ms"] / 1e6,
        }
        for record in case["records"]
        if record["name"] in wanted
    ]
