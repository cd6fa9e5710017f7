"""Runs a bundle on a machine without a network: checks and unpacks it, measures step by step.

Stands beside the pieces as run.py and needs Python's own library alone: `python run.py`, or
`python run.py --help`. Each step has its own time limit, and one that fails stops no other. What
they find lies in one directory, with a summary. Missing or damaged pieces are one sentence and exit
code 2; a step that failed is exit code 1.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MANIFEST = "bundle.json"
HERE = Path(__file__).parent
_REHEARSED = 4  # times as long may a step take on a CPU
# To a step whose time is up, with the seconds that it has for it.
_SIGNALS = ((signal.SIGINT, 15.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, None))
_IMPORTED = ("torch", "transformers", "accelerate", "peft", "trl", "datasets", "triton", "squeeze")


class BundleError(Exception):
    """What is wrong with the bundle or with what was asked of it, in one sentence."""


@dataclass(frozen=True)
class Step:
    """A measurement: its time limit, the arguments of the interpreter, and those of a rehearsal."""

    name: str
    minutes: float
    command: tuple[str, ...]
    rehearsed: tuple[str, ...] = ()


def _tests(what: str, *options: str) -> tuple[str, ...]:
    return ("-m", "pytest", "-v", what, *options, "--squeeze-out={results}/ledger")


STEPS = (
    Step("environment", 2, ("{run}", "--environment", "{results}/environment.json")),
    Step("kernels", 4, _tests("tests/gpu/test_kernels.py", "-m", "gpu"), ("--rehearse",)),
    Step(
        "kernel-benchmark",
        7,
        (
            *("-m", "squeeze", "bench", "kernels", "--json", "{results}/kernels.json"),
            *("--markdown", "{results}/kernels.md"),
        ),
        ("--quick", "--shapes", "smollm2"),
    ),
    Step(
        "probe-benchmark",
        2.5,
        _tests("benchmarks/test_probe.py", "-m", "benchmark", "-s"),
        ("--quick", "-k", "float32"),  # a CPU without bf16 is minutes at it
    ),
    Step(
        "study", 4.5, _tests("tests/gpu/test_study.py", "-m", "gpu", "-k", "lora"), ("--rehearse",)
    ),
    Step(
        "rehearsal-4b",
        5,
        _tests("tests/gpu/test_replication.py", "-m", "gpu", "-k", "rehearsal"),
        ("--rehearse",),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """How a step ended: "done", "failed, exit code N", "time limit" or, if at all, "stopped".

    `last` is the last line it printed.
    """

    state: str
    seconds: float
    last: str


# --- unpacking ------------------------------------------------------------------------------------


def read_manifest(bundle: Path) -> dict[str, Any]:
    """What the bundle should hold; raises `BundleError` where that cannot be read."""
    path = bundle / MANIFEST
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for group in found["groups"].values():
            str(group["key"]), [(p["file"], p["sha256"]) for p in group["pieces"]]
        str(found["python"]), str(found["machine"]), bool(found["complete"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{path} is missing or damaged ({error!r}); copy it from the bundle again"
        ) from None
    return found


def check_pieces(bundle: Path, manifest: Mapping[str, Any]) -> None:
    """Raise `BundleError` for pieces that are missing, or not as they were made."""
    missing, damaged = [], []
    for group in manifest["groups"].values():
        for piece in group["pieces"]:
            path = bundle / piece["file"]
            if not path.is_file():
                missing.append(path.name)
            elif sha256(path) != piece["sha256"]:
                damaged.append(path.name)
    said = [f"{', '.join(missing)} missing"] if missing else []
    said += [f"{', '.join(damaged)} damaged (another sha256)"] if damaged else []
    if said:
        raise BundleError(f"{bundle}: {'; '.join(said)}; copy what is named from the bundle again")


def sha256(path: Path) -> str:
    """Checksum of a file, as lowercase hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Joined(io.RawIOBase):
    """Files read one after the other, as one."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._left = list(paths)
        self._now: io.BufferedReader | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._now is not None or self._left:
            if self._now is None:
                self._now = self._left.pop(0).open("rb")
            if n := self._now.readinto(buffer):
                return n
            self._now.close()
            self._now = None
        return 0

    def close(self) -> None:
        if self._now is not None:
            self._now.close()
        super().close()


def unpack(bundle: Path, work: Path) -> Path:
    """Lay the bundle out under `work`, what is there already left as it is.

    Returns the directory of importable packages. Raises `BundleError` as `check_pieces` does.
    """
    manifest = read_manifest(bundle)
    if not manifest["complete"]:
        raise BundleError(f"{bundle} was not built to its end; run squeeze bundle again")
    check_pieces(bundle, manifest)
    changed = False
    for name, group in manifest["groups"].items():
        mark, place = work / f".{name}", work / name
        if mark.is_file() and mark.read_text(encoding="utf-8") == group["key"]:
            continue
        changed = True
        mark.unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        pieces = _Joined(bundle / piece["file"] for piece in group["pieces"])
        with (
            io.BufferedReader(pieces, 1 << 20) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            archive.extractall(place, filter="data")
        mark.write_text(group["key"], encoding="utf-8")
    # dill, and so datasets, takes what lies elsewhere for the user's code.
    site = work / "site-packages"
    if changed or not site.is_dir():
        shutil.rmtree(site, ignore_errors=True)
        for wheel in sorted(work.glob("*/*.whl")):
            install(wheel, site)
    return site


def install(wheel: Path, site: Path) -> None:
    """The packages of a wheel and what is known of them, without scripts."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            head, _, rest = name.partition("/")
            if not head.endswith(".data"):
                archive.extract(name, site)
            elif rest.startswith(("purelib/", "platlib/")) and not name.endswith("/"):
                target = site / rest.partition("/")[2]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))


