"""Commands that the fuzz suite calls, each on damaged copies of small files of our own making.

A command is a function that writes its input into an empty directory and returns the arguments. A
check behind it says what an exit code of 0 or 1 must mean: no row without a word, no verdict from
nonsense. Nothing trains: the trainings end where the trainer is about to start.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from squeeze.data.writing import WRITABLE
from squeeze.diagnosis import VERDICTS
from squeeze.training.config import RunConfig
from squeeze.training.llamafactory_keys import Keys
from tests.data.test_formats import ROWS
from tests.diagnosis.logs import jsonl, trainer_state, trl_records
from tests.fuzz import damage
from tests.fuzz.harness import Outcome

Build = Callable[[Path, Random], list[object]]
Check = Callable[[Outcome, Path], list[str]]


@dataclass(frozen=True)
class Command:
    """A command: what builds its input, what its answer must keep, whether it takes seconds."""

    build: Build
    check: Check
    heavy: bool


COMMANDS: dict[str, Command] = {}


def command(check: Check = lambda outcome, place: [], heavy: bool = False) -> Any:
    """Register a builder under its function's name."""

    def register(build: Build) -> Build:
        COMMANDS[build.__name__.replace("_", " ")] = Command(build, check, heavy)
        return build

    return register


# --- logs -----------------------------------------------------------------------------------------

_RECORDS = trl_records(n=16)
_NONSENSE = ("poem.txt", "config.json", "code.py", "numbers.csv", "noise.bin", "pairs.jsonl")


def _log(place: Path, random: Random, name: str = "log") -> Path:
    """A log in one of the forms that trainers write, damaged."""
    form = random.choice(["trainer_state.json", "jsonl", "csv", "txt", "md", "ipynb"])
    path = place / (form if "." in form else f"{name}.{form}")
    fields = ["step", "loss", "rewards/chosen", "rewards/rejected", "logps/chosen"]
    if form == "trainer_state.json":
        trainer_state(path, _RECORDS)
        path.write_bytes(damage.json_bytes(json.loads(path.read_text()), random))
        return path
    if form == "jsonl":
        rows = damage.json_of(_RECORDS, random)
        jsonl(path, rows if isinstance(rows, list) else [rows])
    elif form == "csv":
        lines = [",".join(str(r[f]) for f in fields) for r in _RECORDS]
        path.write_text("\n".join([",".join(fields), *lines]) + "\n")
    elif form == "md":
        lines = ["| " + " | ".join(f"{r[f]:.4g}" for f in fields) + " |" for r in _RECORDS]
        path.write_text("\n".join(["| " + " | ".join(fields) + " |", "|---" * 5 + "|", *lines]))
    else:
        path.write_text("".join(f"{r}\n" for r in _RECORDS))
        if form == "ipynb":
            cell = {"cell_type": "code", "outputs": [{"text": path.read_text().splitlines(True)}]}
            path.write_bytes(damage.json_bytes({"cells": [cell]}, random))
            return path
    if random.random() < 0.8:
        path.write_bytes(damage.bytes_of(path.read_bytes(), random))
    return path


def _judged(outcome: Outcome, place: Path) -> list[str]:
    if outcome.code not in (0, 1) or "--json" not in outcome.argv:
        return []
    return [f"verdict {v!r}" for v in _verdicts(outcome) if v not in VERDICTS]


def _verdicts(outcome: Outcome) -> list[str]:
    document = json.loads(outcome.stdout)
    return [run["verdict"] for run in document.get("runs", [document])]


def _undetermined(outcome: Outcome, place: Path) -> list[str]:
    """Nonsense is refused, or nothing is said of it."""
    if outcome.code not in (0, 1):
        return []
    return [f"nonsense is {v}" for v in _verdicts(outcome) if v not in _OF_NONSENSE]


_OF_NONSENSE = ("undetermined", "collapse")


@command(_judged)
def diagnose(place: Path, random: Random) -> list[object]:
    """A log; now and then with a page, a format or an alarm."""
    more: list[object] = random.choice(
        [["--json"], ["--json"], [], ["--markdown"], ["--csv"], ["--report", "page"]]
    )
    alarm = random.choice([[], ["--fail-on", "squeezing,collapse"]])
    return ["diagnose", _log(place, random), *more, *alarm]


