"""Logs as people paste them and services keep them: read as what they are, with their splits."""

import html
import json
import math
import pprint
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeeze.diagnosis import Diagnosis, diagnose, load
from tests.diagnosis.logs import jsonl, trl_records

pytestmark = pytest.mark.cpu

RECORDS: list[dict[str, float]] = [
    {k: float(v) for k, v in r.items()} for r in trl_records(batch_noise=2.0)
]
CONSOLE = [str({k: v for k, v in r.items() if k != "step"}) for r in RECORDS]
NAMES = ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins")


def judged(path: Path, text: str) -> Diagnosis:
    path.write_text(text)
    (run,) = load(path)
    return diagnose(run)


def shown(row: Callable[[dict[str, float]], str], *before: str) -> str:
    return "\n".join([*before, *map(row, RECORDS)]) + "\n"


def cells(r: dict[str, float]) -> list[str]:
    return [f"{r['step']:.0f}", *(f"{r[name]:.4f}" for name in NAMES)]


def unsloth(separator: str, prefix: str = "") -> str:
    """A notebook's table with the columns that only some rows have."""
    names = [name.replace("/", " / ") for name in NAMES[1:]]
    head = ["Step", "Training Loss", "Validation Loss", *names, "nll_loss"]
    rows = [head, *([*(c := cells(r))[:2], *c[1:], "No Log"] for r in RECORDS)]
    return "".join(f"{prefix}{separator.join(row)}\n" for row in rows)


def framed() -> str:
    rows = [["Step", "Training Loss", *NAMES[1:]], *map(cells, RECORDS)]
    lines = ["\u2502 " + " \u2502 ".join(row) + " \u2502" for row in rows]
    return "\n".join(["\u250f\u2501\u2501\u2533\u2501\u2501\u2513", *lines, "\u2514\u2500\u2518"])


def stacked() -> str:
    return "\n".join(["Step", *NAMES, *(cell for r in RECORDS for cell in cells(r))])


def polars() -> str:
    rows = [["step", *NAMES], ["---"] * 5, ["i64", *["f64"] * 4], *map(cells, RECORDS)]
    return "\n".join("\u2502 " + " \u2506 ".join(row) + " \u2502" for row in rows)


def latex() -> str:
    """A paper's table, with a rule, commands around cells and the typographic minus."""
    head = " & ".join(rf"\textbf{{{name}}}" for name in ("Step", *NAMES))
    rows = [" & ".join([c[0], f"${c[1]}$", *c[2:]]) for c in map(cells, RECORDS)]
    body = "\n".join(rf"{row} \\" for row in rows)
    return (
        rf"\begin{{table}}\begin{{tabular}}{{rrrrr}}\toprule {head} \\ \midrule"
        f"\n{body}\n\\bottomrule\\end{{tabular}} 3 & 4 \\\\ \\end{{table}}\n"
    )


def pandas() -> str:
    rows = ["  ".join(["", "step", *NAMES])]
    rows += [f"{i}  " + "  ".join(cells(r)) for i, r in enumerate(RECORDS)]
    return "\n".join([*rows, "", f"[{len(RECORDS)} rows x 5 columns]"])


def swanlab() -> str:
    head = ["step", *(f"dpo-2-train/{n}" for n in NAMES[1:]), "dpo-2-train/loss_timestamp"]
    return "\n".join(map(",".join, [head, *([*cells(r)[:1], *cells(r)[2:], "9"] for r in RECORDS)]))


def mlflow() -> str:
    rows = [{"key": n, "value": r[n], "step": r["step"]} for n in NAMES for r in RECORDS]
    return json.dumps({"run": {"metrics": rows}})


def comet() -> str:
    rows = [f"{n},{r[n]},{r['step']:.0f}" for n in NAMES for r in RECORDS]
    return "\n".join(["metricName,metricValue,step", *rows])


def kaggle() -> str:
    kept = [{"stream_name": "stdout", "time": 1.5, "data": line + "\n"} for line in CONSOLE]
    return "[" + "\n,".join(map(json.dumps, kept)) + "\n]"


def tensors(r: dict[str, float]) -> str:
    kept = [f"'{name}': tensor({r[name]:.4f}, device='cuda:0')" for name in NAMES]
    return "{" + ", ".join(kept) + "}"


