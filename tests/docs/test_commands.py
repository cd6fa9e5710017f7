"""Every command of the documentation runs: as it stands, smaller, or not, for a reason given here.

Files of the user's are small stand-ins under the names that the pages use (`standins`). What trains
takes minutes and is run by hand, `pytest -m pretrained tests/docs`; the rest by `pytest -m cpu`.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from unittest.mock import patch

import pytest

from squeeze.bench import cases
from squeeze.cli import main
from squeeze.losses import LOSSES
from tests.docs.reading import ROOT, commands
from tests.docs.standins import SUITE, build

RECORDS = "--records reports/reference/observations/pretrained"
TINY_RECORDS = "--records reports/reference/observations/tiny"
SMALL = "--pairs 2 --held-out 1 --epochs 1"
TINY = f"--model MODEL --quick --arms dpo {SMALL}"
LOSS = f"--model MODEL --seeds 0 {SMALL} --probe-train 1 --sft-epochs 1"
SCAN = "squeeze scan pairs.jsonl --model MODEL"
VERIFY = "squeeze verify --data pairs.jsonl --model MODEL"

# What runs in the place of a documented command, by the reason why.
INSTEAD: dict[str, dict[str, list[str]]] = {
    "the text says what DIR, ID or NAME stands for": {
        "squeeze diagnose DIR --fail-on squeezing": ["squeeze diagnose RUN --fail-on squeezing"],
        "squeeze report DIR": ["squeeze report RUN"],
        "squeeze claims ID": ["squeeze claims SF-4"],
        "squeeze observe published --logs DIR": [
            "squeeze observe published --logs Learning_dynamics_LLM"
        ],
        "squeeze compare-losses --model smollm2-135m,DIR --losses ipo,ipo:tau=0.5,dpop:lam=5 "
        "--seeds 0,1,2,3,4 --plan": [
            "squeeze compare-losses --model smollm2-135m,MODEL --losses ipo,ipo:tau=0.5,dpop:lam=5 "
            "--seeds 0,1,2,3,4 --plan"
        ],
        "squeeze verify --data pairs.jsonl --model DIR --max-length 1024": [
            f"{VERIFY} --max-length 1024"
        ],
        "squeeze convert FILE out.jsonl --to trl --columns prompt=…,chosen=…,rejected=…": [
            "squeeze convert FILE.jsonl out.jsonl --to trl "
            "--columns prompt=a,chosen=b.0.content,rejected=c"
        ],
        "squeeze convert FILE OUT.jsonl --to squeeze --columns "
        "prompt=a,chosen=b.0.content,rejected=c": [
            "squeeze convert FILE.jsonl OUT.jsonl --to squeeze "
            "--columns prompt=a,chosen=b.0.content,rejected=c"
        ],
        "pytest --squeeze-run DIR": [f"pytest --squeeze-run RUN {SUITE}"],
        "pytest --squeeze-run RUN": [f"pytest --squeeze-run RUN {SUITE}"],
        "pytest --squeeze-run run/squeeze": [f"pytest --squeeze-run run/squeeze {SUITE}"],
    },
    "a synopsis: each option once": {
        "squeeze diagnose RUN... [--json | --markdown | --csv] [--fail-on squeezing,collapse] "
        "[--beta 0.1] [--watch SECONDS] [--report DIR]": [
            "squeeze diagnose RUN path/to/output_dir --json",
            "squeeze diagnose RUN --markdown --fail-on squeezing,collapse",
            "squeeze diagnose RUN --csv --beta 0.1 --report page",
        ],
        "squeeze compare RUN RUN... [--report DIR]": [
            "squeeze compare RUN path/to/output_dir --report page"
        ],
        "squeeze diagnose --base MODEL --tuned MODEL_OR_ADAPTER --data FILE [--pairs 32] "
        "[--generate 4] [--beta 0.1] ...": [
            "squeeze diagnose --base MODEL --tuned MODEL_OR_ADAPTER --data pairs.jsonl --pairs 32 "
            "--generate 4 --beta 0.1"
        ],
        "squeeze scan DATA --model MODEL [--out FILE.csv|.parquet|.jsonl] [--limit N] [--top N] "
        "[--json] [--drop-top 0.05 --filtered REST.jsonl|.json|.parquet] "
        "[--template auto|model|text|hh|unmarked|chatml|plain] [--from FORMAT] [--dtype auto] "
        "[--force]": [
            f"{SCAN} --out FILE.csv --drop-top 0.05 --filtered REST.jsonl",
            f"{SCAN} --out FILE.csv --force --limit 2 --top 1",
            f"{SCAN} --json --template chatml --from trl --dtype auto",
        ],
    },
    "hours; the same on what is recorded, or on the tiny model at a size that decides nothing": {
        f"squeeze observe pretrained --claims EX-1,DO-1,DO-2 {RECORDS}": [
            f"squeeze observe pretrained --claims EX-1 {RECORDS} --recorded"
        ],
        f"squeeze observe pretrained {RECORDS}": [
            f"squeeze observe pretrained --claims DO-1 {RECORDS} --recorded"
        ],
        "squeeze observe tiny": ["squeeze observe tiny --claims SF-1 --seeds 0"],
        **{
            f"squeeze observe tiny --claims {claims}": [
                f"squeeze observe tiny --claims {claims} {TINY_RECORDS} --recorded"
            ]
            for claims in ("GR-1,GR-2,NS-1", "GR-1,GR-2,NS-1,DP-4")
        },
        "squeeze replicate": [f"squeeze replicate --model MODEL --quick {SMALL}"],
        "squeeze replicate --model DIR_OR_HUB_ID --data pairs.jsonl --pairs 32": [
            "squeeze replicate --model DIR_OR_HUB_ID --data pairs.jsonl --pairs 3 "
            "--quick --arms dpo"
        ],
        "squeeze replicate --data pairs.jsonl --template unmarked --arms dpo,extend-dpo": [
            f"squeeze replicate --data pairs.jsonl --template unmarked {TINY}"
        ],
        "squeeze replicate --data data/dataset_info.json:dpo_zh_demo --too-long cut": [
            f"squeeze replicate --data data/dataset_info.json:dpo_zh_demo --too-long cut {TINY}"
        ],
        "squeeze replicate --data comparison_gpt4_data_zh.json --template chatml": [
            f"squeeze replicate --data comparison_gpt4_data_zh.json --template chatml {TINY}"
        ],
        "squeeze replicate --config train_dpo.yaml": [
            "squeeze replicate --config train_dpo.yaml --quick"
        ],
        "squeeze replicate --config train_dpo.yaml --out reports/mine": [
            "squeeze replicate --config train_dpo.yaml --out reports/mine --quick"
        ],
        "squeeze replicate --config squeeze/training/configs/qwen3-4b-dpo.yaml --model DIRECTORY "
        "--data FILE --out reports/qwen3-4b-dpo": [
            "squeeze replicate --config squeeze/training/configs/qwen3-4b-dpo.yaml "
            "--model DIRECTORY --data pairs.jsonl --out reports/qwen3-4b-dpo "
            "--pairs 2 --held-out 1 --epochs 4 --max-length 512"
        ],
        "squeeze compare-losses --losses sigmoid,ipo,cal_dpo": [
            f"squeeze compare-losses --losses sigmoid,ipo,cal_dpo {LOSS}"
        ],
        "squeeze compare-losses --plugin FILE --losses sigmoid,NAME": [
            f"squeeze compare-losses --plugin PLUGIN.py --losses sigmoid,squared_hinge {LOSS}"
        ],
        "squeeze stories": ["squeeze stories --quick"],
        "squeeze stories --data TinyStories-Instruct.json --out DIR": [
            "squeeze stories --data TinyStories-Instruct.json --out DIR --quick"
        ],
        "squeeze stories --out DIR --resume": [
            "squeeze stories --out DIR --quick",
            "squeeze stories --out DIR --quick --resume",
        ],
    },
    "minutes; the same with fewer rows, repeats or inputs": {
        "python benchmarks/convert_rows.py --rows 10000000": [
            "python benchmarks/convert_rows.py --rows 2000"
        ],
        "python -m benchmarks.p_of_a_fall": ["python -m benchmarks.p_of_a_fall --runs 2"],
        "python -m benchmarks.watching": ["python -m benchmarks.watching --runs 1"],
        "python -m benchmarks.grpo_entropy": [
            "python -m benchmarks.grpo_entropy --seeds 0 --steps 2"
        ],
        "python -m benchmarks.diagnosis_calibration --out docs": [
            "python -m benchmarks.diagnosis_calibration --out docs --repeats 1"
        ],
        "python -m benchmarks.diagnosis_calibration --out docs --repeats 10": [
            "python -m benchmarks.diagnosis_calibration --out docs --repeats 1"
        ],
        "squeeze bench kernels --json new.json --against old.json": [
            "squeeze bench kernels --json old.json",
            "squeeze bench kernels --json new.json --against old.json",
        ],
        "squeeze bench draw": [
            "squeeze bench kernels --json old.json",
            "squeeze bench draw old.json --plot k.png --markdown k.md",
        ],
        "python -m benchmarks.load": ["python -m benchmarks.load --scale 0.01"],
        "python -m tests.fuzz --inputs 2000": ["python -m tests.fuzz --inputs 1 --only claims"],
    },
    "writes into the checkout": {
        "squeeze claims --write-results squeeze/claims/results.json": [
            "squeeze claims --write-results results.json"
        ],
    },
    "a name in a sentence": {
        name: [f"{name} --help"]
        for name in (
            *("squeeze convert", "squeeze diagnose", "squeeze observe", "squeeze scan"),
            *("squeeze verify", "squeeze bench kernels", "squeeze bundle"),
            "squeeze observe pretrained",
        )
    },
    "a Makefile's target is printed, not made; the gate does what they do": {
        f"make {target}": [f"make -n -C {ROOT} {target}"]
        for target in ("replicate", "test", "check", "constraints", "mutation")
    },
}

NOT_RUN: dict[str, list[str]] = {
    "installs; `.ci/resolve` resolves each extra, `.ci/run` and `.ci/wheel` install": [
        "python -m venv .venv",
        *("pip install -c constraints.txt torch", "pip install ."),
        *('pip install -c constraints.txt -e ".[test]"', 'pip install ".[train]"'),
        *('pip install -c constraints.txt -e ".[test,dev]"', 'pip install -e ".[test,triton]"'),
        *("pip install dpo-squeeze", "pip install 'dpo-squeeze[train]'", "pip install uv"),
        *("pip install 'dpo-squeeze[ray]'", "pip install 'dpo-squeeze[slurm]'"),
        *("pip install 'dpo-squeeze[…]'", "pre-commit install"),
        "uv pip install --torch-backend cpu 'dpo-squeeze[train]'",
        "DS_BUILD_OPS=0 pip install --no-build-isolation deepspeed",
        "git clone https://github.com/Joshua-Ren/Learning_dynamics_LLM",
    ],
    "this very suite, or a part of it; `.ci/run` runs its selections": [
        *("pytest -m cpu", "pytest -m cpu -n 2", "pytest -m cpu -n 2 --dist worksteal"),
        *(
            "pytest -m pretrained tests/docs",
            "pytest -m pretrained",
            "pytest -m pretrained -n 2 --dist worksteal",
        ),
        *("pytest benchmarks -m benchmark", "pytest benchmarks/test_callback.py -m benchmark"),
        *("pytest -m benchmark benchmarks/test_probe.py -s", "pytest -m gpu --rehearse"),
        "pytest -m cpu tests/study/test_observations.py",
        "pytest tests/losses/test_packed.py",
        "pytest -n 0 -q path/to/the/tests/you/touched.py",
        *("ruff check .", "ruff format --check .", "mypy", "lint-imports"),
    ],
    "needs a GPU; `.ci/run` rehearses the suite": [
        *("pytest -m gpu", "pytest -m gpu -k rehearsal"),
        "HF_HUB_OFFLINE=0 HF_DATASETS_OFFLINE=0 pytest -m gpu",
        "pytest -m gpu --squeeze-model DIRECTORY --squeeze-data FILE",
    ],
    "several processes: tests/training/test_distributed.py and tests/study/test_engine.py": [
        "torchrun --nproc-per-node 2 -m squeeze replicate --config run.yaml --out reports/two",
        "accelerate launch --multi_gpu --num_processes 2 -m squeeze replicate --config run.yaml "
        "--out reports/two",
        *("accelerate launch --cpu --num_processes 2", "accelerate launch --multi_gpu"),
        "squeeze compare-losses --engine ray --address auto --gpus-per-arm 1 --out /shared/losses",
        "squeeze compare-losses --engine slurm --slurm slurm_partition=gpu,timeout_min=240 "
        "--gpus-per-arm 1 --out /shared/losses",
    ],
    "downloads a machine's wheels, or is what goes with them: tests/test_bundle.py": [
        "squeeze bundle DIR --python 3.12 --platform manylinux_2_28_x86_64 --installed list.txt",
        *("squeeze bundle .bundle/3", "python run.py", "python run.py --rehearse"),
    ],
    "minutes, and writes into the checkout's docs": ["python benchmarks/verify_outcomes.py"],
    "needs liger-kernel": ["python benchmarks/liger_fused.py"],
    "needs LLaMA-Factory; tests/verify/test_llamafactory.py has a stand-in": [
        "squeeze verify theirs.yaml"
    ],
    "hours; tests/pretrained and tests/study train every part of it at a small size": [
        *(
            "squeeze observe pretrained --claims DO-5 --seeds 7",
            "squeeze observe pretrained --claims GR-1,GR-2 --seeds development",
            "squeeze observe pretrained --claims EX-1 --seeds 105 --set finetuning=full "
            "--set learning_rate=1e-5 --set sft_learning_rate=2e-5",
            f"squeeze observe pretrained --claims GR-1,GR-2 {RECORDS}",
            f"squeeze observe pretrained --claims SF-1,SF-2,SF-3,SF-5 {RECORDS}",
        ),
    ],
    "the name of a kernel in the benchmark's table": ["squeeze fused"],
}

DOCUMENTED = commands()
FOR_A_REASON = {c: lines for group in INSTEAD.values() for c, lines in group.items()}
EXCUSED = {command for group in NOT_RUN.values() for command in group}
# What runs in one directory, line after line.
RUN = dict.fromkeys(tuple(FOR_A_REASON.get(c, [c])) for c in DOCUMENTED if c not in EXCUSED)
SLOW = re.compile(
    r"squeeze (replicate|stories|verify|observe (tiny|pretrained)|bench kernels)(?!.*--help)"
    r"|squeeze (diagnose --base|report run/)"
    r"|squeeze compare-losses (?!.*--plan)|pytest --pyargs|python -m (benchmarks|tests)"
)
VERDICTS = re.compile(r"--fail-on|squeeze verify|--squeeze-run|--pyargs")  # may exit with 1
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
UNENDING = {"--watch"}  # tests/diagnosis/test_output.py watches a log


def named(lines: tuple[str, ...]) -> str:
    """A test's name: pytest numbers longer ones."""
    return lines[0][:80]


