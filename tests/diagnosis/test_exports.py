"""Exports of trackers, tables led by comments or on their side, documents that are nearly JSON."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeeze.diagnosis import Diagnosis, load
from squeeze.errors import InputError
from tests.diagnosis.test_pasted_logs import NAMES, RECORDS, cells, judged, shown

pytestmark = pytest.mark.cpu

STEPS = [r["step"] for r in RECORDS]
HEAD = ["step", *NAMES]
GOOD = [r | {"rewards/chosen": -r["rewards/chosen"]} for r in RECORDS]


def xy(name: str) -> dict[str, Any]:
    return {"name": name, "x": STEPS, "y": [r[name] for r in RECORDS]}


def clearml(*, by_split: bool) -> str:
    """`Task.get_reported_scalars`: title, series, x and y."""
    if by_split:
        return json.dumps({"train": {n: xy(n) for n in NAMES}})
    return json.dumps({n: {"train": xy(n) | {"name": "train"}} for n in NAMES})


def sacred() -> str:
    charts = {n: {"steps": STEPS, "timestamps": STEPS, "values": xy(n)["y"]} for n in NAMES}
    return json.dumps(charts)


def aim() -> str:
    context = {"context": {"subset": "train"}, "iters": STEPS}
    return json.dumps([{"name": n, "values": xy(n)["y"]} | context for n in NAMES])


def comet_answer() -> str:
    rows = [{"metricName": n, "metricValue": str(r[n]), "step": r["step"], "timestamp": 1}
            for n in NAMES for r in RECORDS]  # fmt: skip
    return json.dumps(rows)


def tracker_rows(head: str, *middle: str) -> str:
    rows = [",".join(["run-1", n, *middle, str(r["step"]), str(r[n])])
            for n in NAMES for r in RECORDS]  # fmt: skip
    return "\n".join([head, *rows])


def time_series() -> str:
    """What TensorBoard's page asks its server for."""
    charts = [
        {
            "plugin": "scalars",
            "tag": f"train/{n}",
            "runToSeries": {
                "dpo-1": [{"wallTime": 1.7e9, "step": r["step"], "value": r[n]} for r in RECORDS]
            },
        }
        for n in NAMES
    ]
    return json.dumps(charts)


def table(separator: str = ",", above: str = "", units: str = "") -> str:
    lines = [separator.join(HEAD), *([units] if units else []), *map(separator.join, rows())]
    return above + "\n".join(lines)


def rows() -> list[list[str]]:
    return [cells(r) for r in RECORDS]


def turned(*, corner: bool = True) -> list[list[str]]:
    whole = [list(column) for column in zip(HEAD, *rows(), strict=True)]
    return [["metric", *whole[0][1:]], *whole[1:]] if corner else whole


def turned_html() -> str:
    lines = ("".join(f"<td>{c}</td>" for c in row) for row in turned())
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def turned_frame() -> str:
    """`print(frame.T)`: the corner is empty."""
    body = ["   ".join(f"{c:>20}" for c in row) for row in turned()]
    return "\n".join([body[0].replace("metric", "      "), *body[1:]])


def behind_commas() -> str:
    return "[" + "".join(json.dumps(r)[:-1] + ", },\n" for r in RECORDS) + "]"


def literal() -> str:
    """A history as Python prints it, with what JSON has no word for."""
    nested = [r | {"grad_norm": math.nan, "extra": None, "nested": {"on": True}} for r in RECORDS]
    return repr({"log_history": nested, "note": "it's"})


def xtuner(r: dict[str, float]) -> str:
    return (
        f"01/02 03:04:05 - mmengine - INFO - Iter(train) [{r['step']:4.0f}/600]  lr: 1.0e-06  "
        f"eta: 0:01:02  time: 2.10  loss: {r['loss']:.4f}  chosen_rewards: "
        f"{r['rewards/chosen']:.4f}  rejected_rewards: {r['rewards/rejected']:.4f}"
    )


def better(r: dict[str, float]) -> str:
    return (
        f"step {r['step']:.0f}: chosen_reward (higher is better) : {r['rewards/chosen']:.4f}, "
        f"rejected_reward (lower is better) : {r['rewards/rejected']:.4f}"
    )


def panel(r: dict[str, float]) -> str:
    body = "".join(f"\u2502 {n:<18}{r[n]:.4f} \u2502\n" for n in NAMES)
    return f"\u256d\u2500 step {r['step']:.0f} \u2500\u256e\n{body}\u2570\u2500\u256f"