def megatron(r: dict[str, float]) -> str:
    values = " | ".join(f"{name}: {r[name]:.6E}" for name in NAMES)
    return (
        f" [2026-01-02 03:04:05] iteration {r['step']:8.0f}/     600 | {values} | loss scale: 1.0 |"
    )


def nemo_rl(r: dict[str, float]) -> str:
    names = ("loss", "rewards_chosen_mean", "rewards_rejected_mean")
    bullets = [f"  \u2022 {n}: {r[k]:.4f}" for n, k in zip(names, NAMES, strict=False)]
    return "\n".join([f"===== Step {r['step']:.0f}/600 =====", "Training Results:", *bullets])


def mlx(r: dict[str, float]) -> str:
    chosen, rejected = r["rewards/chosen"], r["rewards/rejected"]
    return (
        f"Iter {r['step']:.0f}: loss {r['loss']:.3f}, chosen_r {chosen:.3f}, "
        f"rejected_r {rejected:.3f}, acc 0.8, margin {chosen - rejected:.3f}, lr 1.000e-06"
    )


def other_names(chosen: str, rejected: str) -> str:
    renamed = {"rewards/chosen": chosen, "rewards/rejected": rejected}
    return shown(lambda r: str({renamed.get(k, k): r[k] for k in ("loss", *renamed)}))


def spreadsheet(separator: str, swaps: str, quote: str = "") -> str:
    """A sheet in another country's numbers, up to 6,000 steps; `swaps` are commas' and points'."""
    swapped = str.maketrans(",.", swaps)
    rows = [(f"{10 * float(c[0]):,.0f}", *c[1:]) for c in map(cells, RECORDS)]
    lines = [separator.join(quote + x.translate(swapped) + quote for x in row) for row in rows]
    return "\n".join([separator.join(["Step", *NAMES]), *lines])


def header_again() -> str:
    head, *rows = spreadsheet(",", ",.", '"').splitlines()
    return "\n".join([head, *rows[:30], head, *rows[30:]])


def tagged() -> str:
    rows = [{"name": n, "step": r["step"], "value": r[n]} for r in RECORDS for n in NAMES]
    return "\n".join(map(json.dumps, rows))


def frame(orient: str) -> str:
    rows = [[r["step"], *(r[n] for n in NAMES)] for r in RECORDS]
    names = ["step", *NAMES]
    if orient == "split":
        return json.dumps({"columns": names, "index": [*range(len(rows))], "data": rows})
    return json.dumps(
        {n: {str(i): row[k] for i, row in enumerate(rows)} for k, n in enumerate(names)}
    )


def plot() -> str:
    steps = [r["step"] for r in RECORDS]
    traces = [
        {"name": n, "type": "scatter", "x": steps, "y": [r[n] for r in RECORDS]} for n in NAMES
    ]
    return json.dumps({"data": traces, "layout": {"title": "rewards"}})


def wrapped_frame() -> str:
    """What pandas prints of a frame that is wider than the terminal."""
    first = ["    step    loss  rewards/chosen  \\"]
    first += [f"{i}  {' '.join(cells(r)[:3])}" for i, r in enumerate(RECORDS)]
    second = ["    rewards/rejected  rewards/margins"]
    second += [f"{i}  {' '.join(cells(r)[3:])}" for i, r in enumerate(RECORDS)]
    return "\n".join([*first, "", *second])


def restructured() -> str:
    rule = "  ".join(["=" * 16] * 5)
    rows = ["  ".join(f"{c:>16}" for c in row) for row in [["Step", *NAMES], *map(cells, RECORDS)]]
    return "\n".join([rule, rows[0], rule, *rows[1:], rule])