@command()
def compare(place: Path, random: Random) -> list[object]:
    """Two logs side by side."""
    return ["compare", _log(place, random, "a"), _log(place, random, "b")]


@command(_undetermined)
def diagnose_nonsense(place: Path, random: Random) -> list[object]:
    """What is no log, or a log without one finite number: no verdict may come of it."""
    name = random.choice([*_NONSENSE, "nan.jsonl"])
    path = place / name
    if name == "nan.jsonl":
        empty = random.choice([float("nan"), float("-inf"), None, "nan"])
        rows = [{k: v if k == "step" else empty for k, v in r.items()} for r in _RECORDS]
        jsonl(path, rows)
    elif name == "noise.bin":
        path.write_bytes(random.randbytes(2000))
    elif name == "numbers.csv":
        rows = [",".join(str(random.random()) for _ in range(4)) for _ in range(30)]
        path.write_text("\n".join(["a,b,c,d", *rows]))
    elif name == "pairs.jsonl":
        path.write_text("".join(json.dumps(ROWS["trl"][0]) + "\n" for _ in range(30)))
    else:
        words = ["loss", "chosen", "the", "of", "step", "3", "= 4", "{", "}", "\n", "rewards", ":"]
        path.write_text(" ".join(random.choice(words) for _ in range(400)))
    return ["diagnose", path, "--json"]


# --- files of our own -----------------------------------------------------------------------------


@cache
def _run_files() -> dict[str, bytes]:
    """A small run directory, as a run leaves it."""
    import tempfile

    from tests.report import synthetic

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        arms = ("dpo", "sft-dpo")
        small = synthetic.trajectory(arms, ("chosen", "rejected", "permuted"), 4, 3, 3)
        small.write(place / "trajectory.parquet")
        files = {path.name: path.read_bytes() for path in place.iterdir()}
    phase = {"kind": "dpo", "on": "pairs", "epochs": 3}
    run = {
        "schema": 1, "name": "a run", "command": "squeeze replicate", "status": "finished",
        "config": {"model": "tiny", "beta": 0.1}, "created": "2026-01-01",
        "seconds": {"train": 1.5},
        "arms": [{"name": n, "title": n, "phases": [phase]} for n in arms],
        "model": {"name": "tiny", "parameters": 5}, "data": {"name": "d", "n_train": 4},
        "scoring": {"dtype": "float32"}, "not_run": [{"what": "x", "why": "y"}],
        "versions": {"torch": "2"}, "device": "cpu",
    }  # fmt: skip
    verdicts = {"schema": 2, "verdicts": [asdict(v) for v in synthetic.verdicts()]}
    values = {"run.json": run, "verdicts.json": verdicts, "samples.json": synthetic.samples(arms)}
    return files | {name: json.dumps(value).encode() for name, value in values.items()}


@cache
def _diagnosis() -> bytes:
    """A diagnosis.json, as `diagnose --report` writes it."""
    import tempfile

    from squeeze import diagnosis
    from squeeze.diagnosis.page import write_report

    with tempfile.TemporaryDirectory() as scratch:
        log = trainer_state(Path(scratch) / "trainer_state.json", _RECORDS)
        write_report([diagnosis.diagnose(run) for run in diagnosis.load(log)], Path(scratch) / "p")
        return (Path(scratch) / "p" / "diagnosis.json").read_bytes()


def _damaged(name: str, data: bytes, random: Random) -> bytes:
    if name.endswith(".json"):
        return damage.json_bytes(json.loads(data), random)
    if random.random() < 0.4:
        return damage.bytes_of(data, random)
    return _damaged_table(data, random)