EXPORTED: list[tuple[str, str, str]] = [
    ("ClearML by metric", "a.json", clearml(by_split=False)),
    ("ClearML by split", "a.json", clearml(by_split=True)),
    ("Comet's chart", "a.json", json.dumps([xy(n) for n in NAMES])),
    ("Comet's answer", "a.json", comet_answer()),
    ("Sacred", "metrics.json", sacred()),
    ("Aim", "a.json", aim()),
    ("groups of charts", "a.json", json.dumps({f"{n} (DPO)": {n: xy(n)} for n in NAMES})),
    (
        "Aim's rows",
        "a.csv",
        tracker_rows("run.hash,metric.name,context.subset,step,value", "train"),
    ),
    ("Neptune's rows", "a.csv", tracker_rows("run_id,attribute_path,step,float_value")),
    ("TensorBoard's server", "a.json", time_series()),
    (
        "pairs of step and value",
        "a.json",
        json.dumps({n: [[r["step"], r[n]] for r in RECORDS] for n in NAMES}),
    ),
    (
        "Polyaxon",
        "a.json",
        json.dumps({n: [{"step": r["step"], "metric": r[n]} for r in RECORDS] for n in NAMES}),
    ),
    (
        "rows of step and value",
        "a.json",
        json.dumps({n: [{"step": r["step"], "value": r[n]} for r in RECORDS] for n in NAMES}),
    ),
    ("comments above", "a.csv", table(above="# a run\n# beta=0.1, loss: sigmoid\n")),
    ("comments above a text", "a.txt", table(above="# a run\n")),
    ("numpy's header", "a.csv", table(above="# ")),
    ("a comment between", "a.csv", table().replace("\n300,", "\n# saved\n300,")),
    ("comments and a separator", "a.csv", "# a\nsep=;\n" + table(";").replace(".", ",")),
    ("a quoted separator", "a.csv", '"sep=;"\n' + table(";")),
    ("marks of byte order", "a.csv", "\ufeff# a\n\ufeff" + table()),
    ("units", "a.csv", table(units="steps,nats,nats,nats,")),
    ("units in brackets", "a.tsv", table("\t", units="\t".join(["[-]", *["[nat]"] * 4]))),
    ("comments above lines", "a.jsonl", "# a\n// b\n" + shown(json.dumps)),
    ("comments above a document", "a.json", "// a\n" + json.dumps({"log_history": RECORDS})),
    ("commas behind the last", "a.json", behind_commas()),
    ("Python's literal", "a.json", literal()),
    ("a metric a row", "a.csv", "\n".join(map(",".join, turned()))),
    ("a metric a row, no corner", "a.csv", "\n".join(map(",".join, turned(corner=False)))),
    (
        "a metric a row, decimal commas",
        "a.csv",
        "\n".join(";".join(row).replace(".", ",") for row in turned()),
    ),
    (
        "a metric a row between bars",
        "a.md",
        "\n".join(f"| {' | '.join(row)} |" for row in [*turned()[:1], ["---"] * 61, *turned()[1:]]),
    ),
    ("a metric a row in a page", "a.html", turned_html()),
    ("a frame on its side", "a.txt", turned_frame()),
    ("XTuner", "a.log", shown(xtuner)),
    ("which way is better", "a.log", shown(better)),
    ("a panel a step", "a.log", shown(panel)),
    (
        "PaddleNLP",
        "a.log",
        shown(
            lambda r: (
                f"[    INFO] - loss: {r['loss']:.4f}, global_step: {r['step']:.0f}, "
                f"rewards/chosen: {r['rewards/chosen']:.4f}, "
                f"rewards/rejected: {r['rewards/rejected']:.4f}"
            )
        ),
    ),
    (
        "good and bad",
        "a.csv",
        table().replace(",".join(NAMES), "loss,implicit_reward_good,implicit_reward_bad,margin"),
    ),
]