PASTED: list[tuple[str, str, str]] = [
    ("a German sheet", "a.csv", spreadsheet(";", ".,")),
    ("a German sheet between tabs", "a.tsv", spreadsheet("\t", ".,")),
    ("a German sheet between quotes", "a.csv", spreadsheet(",", ".,", '"')),
    ("a French sheet", "a.tsv", spreadsheet("\t", "\u202f,").replace("-", "\u2212")),
    ("an American sheet", "a.csv", spreadsheet(",", ",.", '"')),
    ("a frame by columns", "a.json", frame("columns")),
    ("a frame by rows", "a.json", frame("split")),
    ("a plot", "a.json", plot()),
    ("a frame that pandas wrapped", "a.txt", wrapped_frame()),
    ("reStructuredText", "a.rst", restructured()),
    (
        "a German console",
        "a.txt",
        shown(lambda r: ", ".join(f"{n}={r[n]:.4f}".replace(".", ",") for n in NAMES)),
    ),
    ("Excel's separator line", "a.csv", "sep=;\n" + spreadsheet(";", ",.").replace(",", "")),
    ("columns between bars", "a.csv", spreadsheet("|", ",.")),
    ("a header that comes again", "a.csv", header_again()),
    ("objects one after the other", "a.json", "".join(json.dumps(r) for r in RECORDS)),
    ("objects over several lines", "a.json", "\n".join(json.dumps(r, indent=1) for r in RECORDS)),
    ("a tag and a value a line", "a.jsonl", tagged()),
    (
        "names and values between blanks",
        "a.txt",
        shown(lambda r: " ".join(f"{n} {r[n]:.4f}" for n in NAMES)),
    ),
    (
        "a Chinese console",
        "a.txt",
        shown(lambda r: "\uff0c".join(f"{n}\uff1a{r[n]:.4f}" for n in NAMES)),
    ),
    ("numpy's scalars", "a.log", shown(lambda r: str({k: np.float64(v) for k, v in r.items()}))),
    ("torch's scalars", "a.log", shown(tensors)),
    ("a container's JSON", "a.log", "\n".join(json.dumps({"log": c + "\n"}) for c in CONSOLE)),
    ("Kaggle's log", "a.log", kaggle()),
    ("a pretty-printed history", "a.txt", ">>> pprint(history)\n" + pprint.pformat(RECORDS)),
    ("lines about data", "a.log", '{"prompt": "x", "chosen": "y"}\n' + "\n".join(CONSOLE)),
    ("a quoted mail", "a.txt", "".join(f"> {line}\n" for line in CONSOLE)),
    ("Unsloth's table", "a.txt", unsloth("\t")),
    ("Unsloth's table in a script", "a.py", unsloth("\t", "# ").expandtabs(4)),
    ("a table of single blanks", "a.txt", unsloth(" ")),
    (
        "a cell a line",
        "a.txt",
        stacked(),
    ),
    ("a table in a frame", "a.txt", framed()),
    ("Megatron", "a.log", shown(megatron)),
    ("NeMo-RL", "a.log", shown(nemo_rl)),
    ("mlx-lm-lora", "a.log", shown(mlx)),
    ("a word processor's quotes", "a.txt", "\n".join(CONSOLE).replace("'", "\u2019")),
    ("a page's quotes", "a.html", f"<pre>{html.escape(chr(10).join(CONSOLE))}</pre>"),
    ("Comet's export", "a.csv", comet()),
    ("a frame of polars", "a.txt", polars()),
    ("LaTeX", "a.tex", latex()),
    ("what pandas prints", "a.txt", pandas()),
    ("SwanLab's export", "a.csv", swanlab()),
    ("MLflow's answer", "a.json", mlflow()),
    ("SPIN's names", "a.log", other_names("rewards/real", "rewards/generated")),
    ("short names", "a.log", other_names("r_w", "r_l")),
]


@pytest.mark.parametrize(("name", "text"), [p[1:] for p in PASTED], ids=[p[0] for p in PASTED])
def test_falling_run_is_displacement_wherever_it_is_pasted_from(
    name: str, text: str, tmp_path: Path
) -> None:
    d = judged(tmp_path / name, text)
    assert (d.verdict, len(d.run.series[0])) == ("displacement", len(RECORDS))
    (chosen,) = (s for s in d.run.series if s.quantity == "chosen_reward")
    logged = [r["rewards/chosen"] for r in RECORDS]
    np.testing.assert_allclose(chosen.values, logged, rtol=0, atol=1e-3)
    assert np.abs(np.diff(chosen.steps, 2)).max() <= 2.01e-4  # epochs have four decimals