def _damaged_table(data: bytes, random: Random) -> bytes:
    """A trajectory with a column of another type, or cells, rows or names that do not belong."""
    import io

    import numpy as np
    import pandas as pd

    frame = pd.read_parquet(io.BytesIO(data))
    column = random.choice(list(frame.columns))
    how = random.randrange(7)
    if how == 0:
        frame = pd.concat([frame, frame.head(5)])
    elif how == 1:
        frame = frame.drop(columns=column)
    elif how == 2:
        frame[column] = [[1]] * len(frame)
    elif how == 3:
        frame = frame.sample(frac=0.7, random_state=random.randrange(2**31))
    else:
        values = [None, np.nan, np.inf, -1, 2**40, "", "x", "[bold]", "<b>", "a\x1b[2J", "\ud83d"]
        frame[column] = frame[column].astype(object)
        rows = slice(0, random.choice([1, len(frame)]))
        frame.iloc[rows, list(frame.columns).index(column)] = random.choice(values)
    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=False)
    except (ValueError, TypeError, UnicodeError, OverflowError):
        frame[column] = frame[column].map(ascii)
        frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _paged(outcome: Outcome, place: Path) -> list[str]:
    """A page that was promised is there, and shows every figure that it names."""
    page = place / "run" / "index.html"
    if outcome.code != 0:
        return []
    text = page.read_text(encoding="utf-8")
    named = re.findall(r'src="(figures/[^"]+|[^":]+\.png)"', text)
    return [f"{name} is missing" for name in named if not (page.parent / name).exists()]


def _run(place: Path, random: Random) -> Path:
    run = place / "run"
    run.mkdir()
    files = dict(_run_files())
    hurt = random.choice(list(files))
    files[hurt] = _damaged(hurt, files[hurt], random)
    for name, data in files.items():
        (run / name).write_bytes(data)
    if random.random() < 0.2:
        del files[hurt]
        (run / hurt).unlink()
    return run


@command(_paged, heavy=True)
def report(place: Path, random: Random) -> list[object]:
    """A run directory with one file damaged or gone."""
    return ["report", _run(place, random)]


@command(_paged, heavy=True)
def report_of_a_diagnosis(place: Path, random: Random) -> list[object]:
    """A directory that `diagnose --report` wrote."""
    (place / "run").mkdir()
    damaged = damage.json_bytes(json.loads(_diagnosis()), random)
    (place / "run" / "diagnosis.json").write_bytes(damaged)
    return ["report", place / "run"]


@cache
def _callback_files() -> dict[str, Any]:
    """What the callback leaves of a training that samples its answers, its trajectory apart."""
    about = {
        "schema": 1, "name": "r", "config": {}, "command": "SqueezeCallback", "method": "grpo",
        "verdict": "healthy", "diverged": {"step": 3, "why": "no finite log-probs"},
    }  # fmt: skip
    rollouts = [
        {"step": i, "entropy": 2.0 - i / 20, "length": 40.0, "reward": i / 10, "tied": 0.2}
        for i in range(24)
    ]
    answer = {"arm": "run", "phase": "dpo", "text": "yes", "prompt": "?", "decoding": "greedy"}
    measured = {"repetition": 0.1, "end_of_text": 1.0, "length": 3.0}
    generations = [
        answer | measured | {"example": example, "epoch": probe}
        for example in ("a", "b")
        for probe in range(8)
    ]
    samples = {"schema": 1, "tokens": [], "generations": generations}
    return {"run.json": about, "rollouts.json": rollouts, "samples.json": samples}


@command(_judged)
def diagnose_of_the_callback(place: Path, random: Random) -> list[object]:
    """A directory that the callback wrote, one file of it damaged."""
    from tests.report import synthetic

    run = place / "run"
    run.mkdir()
    synthetic.trajectory(("run",), ("chosen", "rejected"), 4, 0, 6).write(
        run / "trajectory.parquet"
    )
    files = _callback_files()
    hurt = random.choice(list(files))
    for name, value in files.items():
        data = damage.json_bytes(value, random) if name == hurt else json.dumps(value).encode()
        (run / name).write_bytes(data)
    return ["diagnose", run, "--json"]


@command(_judged, heavy=True)
def diagnose_a_run(place: Path, random: Random) -> list[object]:
    """A run directory as the run that is judged."""
    return ["diagnose", _run(place, random), "--json"]


@cache
def _ledger() -> dict[str, Any]:
    """A claims.json of a few rows."""
    from squeeze.claims import catalogue
    from squeeze.claims.ledger import entry_to_json, new_entry
    from tests.report import synthetic

    rows = [
        new_entry(v, catalogue.get(v.claim), seconds=1.0, test="t") for v in synthetic.verdicts()
    ]
    return {"schema": 2, "claims": [entry_to_json(row) for row in rows]}