EXPORTED += [
    ("errors behind means", "a.csv", "\n".join([",".join(HEAD), *(
        ",".join([c[0], *(f"{x} \u00b1 0.05" for x in c[1:])]) for c in rows()
    )])),
    ("units between bars", "a.md", "\n".join(
        f"| {' | '.join(row)} |" for row in [HEAD, ["---"] * 5, ["steps", *["nats"] * 4], *rows()]
    )),
    ("numpy's scalars between dashes", "a.log", shown(
        lambda r: f"step:{r['step']:.0f} - "
        + " - ".join(f"train/{n}:np.float64({r[n]})" for n in NAMES)
    )),
    ("a dict with decimal commas", "a.log", shown(
        lambda r: "{" + ", ".join(f"'{n}': {r[n]:.4f}".replace(".", ",") for n in HEAD) + "}"
    )),
    ("lists of a script", "a.py", "\n".join(f"{n} = {[r[n] for r in RECORDS]}" for n in HEAD)),
    ("lists of YAML", "a.yaml", "\n".join(f"'{n}': {[r[n] for r in RECORDS]}" for n in HEAD)),
    ("a page that ends no cell", "a.html", "<table>" + "".join(
        "<tr>" + "".join(f"<td>{c}" for c in row) for row in [HEAD, *rows()]
    )),
    ("a title above", "a.csv", table(above="My run, at last\n")),
    ("a table in a mail", "a.txt", table(above="Hello,\n\nsee below.\n") + "\n\nThanks, A. B.\n"),
    ("a means' row", "a.csv", table() + "\nmean,0.5,-1.0,-3.0,2.0\n"),
    ("separators behind rows", "a.csv", table().replace("\n", ",\n").replace("s,\n", "s\n")),
    ("a dash for a minus", "a.csv", table().replace(",-", ",\u2013")),
    ("an Asian minus", "a.csv", table().replace(",-", ",\uff0d")),
    ("powers of ten with a comma", "a.csv", "\n".join([";".join(HEAD), *(
        ";".join([c[0], *(f"{float(x):.5E}".replace(".", ",") for x in c[1:])]) for c in rows()
    )])),
    ("a frame's dict", "a.txt", repr(
        {n: {i: r[n] for i, r in enumerate(RECORDS)} for n in HEAD}
    )),
    ("arrays", "a.txt", str({n: np.array([r[n] for r in RECORDS]).tolist() for n in HEAD}).replace(
        "[", "array(["
    ).replace("]", "])")),
    ("a plot of a run", "a.json", json.dumps(
        {"data": [xy(n) | {"name": f"dpo-1 - {n}"} for n in NAMES], "layout": {}}
    )),
    ("numbers between quotes", "a.json", json.dumps(
        {n: {"x": [str(s) for s in STEPS], "y": [str(r[n]) for r in RECORDS]} for n in NAMES}
    )),
    ("a piece of a trainer's state", "a.txt", "it says\n\"log_history\": [\n" + "\n".join(
        json.dumps({n: r[n] for n in HEAD}, indent=2) for r in RECORDS
    )),
    ("Lightning's names", "metrics.csv", "\n".join([
        "epoch,step," + "".join(f"train_{n.replace('/', '_')}_step," for n in NAMES) + "loss_epoch",
        *(f"0,{','.join(c)}," for c in rows()),
        "0,599,,,,,0.4",
    ])),
]  # fmt: skip


def assert_is_the_falling_run(d: Diagnosis) -> None:
    assert (d.verdict, d.split, d.run.axis) == ("displacement", "train", "step")
    (chosen,) = (s for s in d.run.series if s.quantity == "chosen_reward")
    assert chosen.steps.tolist() == STEPS
    logged = [r["rewards/chosen"] for r in RECORDS]
    np.testing.assert_allclose(chosen.values, logged, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "text"), [e[1:] for e in EXPORTED], ids=[e[0] for e in EXPORTED])
def test_falling_run_is_read_with_its_steps(name: str, text: str, tmp_path: Path) -> None:
    assert_is_the_falling_run(judged(tmp_path / name, text))


def test_metrics_beside_a_loss_of_evaluation_alone_are_the_evaluations(tmp_path: Path) -> None:
    """Of rollouts they are logged without the prefix, far from the training's."""
    evaluation = {"eval_loss": 0.1, "entropy": 9.0, "completions/mean_length": 40.0, "step": 400.0}
    sampled = [r | {"loss": 0.1} for r in SAMPLED]
    d = judged(tmp_path / "a.json", json.dumps({"log_history": [*sampled, evaluation]}))
    assert d.verdict == "entropy collapse"


def test_resumed_run_of_the_long_form_keeps_the_last_values(tmp_path: Path) -> None:
    again = [*RECORDS[:40], *RECORDS[30:]]
    lines = [f"{n},{r['step']:.0f},{r[n]}" for n in NAMES for r in again]
    d = judged(tmp_path / "a.csv", "\n".join(["metric,step,value", *lines]))
    assert_is_the_falling_run(d)
    assert any("10 of 70 lines repeat a step" in n for n in d.run.notes)