def is_slow(lines: tuple[str, ...]) -> bool:
    """Whether any of these trains."""
    return any(SLOW.match(line) for line in lines)


@pytest.fixture(scope="module")
def standins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-ins, written once."""
    place = tmp_path_factory.mktemp("documented")
    build(place)
    return place


@pytest.fixture
def here(standins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the stand-ins, for one command to write into."""
    place = tmp_path / "here"
    shutil.copytree(standins, place, symlinks=True)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # a stand-in's directory is called squeeze too
    monkeypatch.setitem(cases.SHAPES, "smollm2", (4, 40))  # the benchmark, with a few numbers
    monkeypatch.setattr(cases, "_cpu_cases", lambda quick: [cases.Case(cases.LOGITS, "smollm2", 3)])
    monkeypatch.setattr(cases, "_ROTATED_BYTES", 1)
    return place


def _in_process(words: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of `squeeze ...` or `python ...`, run here."""
    known = set(sys.modules)
    try:
        with patch.dict(LOSSES), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if words[0] == "squeeze":
                monkeypatch.setattr(sys, "argv", words)
                main()
            elif words[1] == "-m":
                monkeypatch.setattr(sys, "argv", words[2:])
                runpy.run_module(words[2], run_name="__main__")
            else:
                monkeypatch.setattr(sys, "argv", words[1:])
                runpy.run_path(words[1], run_name="__main__")
    except SystemExit as stopped:
        return stopped.code or 0
    finally:
        for name in (set(sys.modules) - known) & {"my_script", "my_module"}:
            del sys.modules[name]
    return 0


def _run(line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line)
    if words[:2] == ["squeeze", "cache"]:
        monkeypatch.setenv("SQUEEZE_CACHE", "cache")  # never the user's own
    if words[0] in ("squeeze", "python"):
        code = _in_process(words, monkeypatch)
    else:
        start = [sys.executable, "-m", "pytest"] if words[0] == "pytest" else words[:1]
        code = subprocess.run([*start, *words[1:]], env=os.environ, check=False).returncode
    said = capfd.readouterr()
    assert code == 0 or (code == 1 and VERDICTS.search(line)), said.out + said.err
    assert "Traceback" not in said.err


@pytest.mark.cpu
def test_every_command_runs_or_has_its_reason():
    listed = set(FOR_A_REASON) | EXCUSED
    assert listed <= set(DOCUMENTED), "no page has these any more"
    assert not set(FOR_A_REASON) & EXCUSED
    unclear = [c for c in DOCUMENTED if c not in listed and re.search(r"[\[\]…]|\.\.\.", c)]
    assert unclear == []
    assert len(RUN) > 80


@pytest.mark.cpu
@pytest.mark.parametrize("command", FOR_A_REASON)
def test_what_runs_in_a_commands_place_has_all_of_its_options(command):
    run = " ".join(FOR_A_REASON[command])
    assert set(OPTION.findall(command)) <= set(OPTION.findall(run)) | UNENDING
    assert run.split()[:2] == command.split()[:2] or command.startswith("make ")


@pytest.mark.cpu
@pytest.mark.parametrize("lines", [r for r in RUN if not is_slow(r)], ids=named)
def test_command_of_the_docs_runs(lines, here, monkeypatch, capfd):
    for line in lines:
        _run(line, monkeypatch, capfd)


@pytest.mark.pretrained
@pytest.mark.filterwarnings("ignore")  # as at the command line
@pytest.mark.parametrize("lines", [r for r in RUN if is_slow(r)], ids=named)
def test_command_of_the_docs_that_trains_runs(lines, here, monkeypatch, capfd, request):
    if request.config.getoption("--quick"):
        pytest.skip("minutes; by hand: pytest -m pretrained tests/docs")
    for line in lines:
        _run(line, monkeypatch, capfd)