def test_rows_that_say_train_or_eval_are_two_splits(tmp_path: Path) -> None:
    rows = [["#", "Type", *NAMES], ["---"] * 6]
    for i, r in enumerate(RECORDS):
        rows.append([str(i), "Train", *cells(r)[1:]])
        if i % 6 == 5:
            rows.append([str(i), "Eval", *cells(r)[1:]])
    rows.append(["60", "Train Summary", "0.48", "-", "-", "-"])
    d = judged(tmp_path / "a.md", "\n".join("| " + " | ".join(row) + " |" for row in rows))
    assert {s.split: len(s) for s in d.run.series} == {"train": 60, "eval": 10}


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_nan_for_an_empty_cell_is_no_divergence(suffix: str, tmp_path: Path) -> None:
    """pandas writes NaN where a line of the other split has no value."""
    ends = {f"eval_{k}": RECORDS[5][k] for k in NAMES}
    empty = dict.fromkeys([*NAMES, *ends], math.nan)
    records = [empty | {k: r[k] for k in (*NAMES, "step")} for r in RECORDS]
    records.insert(30, empty | ends | {"step": 300})
    text = "".join(json.dumps(r) + "\n" for r in records)
    if suffix == "csv":
        columns = list(records[0])
        rows = [",".join(str(r[c]) for c in columns) for r in records]
        text = "\n".join([",".join(columns), *rows])
    d = judged(tmp_path / f"a.{suffix}", text)
    assert (d.verdict, "diverged" in [f.kind for f in d.findings]) == ("displacement", False)


def test_rewards_that_were_never_numbers_have_diverged(tmp_path: Path) -> None:
    broken = {"rewards/chosen": math.nan, "rewards/rejected": math.nan, "loss": 0.0}
    (run,) = load(jsonl(tmp_path / "a.jsonl", [{"step": i} | broken for i in range(1, 9)]))
    d = diagnose(run)
    assert d.verdict == "collapse"
    assert d.reason.startswith("diverged at step 1, line 1: rewards/chosen, rewards/rejected are")


def test_last_batch_without_rejected_answers_is_no_divergence(tmp_path: Path) -> None:
    last = RECORDS[-1] | {"rewards/rejected": math.nan, "rewards/margins": math.nan}
    (run,) = load(jsonl(tmp_path / "a.jsonl", [{"kl": 0.1} | r for r in [*RECORDS[:-1], last]]))
    assert diagnose(run).verdict == "displacement"


@pytest.mark.parametrize("good", [1, -1])
def test_rewards_that_are_nan_for_good_have_diverged_whatever_the_loss_says(
    good: int, tmp_path: Path
) -> None:
    """A reference that gives NaN leaves the policy's log-probs finite."""
    broken = {"rewards/chosen": "NaN", "rewards/rejected": "NaN"}
    rows = [r | {"rewards/chosen": good * r["rewards/chosen"]} for r in RECORDS]
    (run,) = load(jsonl(tmp_path / "a.jsonl", [*rows[:40], *(r | broken for r in rows[40:])]))
    d = diagnose(run)
    assert (d.verdict, d.findings[0].kind) == ("collapse", "diverged")


def test_rewards_that_are_logged_now_and_then_have_not_diverged(tmp_path: Path) -> None:
    seldom = {"rewards/chosen": "nan", "rewards/rejected": "nan", "logps/chosen": "nan"}
    rows = [r if i % 7 == 0 else r | seldom for i, r in enumerate(RECORDS)]
    (run,) = load(jsonl(tmp_path / "a.jsonl", rows))
    d = diagnose(run)
    assert (d.verdict, "diverged" in [f.kind for f in d.findings]) == ("displacement", False)


@pytest.mark.parametrize(
    ("chosen", "rejected", "margin", "kind"),
    [(1, 1, 0, "copies"), (1, -1, -2, "swapped")],
    ids=["one column twice", "a margin of the other sign"],
)
def test_doubtful_columns_are_never_healthy(
    chosen: int, rejected: int, margin: int, kind: str, tmp_path: Path
) -> None:
    rows = [
        {
            "step": r["step"],
            "rewards/chosen": -chosen * r["rewards/chosen"],
            "rewards/rejected": -rejected * r["rewards/chosen"],
            "rewards/margins": -margin * r["rewards/chosen"],
        }
        for r in RECORDS
    ]
    (run,) = load(jsonl(tmp_path / "a.jsonl", rows))
    d = diagnose(run)
    assert kind in [f.kind for f in d.findings]
    assert d.verdict != "healthy"


def test_online_dpo_is_never_healthy(tmp_path: Path) -> None:
    rows = [
        {"step": r["step"], "objective/kl": 0.1, "objective/scores": 0.2}
        | {"rewards/chosen": -r["rewards/chosen"], "rewards/rejected": r["rewards/rejected"]}
        for r in RECORDS
    ]
    (run,) = load(jsonl(tmp_path / "a.jsonl", rows))
    d = diagnose(run)
    assert (d.verdict, run.method) == ("undetermined", "online dpo")