def test_long_form_of_both_splits_is_two_series(tmp_path: Path) -> None:
    lines = [
        f"{n},{split},{r['step']:.0f},{r[n]}"
        for n in NAMES
        for split, run in (("train", RECORDS), ("val", RECORDS[5::6]))
        for r in run
    ]
    d = judged(tmp_path / "a.csv", "\n".join(["name,subset,step,value", *lines]))
    assert {s.split: len(s) for s in d.run.series} == {"train": 60, "eval": 10}


def test_rows_that_all_say_eval_are_evaluations(tmp_path: Path) -> None:
    lines = [f"eval,{r['step']:.0f},{r['rewards/chosen']}" for r in RECORDS]
    d = judged(tmp_path / "a.csv", "\n".join(["split,step,rewards/chosen", *lines]))
    assert d.split == "eval"


def test_table_of_results_with_a_run_a_column_is_not_turned(tmp_path: Path) -> None:
    lines = ["metric,before,after", "rewards/chosen,0.1,0.2", "rewards/rejected,0.1,-0.3"]
    (path := tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match="no header that a diagnosis knows"):
        load(path)


def test_rows_that_begin_with_a_broken_cell_are_no_comments(tmp_path: Path) -> None:
    """Excel's #DIV/0! stands where a mean has no values, as a loss that is no number."""
    lines = [f"{'#DIV/0!' if i > 40 else c[1]},{c[2]},{c[3]}" for i, c in enumerate(rows())]
    d = judged(tmp_path / "a.csv", "\n".join(["loss,rewards/chosen,rewards/rejected", *lines]))
    assert (d.verdict, d.findings[0].kind) == ("collapse", "diverged")


def test_header_of_two_rows_is_not_cut_in_half(tmp_path: Path) -> None:
    """The first row may say which columns are evaluations."""
    (path := tmp_path / "a.csv").write_text(table(above="train,train,eval,eval,eval\n"))
    with pytest.raises(InputError, match="no header that a diagnosis knows"):
        load(path)


def test_two_tables_of_a_text_are_refused(tmp_path: Path) -> None:
    (path := tmp_path / "a.txt").write_text(f"one\n{table()}\nother\n{table()}\n")
    with pytest.raises(InputError, match="several tables"):
        load(path)


def test_word_for_a_reward_is_no_row_of_units(tmp_path: Path) -> None:
    (path := tmp_path / "a.csv").write_text("step,rewards/chosen\n1,high\n2,-0.1\n")
    with pytest.raises(InputError, match="'high', not a number"):
        load(path)


def test_losses_alone_are_named_as_that_in_a_document_too(tmp_path: Path) -> None:
    text = json.dumps([{"step": r["step"], "loss": r["loss"]} for r in RECORDS])
    assert judged(tmp_path / "a.json", text).reason.startswith("the log holds loss only")


def charts(run: list[dict[str, float]]) -> str:
    names = [n for n in run[0] if n != "step"]
    return json.dumps({n: {"train": [[r["step"], r[n]] for r in run]} for n in names})


def sideways(run: list[dict[str, float]]) -> str:
    return "\n".join(",".join([n, *(str(r[n]) for r in run)]) for n in run[0])


def page(run: list[dict[str, float]]) -> str:
    head = "".join(f"<th>{n}</th>" for n in run[0])
    body = ("".join(f"<td>{v}</td>" for v in r.values()) for r in run)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{row}</tr>" for row in body) + "</table>"


def notebook(run: list[dict[str, float]]) -> str:
    data = {"text/html": page(run), "text/plain": "<IPython.core.display.HTML object>"}
    outputs = [{"output_type": "display_data", "data": data}]
    return json.dumps({"cells": [{"cell_type": "code", "outputs": outputs}]})


def wandb(run: list[dict[str, float]]) -> str:
    head = ",".join(f"dpo-1 - {n}" for n in run[0])
    return "\n".join(
        ["Step," + head, *(f"{r['step']},{','.join(map(str, r.values()))}" for r in run)]
    )


def named(run: list[dict[str, float]]) -> str:
    return "\n".join(", ".join(f"{n}={v}" for n, v in r.items()) for r in run)