@command()
def claims(place: Path, random: Random) -> list[object]:
    """A damaged ledger, as a table, Markdown, JSON, pages or one claim."""
    (place / "claims.json").write_bytes(damage.json_bytes(_ledger(), random))
    forms = ["--markdown", "--markdown --rows", "--json", "DO-1", "EX-1 --json", "--pages pages"]
    more = random.choice(["", *forms, "--write-results results.json"]).split()
    return ["claims", "--reports", place, *more]


@command()
def claims_results(place: Path, random: Random) -> list[object]:
    """A ledger, written into a damaged file of results."""
    from squeeze.claims.results import FILE

    (place / "claims.json").write_text(json.dumps(_ledger()))
    shipped = json.loads(FILE.read_text(encoding="utf-8"))
    shipped["results"] = shipped["results"][:6]
    (place / "results.json").write_bytes(damage.json_bytes(shipped, random))
    return ["claims", "--reports", place, "--write-results", place / "results.json"]


def _verdicts_stand(outcome: Outcome, place: Path) -> list[str]:
    """A ledger is written where all was well, and holds no number that is none."""
    if outcome.code != 0:
        return []
    text = (place / "reports" / "claims.json").read_text(encoding="utf-8")
    return [f"{word} in the ledger" for word in ("NaN", "Infinity") if word in text]


@command(_verdicts_stand, heavy=True)
def observe_recorded(place: Path, random: Random) -> list[object]:
    """Records of the claims beyond the paper, one of them damaged."""
    source = Path(__file__).parents[2] / "reports" / "reference" / "observations" / "tiny"
    part = random.choice(["group-relative", "one-edit-contrast"])
    claims = "GR-1,GR-2,NS-1" if part == "group-relative" else "DP-4"
    paths = sorted(source.glob(f"{part}-*.json"))
    hurt = random.choice(paths)
    (place / "records").mkdir()
    for path in paths:
        data = path.read_bytes()
        if path == hurt:
            data = damage.json_bytes(json.loads(data), random)
        (place / "records" / path.name).write_bytes(data)
    more = ["--records", place / "records", "--recorded", "--out", place / "reports"]
    return ["observe", "tiny", "--claims", claims, *more]


@cache
def _benchmark() -> dict[str, Any]:
    """A benchmark's JSON of two cases."""
    docs = Path(__file__).parents[2] / "docs" / "kernels-cpu.json"
    value: dict[str, Any] = json.loads(docs.read_text(encoding="utf-8"))
    return value | {"cases": value["cases"][:2]}


@command()
def bench_draw(place: Path, random: Random) -> list[object]:
    """A benchmark's JSON, drawn again."""
    (place / "b.json").write_bytes(damage.json_bytes(_benchmark(), random))
    plots = [["--markdown", "b.md"], ["--markdown", "b.md"], ["--plot", "b.png"]]
    return ["bench", "draw", place / "b.json", *random.choice([*plots, ["--roofline", "r.png"]])]


# --- preference data ------------------------------------------------------------------------------


def _data(place: Path, random: Random, n: int = 6) -> Path:
    """Preference rows of some format, damaged; some lines are sound."""
    rows = ROWS[random.choice(list(ROWS))] * n
    ending = random.choice(["jsonl", "jsonl", "json", "csv", "jsonl.gz", "parquet"])
    path = place / f"data.{ending}"
    if ending == "jsonl":
        lines = [json.dumps(row).encode() for row in rows]
        for _ in range(random.randint(0, 2)):
            i = random.randrange(len(lines))
            lines[i] = damage.json_bytes(rows[i], random).replace(b"\n", b" ")
        path.write_bytes(b"\n".join(lines))
        return path
    data = damage.json_bytes(random.choice([rows, rows, {"data": rows}]), random)
    if ending == "csv" and random.random() < 0.8:
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, [*rows[0]], extrasaction="ignore")
        writer.writeheader()
        dumps = random.choice([json.dumps, repr])
        cells = ({k: v if isinstance(v, str) else dumps(v) for k, v in r.items()} for r in rows)
        writer.writerows(cells)
        data = table.getvalue().encode()
        data = damage.bytes_of(data, random) if random.random() < 0.6 else data
    elif ending == "jsonl.gz":
        lines = [json.dumps(row).encode() for row in rows[1:]]
        data = gzip.compress(b"\n".join([*lines, damage.json_bytes(rows[0], random)]))
    elif ending == "parquet":
        data = damage.parquet_of(rows, random)
    path.write_bytes(damage.bytes_of(data, random) if random.random() < 0.2 else data)
    return path