def test_bare_chosen_of_both_signs_is_a_reward(tmp_path: Path) -> None:
    rising = [f"step {i}: chosen: {0.02 * i:.3f} | rejected: {-0.03 * i:.3f}" for i in range(40)]
    d = judged(tmp_path / "a.log", "\n".join(rising))
    assert (d.verdict, d.splits[0].evidence[0].unit) == ("healthy", "reward")


def test_margin_whose_columns_are_swapped_is_taken_from_the_other_two(tmp_path: Path) -> None:
    turned: list[dict[str, Any]] = [
        r | {"rewards/margins": r["rewards/rejected"] - r["rewards/chosen"]} for r in RECORDS
    ]
    (run,) = load(jsonl(tmp_path / "a.jsonl", turned))
    d = diagnose(run)
    assert (d.verdict, "swapped" in [f.kind for f in d.findings]) == ("displacement", True)


def test_noisy_log_probs_beside_rewards_of_one_set_are_not_used(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = [
        {"step": i, "eval_logps/chosen": -250 + 30 * rng.normal(), "eval_rewards/chosen": -0.05 * i}
        for i in range(1, 31)
    ]
    (run,) = load(jsonl(tmp_path / "a.jsonl", records))
    assert diagnose(run).verdict == "displacement"


def test_printed_end_of_a_training_is_no_second_run(tmp_path: Path) -> None:
    table = unsloth("\t")
    end = "TrainOutput(global_step=600, metrics={'train_runtime': 7.0, 'train_loss': 0.3})"
    outputs = [{"output_type": "stream", "text": table}]
    outputs.append({"output_type": "execute_result", "data": {"text/plain": end}})
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "outputs": outputs}]}))
    (run,) = load(path)
    assert diagnose(run).verdict == "displacement"


def test_grpo_console_of_verl_is_named_and_its_entropy_judged(tmp_path: Path) -> None:
    text = "\n".join(
        f"(TaskRunner pid=1) step:{i} - actor/entropy:{1.2 * math.exp(-i / 20):.3f} - "
        f"actor/pg_loss:-0.003 - critic/score/mean:{0.3 + 0.005 * i:.3f}"
        for i in range(1, 60)
    )
    d = judged(tmp_path / "a.log", text)
    assert (d.verdict, d.run.method) == ("entropy collapse", "grpo")
    assert d.reason.startswith("entropy goes from 1.0")


def test_closing_evaluation_says_where_it_stands_against_the_reference(tmp_path: Path) -> None:
    shown = "***** eval metrics *****\n  eval_loss = 0.7496\n  eval_rewards/chosen = -4.5221\n"
    d = judged(tmp_path / "a.log", shown + "  eval_rewards/rejected = -8.3184\n")
    assert d.verdict == "undetermined"
    assert any("ends at -4.52, below the reference" in c for c in d.cautions)


def test_table_of_results_has_a_run_a_row_and_no_trend(tmp_path: Path) -> None:
    rows = [f"| v{i} | {-0.1 * i:.2f} | {-0.4 * i:.2f} |" for i in range(8)]
    (path := tmp_path / "a.md").write_text(
        "\n".join(["| Model | rewards/chosen | rewards/rejected |", "|---|---|---|", *rows])
    )
    found = load(path)
    assert [run.name for run in found] == [f"v{i}" for i in range(8)]
    assert {diagnose(run).verdict for run in found} == {"undetermined"}


def by_epoch(i: int, r: dict[str, float]) -> str:
    chosen, rejected = r["rewards/chosen"], r["rewards/rejected"]
    return (
        f"Epoch {1 + i // 20}/3 | Step {10 * (i % 20 + 1)}/200 | reward_chosen: {chosen:.4f} | "
        f"reward_rejected: {rejected:.4f}"
    )


def test_steps_that_begin_again_with_every_epoch_are_counted_on(tmp_path: Path) -> None:
    d = judged(tmp_path / "a.log", "\n".join(by_epoch(i, r) for i, r in enumerate(RECORDS)))
    assert d.run.series[0].steps.tolist() == [10.0 * (i + 1) for i in range(60)]