SAMPLED = [
    {
        "step": 10.0 * i,
        "reward": 0.3 + 0.01 * i,
        "reward_std": 0.3,
        "entropy": 1.5 * math.exp(-i / 12),
        "completions/mean_length": 200.0,
    }
    for i in range(1, 41)
]
LAYOUTS: list[tuple[str, Callable[[list[dict[str, float]]], str]]] = [
    ("a.json", json.dumps),
    ("a.json", charts),
    ("a.csv", sideways),
    ("a.html", page),
    ("a.ipynb", notebook),
    ("a.csv", wandb),
    ("a.log", named),
]


@pytest.mark.parametrize(("name", "write"), LAYOUTS)
@pytest.mark.parametrize(
    ("run", "method", "verdict"),
    [
        (SAMPLED, "grpo", "entropy collapse"),
        ([r | {"kl": 0.1} for r in RECORDS], "kto", "displacement"),
        ([r | {"log_odds_chosen": 0.1} for r in RECORDS], "orpo", "displacement"),
    ],
    ids=["grpo", "kto", "orpo"],
)
def test_columns_that_name_the_training_are_kept(
    run: list[dict[str, float]],
    method: str,
    verdict: str,
    name: str,
    write: Callable[[list[dict[str, float]]], str],
    tmp_path: Path,
) -> None:
    d = judged(tmp_path / name, write(run))
    assert (d.verdict, d.run.method) == (verdict, method)


def test_table_without_cells_is_no_traceback(tmp_path: Path) -> None:
    (path := tmp_path / "a.html").write_text("<table><tr></tr><tr><td></table>")
    with pytest.raises(InputError, match="no log that is known"):
        load(path)


@pytest.mark.parametrize("second", [RECORDS, GOOD])
def test_two_runs_without_steps_are_refused(second: list[dict[str, float]], tmp_path: Path) -> None:
    """The second begins at the reference again; alone it might be healthy."""
    runs = [*RECORDS, *(r | {"loss": r["loss"] + 1e-3} for r in second)]
    (path := tmp_path / "a.log").write_text("\n".join(str({n: r[n] for n in NAMES}) for r in runs))
    with pytest.raises(InputError, match=r"fall back to 0 at line 61; this looks like several"):
        load(path)


@pytest.mark.parametrize("run", [RECORDS, GOOD])
def test_log_upside_down_is_refused_without_steps_and_read_with_them(
    run: list[dict[str, float]], tmp_path: Path
) -> None:
    turned_round = [{n: r[n] for n in HEAD} for r in run[::-1]]
    assert judged(tmp_path / "a.json", json.dumps(turned_round)).verdict == (
        "displacement" if run is RECORDS else "healthy"
    )
    without = [{n: r[n] for n in NAMES} for r in turned_round]
    (path := tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, without)))
    with pytest.raises(InputError, match="newest line stands first"):
        load(path)


@pytest.mark.parametrize("upside_down", [False, True])
def test_run_that_ends_in_no_numbers_has_diverged_in_whatever_order_its_lines_stand(
    upside_down: bool, tmp_path: Path
) -> None:
    broken = dict.fromkeys(NAMES, math.nan)
    run = [r | broken if r["step"] > 300 else r for r in GOOD]
    d = judged(tmp_path / "a.json", json.dumps(run[::-1] if upside_down else run))
    assert (d.verdict, d.findings[0].kind) == ("collapse", "diverged")
    assert d.reason.startswith("diverged at step 310")


def evaluated(line: Callable[[dict[str, float]], str]) -> str:
    """DeepSpeed-Chat's console."""
    pages = [
        f"***** Evaluating rewards, Epoch {i}/60 *****\n{line(r)}\n"
        f"Beginning of Epoch {i + 1}/60, Total Micro Batches 100"
        for i, r in enumerate(RECORDS)
    ]
    return "***** Running training *****\n" + "\n".join(pages)


def test_evaluations_of_deepspeed_chat_are_evaluations(tmp_path: Path) -> None:
    d = judged(
        tmp_path / "a.log",
        evaluated(lambda r: f"chosen: {r['rewards/chosen']}, rejected: {r['rewards/rejected']}"),
    )
    assert (d.verdict, d.split, d.run.axis) == ("displacement", "eval", "epoch")


def test_reward_model_of_deepspeed_chat_is_named(tmp_path: Path) -> None:
    d = judged(
        tmp_path / "a.log",
        evaluated(
            lambda r: (
                f"chosen_last_scores (higher is better) : {r['rewards/chosen']}, "
                f"acc (higher is better) : {r['rewards/accuracies']}"
            )
        ),
    )
    assert d.verdict == "undetermined"
    assert d.reason.startswith("a reward model's training")