def _counted(outcome: Outcome, place: Path) -> list[str]:
    """Every row in is a row out, a refused one, or one that the summary counts as left out."""
    if outcome.code != 0:
        return []
    said = outcome.stdout.replace(",", "")
    found = re.search(
        r"rows in (\d+)(?: paired into (\d+))? rows out (\d+)(?: filtered out (\d+))?", said
    )
    if found is None:
        return ["no count of rows"]
    rows, paired, out, filtered = (int(part or 0) for part in found.groups())
    refused = sum(map(int, re.findall(r"refused (\d+) see", said)))
    ties = sum(map(int, re.findall(r"left out: (\d+) tied", said)))
    if paired:
        return []  # several rows make one
    missing = rows - out - filtered - refused - ties
    return [f"{missing} rows without a word"] if missing > 0 else []  # a row may make several


@command(_counted)
def convert(place: Path, random: Random) -> list[object]:
    """Preference data from a format to another."""
    out = random.choice(["out.jsonl", "out.json", "out.parquet"])
    more = random.choice([[], [], ["--pairs-by", "all"], ["--drop-images"]])
    return ["convert", _data(place, random), out, "--to", random.choice(list(WRITABLE)), *more]


@command()
def data_show(place: Path, random: Random) -> list[object]:
    """The first rows of a file; lengths in words."""
    return ["data", "show", _data(place, random), "--model", "gemma3-270m"]


def _listed(outcome: Outcome, place: Path) -> list[str]:
    if outcome.code != 0:
        return []
    rows = json.loads(outcome.stdout)
    return [] if rows["pairs"] == len(rows["rows"]) else ["rows without a word"]


def scan_on(model: Path) -> Command:
    """`scan` with a sound model."""

    def build(place: Path, random: Random) -> list[object]:
        return ["scan", _data(place, random, 3), "--model", model, "--json", "--dtype", "float32"]

    return Command(build, _listed, heavy=True)


def verify_on(model: Path) -> Command:
    """The preflight of data, and lists of expected failures."""

    def build(place: Path, random: Random) -> list[object]:
        (place / "x.txt").write_bytes(
            damage.bytes_of(b"rows-parse  # known\nprompt-prefix # b\n", random)
        )
        more = random.choice(
            [[], [], ["--xfails", place / "x.txt"], ["--template", place / "x.txt"]]
        )
        return ["verify", "--data", _data(place, random, 3), "--model", model, *more]

    return Command(build, lambda outcome, place: [], heavy=True)


# --- models, configurations, plugins --------------------------------------------------------------

_TEMPLATES = [
    "{{ raise_exception('no') }}", "{% for m in messages %}{{ m.nothing.more }}{% endfor %}",
    "{{ ''.__class__.__mro__ }}", "{{ messages | tojson }}", "{{", "{% for i in range(10) %}x",
    "{{ 'a' * 10 ** 10 }}", "{{ messages[0]['content'].center(10 ** 9) }}", "", "x",
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaa' * 999 }}{% endfor %}",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "{{ 1 / 0 }}", "{% include 'x' %}",
    "{{ messages[-1]['content'] }}", "{{ messages[9]['content'] }}",
]  # fmt: skip