def test_steps_with_thousands_apart_are_whole(tmp_path: Path) -> None:
    rows = [f"| {100 * (i + 1):,} | {r['rewards/chosen']:.4f} |" for i, r in enumerate(RECORDS)]
    text = "\n".join(["| Step | rewards/chosen |", "|---|---|", *rows])
    assert judged(tmp_path / "a.md", text).run.series[0].steps[-1] == 6000


def test_log_of_sft_before_that_of_dpo_is_left_out(tmp_path: Path) -> None:
    sft = [str({"loss": 2.2 - 0.02 * i, "epoch": (i + 1) / 40}) for i in range(40)]
    d = judged(tmp_path / "a.log", "\n".join([*sft, *CONSOLE]))
    assert d.verdict == "displacement"
    assert any("40 lines before line 41 are of another training" in n for n in d.run.notes)


def test_nested_lines_are_read(tmp_path: Path) -> None:
    def nested(r: dict[str, float]) -> str:
        rewards = {"chosen": r["rewards/chosen"], "rejected": r["rewards/rejected"]}
        return json.dumps({"event": "log", "data": {"step": r["step"], "rewards": rewards}})

    d = judged(tmp_path / "a.jsonl", shown(nested))
    assert (d.verdict, d.run.axis) == ("displacement", "step")


def scores(at: float, *, named: bool = False) -> str:
    """OpenRLHF's lines of a reward model whose scores begin at `at`, chosen falling more slowly."""
    rng = np.random.default_rng(0)
    rows = [
        {"loss": 0.69 - 0.005 * i, "acc": 0.5, "chosen_reward": chosen, "reject_reward": rejected}
        | ({"loss_mean": 0.69, "reward_mean": chosen} if named else {})
        for i in range(60)
        for chosen, rejected in [rng.normal((at - 0.01 * i, at - 0.03 * i), 0.03)]
    ]
    bars = (", ".join(f"{k}={v:.4f}" for k, v in row.items()) for row in rows)
    return "".join(f"Train step of epoch 0:  3%|x | 1/60 [00:41<04:17, {bar}]\n" for bar in bars)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.log", scores(0, named=True), "a reward model's training"),
        ("a.log", "deepspeed --module openrlhf.cli.train_rm\n" + scores(0), "a reward model's"),
        ("train_rm.log", scores(0), "a reward model's training"),
        ("a.log", scores(0.7), "told by the rewards"),
        ("dpo.log", scores(0.7), "the reference is not"),
        ("a.log", "Namespace(rlhf_type='dpo')\n" + scores(0.7), "the reference is not"),
        ("a.log", scores(0), "chosen falls"),
    ],
    ids=["its mean", "its script", "its file", "its start", "DPO's file", "DPO's", "neither"],
)
def test_reward_models_scores_are_not_judged_as_dpo(
    name: str, text: str, says: str, tmp_path: Path
) -> None:
    d = judged(tmp_path / name, text)
    assert says in d.reason
    assert ("reward model" in d.reason) == (d.verdict == "undetermined" and not d.splits)
    assert says != "chosen falls" or any("reward model" in c for c in d.cautions)


def test_trls_reward_trainer_is_named(tmp_path: Path) -> None:
    rows = [{"step": i, "loss": 0.6, "min_reward": -1, "max_reward": 1} for i in range(9)]
    (run,) = load(jsonl(tmp_path / "a.jsonl", rows))
    assert diagnose(run).reason.startswith("a reward model's training")


def test_accuracy_alone_is_named_as_that(tmp_path: Path) -> None:
    rows = [{"step": i, "rewards/accuracies": 0.5} for i in range(9)]
    (run,) = load(jsonl(tmp_path / "a.jsonl", rows))
    assert diagnose(run).reason.startswith("the log holds rewards/accuracies only")


def test_margins_of_unpaired_answers_that_are_never_numbers_are_no_divergence(
    tmp_path: Path,
) -> None:
    gone = {"rewards/margins": "nan", "kl": 0.1}
    sides = ({"rewards/chosen": "nan"}, {"rewards/rejected": "nan"}, {})
    rows = [r | gone | sides[i % 3] for i, r in enumerate(RECORDS)]
    (run,) = load(jsonl(tmp_path / "a.jsonl", rows))
    d = diagnose(run)
    assert (d.verdict, run.method, d.findings) == ("displacement", "kto", ())