# --- the environment ------------------------------------------------------------------------------


def unmet(
    wanted: Iterable[str],
    versions: Mapping[str, str],
    requires: Mapping[str, Sequence[str]],
    markers: Mapping[str, str],
) -> list[str]:
    """Requirements that no version meets: of `wanted`, and of all that `requires` lists of it."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    left, seen, found = [(text, "") for text in wanted], set(), []
    while left:
        text, extra = left.pop()
        one = Requirement(text)
        if one.marker is not None and not one.marker.evaluate({**markers, "extra": extra}):
            continue
        name = canonicalize_name(one.name)
        if name not in versions or not one.specifier.contains(versions[name], prereleases=True):
            found.append(f"{name}{one.specifier}")
        for asked in ("", *one.extras):
            if (name, asked) not in seen:
                seen.add((name, asked))
                left += [(needed, asked) for needed in requires.get(name, ())]
    return sorted(set(found))


def environment() -> dict[str, Any]:
    """This machine: versions, GPUs, driver, what squeeze misses, what cannot be imported."""
    from importlib import import_module, metadata

    from packaging.markers import default_environment
    from packaging.utils import canonicalize_name

    there = {canonicalize_name(d.name): d for d in reversed([*metadata.distributions()])}
    versions = {str(name): d.version for name, d in sorted(there.items())}
    site = os.environ.get("PYTHONPATH", "").partition(os.pathsep)[0]
    ours = {
        str(name): d.requires or ()
        for name, d in there.items()
        if site and str(d.locate_file("")).startswith(site)
    }
    broken = {}
    for name in _IMPORTED:
        try:
            import_module(name)
        except Exception as error:  # noqa: BLE001 (a report of whatever it is)
            broken[name] = repr(error)
    gpus: list[str] = []
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    markers = {key: str(value) for key, value in default_environment().items()}
    return {
        "python": sys.version,
        "platform": platform.platform(),
        "glibc": "-".join(platform.libc_ver()),
        "cuda": getattr(getattr(torch, "version", None), "cuda", None),
        "gpus": gpus,
        "nvidia-smi": _said("nvidia-smi"),
        "unmet": unmet(["dpo-squeeze[test,triton]"], versions, ours, markers),
        "not imported": broken,
        "packages": versions,
    }


def _said(command: str) -> list[str]:
    try:
        done = subprocess.run([command], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [repr(error)]
    return (done.stdout + done.stderr).splitlines()


def _write_environment(path: Path) -> int:
    found = environment()
    write_json(path, found)
    for name in ("python", "cuda", "gpus", "unmet", "not imported"):
        print(f"{name}: {found[name]}")
    return int(bool(found["unmet"] or found["not imported"]))


# --- steps ----------------------------------------------------------------------------------------


def run_step(
    words: Sequence[str], seconds: float, cwd: Path, env: Mapping[str, str], log: Path
) -> Outcome:
    """Start a command, what it prints in `log`, and end it with all it started at its limit."""
    start = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    state = "time limit" if code is None else f"failed, exit code {code}" if code else "done"
    text = log.read_text(encoding="utf-8", errors="replace").rstrip()
    return Outcome(state, round(time.monotonic() - start, 1), text.rpartition("\n")[2][:200])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children: kindly (pytest says then what failed so far), then not."""
    for number, patience in _SIGNALS:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:  # none of them is left
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, through a second file so that nobody sees half of it."""
    half = path.with_name(f".{path.name}")
    half.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    half.replace(path)


def summary(outcomes: Mapping[str, Outcome], facts: str) -> str:
    """A Markdown table of the steps, and what failed in one line."""
    lines = [
        "# Results",
        "",
        facts,
        "",
        "| step | outcome | seconds | last line |",
        "|---|---|---|---|",
    ]
    for name, one in outcomes.items():
        last = one.last.strip("= ").replace("|", "\\|")
        lines.append(f"| {name} | {one.state} | {one.seconds:.0f} | {last} |")
    failed = [f"{name} ({one.state})" for name, one in outcomes.items() if one.state != "done"]
    return "\n".join([*lines, "", f"Failed: {', '.join(failed) or 'none'}", ""])


def run(
    bundle: Path, work: Path, results: Path, steps: Sequence[Step], rehearse: bool = False
) -> dict[str, Outcome]:
    """Unpack, and run these steps in order; what earlier calls found of others is kept.

    Raises `BundleError` for a bundle that is not whole, another Python or machine than it was made
    for, and for no GPU outside a rehearsal.
    """
    manifest = read_manifest(bundle)
    here = f"{sys.version_info[0]}.{sys.version_info[1]}", platform.machine()
    if here != (manifest["python"], manifest["machine"]):
        raise BundleError(
            f"the bundle is for Python {manifest['python']} on {manifest['machine']}, and this is "
            f"Python {here[0]} on {here[1]}; start it with that one, or build another with "
            f"squeeze bundle --python {here[0]}"
        )
    site = unpack(bundle, work)
    results.mkdir(parents=True, exist_ok=True)
    path = results / "summary.json"
    outcomes = _earlier(path)
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {
        **{"PYTHONPATH": os.pathsep.join(paths), "SQUEEZE_CACHE": str(work / "cache")},
        **{"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        **{"MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"},
        # A warning of versions that we never met is no reason to stop there.
        "PYTEST_ADDOPTS": "-W default",
    }
    places = {"{run}": str(Path(__file__).absolute()), "{results}": str(results)}
    facts = f"squeeze {manifest['squeeze']}{', rehearsed: no result of a GPU' if rehearse else ''}"

    def say(step: Step, outcome: Outcome) -> None:
        outcomes[step.name] = outcome
        write_json(path, {name: asdict(one) for name, one in outcomes.items()})
        (results / "summary.md").write_text(summary(outcomes, facts), encoding="utf-8")

    try:
        for step in steps:
            words = [*step.command, *(step.rehearsed if rehearse else ())]
            words = [sys.executable, *(_filled(word, places) for word in words)]
            minutes = step.minutes * (_REHEARSED if rehearse else 1)
            print(f"{step.name}: at most {minutes:g} minutes", flush=True)
            say(step, Outcome("stopped", 0.0, ""))  # if nothing else is said of it
            log = results / f"{step.name}.log"
            one = run_step(words, 60 * minutes, work / "suite", env, log)
            say(step, one)
            print(f"{step.name}: {one.state}: {one.last}", flush=True)
            if step.name == "environment" and not rehearse:
                _require_gpu(results / "environment.json")
    finally:
        with tarfile.open(results.with_name(f"{results.name}.tar.gz"), "w:gz") as archive:
            archive.add(results, arcname=results.name)
    return outcomes


def _earlier(path: Path) -> dict[str, Outcome]:
    """What earlier calls found; nothing where there was none, or its file was damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: Outcome(**one) for name, one in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _filled(word: str, places: Mapping[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(name, place)
    return word


def _require_gpu(report: Path) -> None:
    if report.is_file() and not json.loads(report.read_text(encoding="utf-8"))["gpus"]:
        raise BundleError(
            f"torch sees no GPU here ({report}); --rehearse runs every step small, on a CPU"
        )


def _chosen(names: str | None, minutes: Sequence[str]) -> list[Step]:
    known = {step.name: step for step in STEPS}
    limits = {}
    for given in minutes:
        name, _, number = given.partition("=")
        try:
            limits[name] = float(number)
        except ValueError:
            raise BundleError(f"--minutes wants STEP=NUMBER, not {given!r}") from None
    chosen = list(known) if names is None else [name.strip() for name in names.split(",")]
    for name in [*chosen, *limits]:
        if name not in known:
            raise BundleError(f"there is no step {name!r}; the steps are {', '.join(known)}")
    return [
        Step(n, limits.get(n, known[n].minutes), known[n].command, known[n].rehearsed)
        for n in chosen
    ]


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where it is unpacked")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--steps", help=f"with commas, of: {', '.join(s.name for s in STEPS)}")
    parser.add_argument(
        "--minutes", action="append", default=[], metavar="STEP=N", help="another time limit"
    )
    parser.add_argument("--rehearse", action="store_true", help="every step small; needs no GPU")
    parser.add_argument("--environment", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.environment is not None:
        return _write_environment(given.environment)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the step that runs, too
    signal.signal(signal.SIGINT, signal.default_int_handler)  # steps take it, in a background too
    try:
        steps = _chosen(given.steps, given.minutes)
        outcomes = run(
            HERE.absolute(), given.work.absolute(), given.results.absolute(), steps, given.rehearse
        )
    except BundleError as error:
        print(f"squeeze bundle: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"squeeze bundle: the system refused it ({error}); see --help", file=sys.stderr)
        return 2
    print((given.results / "summary.md").read_text(encoding="utf-8"))
    return int(any(one.state != "done" for one in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