def scan_with_a_damaged(model: Path) -> Command:
    """`scan` with a model's directory in which one file is damaged."""

    def build(place: Path, random: Random) -> list[object]:
        hurt = place / "model"
        shutil.copytree(model, hurt)
        path = random.choice(sorted(p for p in hurt.iterdir() if p.is_file()))
        if random.random() < 0.3:
            template = random.choice(_TEMPLATES)
            for name in ("chat_template.jinja", "tokenizer_config.json"):
                file = hurt / name
                if name.endswith(".jinja"):
                    file.write_text(template)
                elif file.exists():
                    value = json.loads(file.read_text()) | {"chat_template": template}
                    file.write_text(json.dumps(value))
        elif path.suffix == ".json":
            path.write_bytes(damage.json_bytes(json.loads(path.read_text()), random))
        elif random.random() < 0.2:
            path.rename(path.with_suffix(".bin"))
        else:
            path.write_bytes(damage.bytes_of(path.read_bytes(), random))
        (place / "d.jsonl").write_text(json.dumps(ROWS["trl-conversational"][0]) + "\n")
        return ["scan", place / "d.jsonl", "--model", hurt, "--json", "--dtype", "float32"]

    return Command(build, _listed, heavy=True)


def _default(name: str) -> Any:
    """A sound value of a field or key, for what is like it."""
    if name in RunConfig.__dataclass_fields__:
        return getattr(RunConfig(), name)
    return Keys.model_fields[name].default


_SMALL = {"pairs": 2, "held_out": 1, "probe_train": 1, "generations": 0, "epochs": 1}


def configuration_on(model: Path) -> Command:
    """`replicate` with our own fields, or LLaMA-Factory's keys, some of them hostile."""

    def build(place: Path, random: Random) -> list[object]:
        names = list(RunConfig.__dataclass_fields__)
        values: dict[str, Any] = _SMALL | {"model": str(model), "dtype": "float32"}
        if random.random() < 0.4:
            names = list(Keys.model_fields)
            values = {"stage": "dpo", "model_name_or_path": str(model), "dataset": "d"}
            (place / "data").mkdir()
            entry = {"file_name": "d.jsonl", "ranking": True, "formatting": "alpaca"}
            (place / "data" / "dataset_info.json").write_text(json.dumps({"d": entry}))
            rows = "".join(
                json.dumps(ROWS["alpaca"][0] | {"instruction": f"{i}?"}) + "\n" for i in range(9)
            )
            (place / "data" / "d.jsonl").write_text(rows)
            values |= {"dataset_dir": str(place / "data"), "template": "qwen", "cutoff_len": 512}
        for _ in range(random.randint(1, 2)):
            name = random.choice(names)
            values[name] = random.choice([*damage.VALUES, *damage.WORDS])
            if random.random() < 0.6 and (known := _default(name)) is not None:
                values[name] = damage.like(known, random)
        path = place / "c.yaml"
        try:
            text = yaml.safe_dump(values).encode("utf-8", "surrogatepass")
        except (yaml.YAMLError, UnicodeError):
            text = json.dumps(values).encode()
        path.write_bytes(damage.bytes_of(text, random) if random.random() < 0.3 else text)
        lost = str(model).encode() not in path.read_bytes()  # or an embedded model is fetched
        more = ["--model", model] if lost else []
        return ["replicate", "--config", path, "--out", place / "out", "--quick", *more]

    return Command(build, lambda outcome, place: [], heavy=True)


_PLUGINS = [
    "def f(:\n", "import nothing_of_that_name\n", "raise ValueError('[bold]')\n", "1/0\n",
    "import sys; sys.exit(3)\n", "x = 1\n", "import squeeze.losses as it\nit.register_loss()\n",
    "from squeeze.losses import register_loss\n@register_loss('sigmoid')\ndef f(x): return x\n",
    "from squeeze.losses import register_loss\n@register_loss(5, paper='')\ndef f(): pass\n",
    "def f(): return f()\nf()\n", "assert False\n", "raise KeyboardInterrupt\n", "\x00",
]  # fmt: skip


@command()
def compare_losses(place: Path, random: Random) -> list[object]:
    """Options and plugins that fail before anything is trained."""
    path = place / "p.py"
    path.write_bytes(random.choice(_PLUGINS).encode())
    if random.random() < 0.3:
        path.write_bytes(
            damage.bytes_of(b"from squeeze.losses import register_loss\nx = 1\n", random)
        )
    hostile = random.choice(damage.WORDS).replace("\x00", "").encode("utf-8", "ignore").decode()
    option = random.choice(["--losses", "--seeds", "--model", "--data", "--pairs", "--template"])
    return ["compare-losses", "--plugin", path, "--model", "no-such-model", f"{option}={hostile}"]


@command()
def bench_kernels(place: Path, random: Random) -> list[object]:
    """A kernel of one's own that cannot be loaded."""
    path = place / "k.py"
    path.write_bytes(random.choice(_PLUGINS).encode())
    return ["bench", "kernels", "--quick", "--device", "cpu", "--kernel", f"{path}:nothing"]


@command()
def verify(place: Path, random: Random) -> list[object]:
    """A module that fails when it is imported."""
    name = f"fuzz_{random.randrange(10**9)}"
    (place / f"{name}.py").write_bytes(random.choice(_PLUGINS).encode())
    return ["verify", random.choice([f"{name}:nothing", name, ":", f"{name}:", "a.b:c", "..:x"])]


@command()
def observe(place: Path, random: Random) -> list[object]:
    """The authors' logs, damaged; or levels, seeds and claims that are none."""
    import numpy as np

    if random.random() < 0.3:
        word = random.choice(damage.WORDS).replace("\x00", "").encode("utf-8", "ignore").decode()
        options = [["observe", f"x{word}"], ["observe", "tiny", f"--seeds=x{word}"]]
        return random.choice([*options, ["observe", "tiny", f"--claims=x{word}"]])  # type: ignore[list-item]
    from tests.test_published_logs import ARRAY_NAME, MENDED, values, write

    log = write(place / "pythia_dpo", MENDED, values(MENDED, evaluations=4, prompts=5))
    hurt = random.choice([log, log.parent / ARRAY_NAME])
    if hurt == log or random.random() < 0.5:
        hurt.write_bytes(damage.bytes_of(hurt.read_bytes(), random))
    else:
        np.save(hurt, np.array(random.choice(damage.VALUES), dtype=object), allow_pickle=True)
    return ["observe", "published", "--logs", place, "--out", place / "reports"]


@command()
def stories(place: Path, random: Random) -> list[object]:
    """Stories that are too few, whatever else is wrong with them."""
    row = {"prompt": "Words: sun\nSummary: Tom plays.\nStory:", "story": "Tom played."}
    text = b"".join(json.dumps(row).encode() + b"\n" for _ in range(4))
    path = place / random.choice(["s.jsonl", "s.json", "s.txt"])
    path.write_bytes(
        damage.json_bytes([row] * 4, random)
        if path.suffix == ".json"
        else damage.bytes_of(text, random)
    )
    return ["stories", "--quick", "--data", path, "--out", place / "out"]


def compare_losses_with_a_damaged_table(model: Path) -> Command:
    """`compare-losses` into a directory that holds a damaged table of another model's."""
    row = dict.fromkeys(("model", "loss", "seed", "split", "cut", "column"), "x")
    numbers: dict[str, Any] = {"effect": 1.0, "low": 0.5, "high": 1.5}
    verdict = {"comparison": "a", "reason": "", "outcome": "supported", "n": 5, "effect": 1.0}
    table = {
        "schema": 2,
        "rows": [row | numbers, row | numbers | {"effect": None}],
        "not_measured": {"x": {"ipo": "no"}},
        "verdicts": {"x": [verdict | {"interval": [0.5, 1.5]}]},
    }

    def build(place: Path, random: Random) -> list[object]:
        (place / "losses.json").write_bytes(damage.json_bytes(table, random))
        sizes = ["--pairs", "2", "--held-out", "1", "--epochs", "1", "--sft-epochs", "1"]
        more = ["--seeds", "0", "--losses", "sigmoid", "--out", place]
        return ["compare-losses", "--model", model, *sizes, *more]

    return Command(build, lambda outcome, place: [], heavy=True)


def with_model(model: Path) -> dict[str, Command]:
    """All commands, with those that need a sound model's directory."""
    return COMMANDS | {
        "scan": scan_on(model),
        "compare-losses, a damaged table": compare_losses_with_a_damaged_table(model),
        "scan, a damaged model": scan_with_a_damaged(model),
        "verify, the preflight": verify_on(model),
        "replicate, the configuration": configuration_on(model),
    }
