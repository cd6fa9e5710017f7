"""Builds a bundle: the wheels that a machine lacks, the suite and the embedded model, in pieces.

Each group of files is one archive, cut into pieces; one that is there, whole, and made from the
same is not made again. What a machine has is told by a list of its packages: pip resolves beside
empty wheels in their places, so that nothing of theirs is fetched or contradicted. `run` reads it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from squeeze.bundle import run
from squeeze.errors import InputError
from squeeze.files import file_sha256, read_text, write_json
from squeeze.models import EMBEDDED, cached_path, fetch
from squeeze.provenance import git_revision

MOST_BYTES = 55_000_000  # of a piece: below 60 MB, with room for what travels beside it
KNOWN_MACHINE = Path(__file__).parent / "machine.txt"
_CHECKOUT = ("squeeze", "tests", "benchmarks")
_FILES = ("conftest.py", "pyproject.toml", "README.md", "LICENSE", "constraints.txt")
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_SCRATCH = ".building-"
_INSTALLED = "+installed"  # local version of an empty wheel


@dataclass(frozen=True)
class Target:
    """The machine that a bundle is for: "3.12", "manylinux_2_28_x86_64", versions by package."""

    python: str
    platform: str
    installed: Mapping[str, str]

    def __post_init__(self) -> None:
        if re.fullmatch(r"3\.\d+", self.python) is None:
            raise InputError(f"--python must be like 3.12, not {self.python!r}")
        if re.fullmatch(r"manylinux_2_\d+_\w+", self.platform) is None:
            raise InputError(
                f"--platform must be like manylinux_2_28_x86_64, not {self.platform!r}"
            )

    @property
    def machine(self) -> str:
        """The processor: "x86_64"."""
        return self.platform.split("_", 3)[3]

    @property
    def platforms(self) -> list[str]:
        """Its tag of wheels and those of older systems, which it runs as well."""
        minor = int(self.platform.split("_", 3)[2])
        found = []
        for older in range(minor, 4, -1):
            found.append(f"manylinux_2_{older}_{self.machine}")
            found += [f"{_LEGACY[older]}_{self.machine}"] if older in _LEGACY else []
        return found

    @property
    def markers(self) -> dict[str, str]:
        """What requirements ask about a machine."""
        return {
            **{"python_version": self.python, "python_full_version": f"{self.python}.0"},
            **{"implementation_name": "cpython", "implementation_version": f"{self.python}.0"},
            **{"platform_python_implementation": "CPython", "os_name": "posix"},
            **{"sys_platform": "linux", "platform_system": "Linux"},
            **{"platform_machine": self.machine, "platform_release": "", "platform_version": ""},
        }


@dataclass(frozen=True)
class Group:
    """Files that are packed together: what they are made from (`key`), and how they are had.

    `collect(scratch)` gives each file's name in the bundle and where it is, perhaps in `scratch`.
    """

    name: str
    key: str
    collect: Callable[[Path], Iterable[tuple[str, Path]]]


@dataclass(frozen=True)
class Packed:
    """A group's pieces; `kept` where they were there."""

    name: str
    pieces: int
    megabytes: float
    kept: bool


def build(target: Target, directory: Path, model: str = "smollm2-135m") -> Iterator[Packed]:
    """Build the bundle for a machine in a directory, group by group.

    Raises `InputError` outside of a checkout, which alone has the suite, for an unknown model, and
    where pip cannot fetch what the machine lacks.
    """
    if model not in EMBEDDED:
        raise InputError(f"--model {model!r} is not embedded; choose {' or '.join(EMBEDDED)}")
    root = checkout()
    pinned = pinned_versions(root / "constraints.txt")
    needs = [read_text(root / "pyproject.toml", "the file"), pinned]
    place = "/".join(cached_path(model).parts[-3:])  # from the cache's directory on
    groups = [
        Group("suite", _digest({n: file_sha256(p) for n, p in _tree(root)}), _suite(root)),
        Group(
            "wheels",
            _digest([target.python, target.platform, dict(target.installed), needs]),
            lambda scratch: lacking_wheels(target, squeeze_wheel(root, scratch), scratch, pinned),
        ),
        Group("cache", EMBEDDED[model].sha256, lambda scratch: [(place, fetch(model))]),
    ]
    facts = {
        **{"python": target.python, "machine": target.machine, "platform": target.platform},
        **{"squeeze": f"{metadata.version('dpo-squeeze')}, {git_revision()}", "model": model},
    }
    yield from pack(directory, groups, facts)


def checkout() -> Path:
    """The checkout that this package is imported from; raises `InputError` where it is none."""
    root = Path(__file__).parents[2]
    if not (root / "tests" / "gpu").is_dir() or not (root / "pyproject.toml").is_file():
        raise InputError(
            "squeeze bundle takes the test suite along, which an installed package lacks; run it "
            "in a checkout, with pip install -e ."
        )
    return root


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _tree(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the suite and the package, with its name from the checkout's root on."""
    parts = [path for name in _CHECKOUT for path in sorted((root / name).rglob("*"))]
    for path in [*parts, *(root / name for name in _FILES)]:
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(root).as_posix(), path


def _suite(root: Path) -> Callable[[Path], Iterable[tuple[str, Path]]]:
    def collect(scratch: Path) -> Iterator[tuple[str, Path]]:
        wheel = squeeze_wheel(root, scratch)
        yield wheel.name, wheel
        yield from ((n, p) for n, p in _tree(root) if not n.startswith("squeeze/"))

    return collect


def squeeze_wheel(root: Path, scratch: Path) -> Path:
    """The wheel of this checkout, the same bytes for the same files."""
    source, made = scratch / "source", scratch / "made"
    for name, path in _tree(root):
        if name.startswith("squeeze/") or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, source / name)
    _pip(
        "wheel", "--no-deps", "--wheel-dir", str(made), str(source), SOURCE_DATE_EPOCH="1577836800"
    )
    (wheel,) = made.glob("*.whl")
    return wheel


# --- what a machine lacks -------------------------------------------------------------------------


def read_installed(path: Path, pinned: Mapping[str, str]) -> dict[str, str]:
    """A list of installed packages, as `pip list` or `pip freeze` print it.

    A name without a version has the pinned one, and is left out where there is none. Raises
    `InputError` with the line that is neither.
    """
    from packaging.version import InvalidVersion, Version

    found = {}
    for number, line in enumerate(read_text(path, "the list of packages").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text or text.startswith(("-", "Package ")):
            continue
        row = re.fullmatch(r"([A-Za-z0-9][\w.-]*)(?:\s+@.*|\s*(?:==|\s)\s*(\S+).*)?", text)
        if row is None:
            raise InputError(f"{path}, line {number}: {text!r} is not NAME==VERSION")
        name = canonical(row[1])
        version = row[2] or pinned.get(name)
        try:
            if version is not None:
                found[name] = Version(version).public
        except InvalidVersion:
            raise InputError(f"{path}, line {number}: {version!r} is no version") from None
    if not found:
        raise InputError(f"{path} lists no package; write it there with: pip list > FILE")
    return found


def pinned_versions(constraints: Path) -> dict[str, str]:
    """The versions of a file of constraints, by package."""
    rows = re.findall(r"^([\w.-]+)==([\w.]+)", read_text(constraints, "the constraints"), re.M)
    return {canonical(name): version for name, version in rows}


def canonical(name: str) -> str:
    """A package's name as indices write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lacking_wheels(
    target: Target, ours: Path, scratch: Path, pinned: Mapping[str, str]
) -> list[tuple[str, Path]]:
    """The wheels that the suite needs and the machine lacks, for it.

    Of the `pinned` versions, by package, unless they do not go with what it has.
    """
    for name, version in target.installed.items():
        _empty_wheel(scratch, name, version, target)
    kept = {name: f"{version}{_INSTALLED}" for name, version in target.installed.items()}
    try:
        return _fitting(target, ours, scratch, {**pinned, **kept})
    except InputError:
        return _fitting(target, ours, scratch, kept)


def _fitting(
    target: Target, ours: Path, scratch: Path, versions: Mapping[str, str]
) -> list[tuple[str, Path]]:
    """Wheels of these versions where they say one; empty ones are left out.

    pip asks this interpreter about markers, so what only the target needs is asked for again.
    """
    fetched, constraints = scratch / "wheels", scratch / "constraints.txt"
    rows = (f"{name}=={version}\n" for name, version in versions.items())
    constraints.write_text("".join(rows), encoding="utf-8")
    platforms = [word for tag in target.platforms for word in ("--platform", tag)]
    more: list[str] = []
    for _ in range(4):
        shutil.rmtree(fetched, ignore_errors=True)
        _pip(
            *("download", "--only-binary=:all:", "--python-version", target.python),
            *("--implementation", "cp", *platforms, "--find-links", str(scratch)),
            *("--dest", str(fetched), f"{ours}[test,triton]", *more),
            PIP_CONSTRAINT=str(constraints),
        )
        wheels = [p for p in sorted(fetched.glob("*.whl")) if _INSTALLED not in p.name]
        there, requires = dict(target.installed), {}
        for wheel in wheels:
            about = _about(wheel)
            name = canonical(about.name)
            there[name], requires[name] = about.version, about.requires or []
        more = run.unmet(["dpo-squeeze[test,triton]"], there, requires, target.markers)
        if not more:
            return [(wheel.name, wheel) for wheel in wheels if wheel.name != ours.name]
    raise InputError(f"no wheels fit together for the machine: {', '.join(more)} stay unmet")


def _about(wheel: Path) -> metadata.Distribution:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
    return metadata.PathDistribution(zipfile.Path(wheel, name.removesuffix("METADATA")))


def _empty_wheel(place: Path, name: str, version: str, target: Target) -> None:
    """A wheel of a name and a version alone, which pip takes before any that an index has."""
    short = target.python.replace(".", "")
    tag = f"cp{short}-cp{short}-{target.platform}"
    stem = f"{name.replace('-', '_')}-{version}{_INSTALLED}"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}{_INSTALLED}\n"
    kind = f"Wheel-Version: 1.0\nGenerator: squeeze\nRoot-Is-Purelib: false\nTag: {tag}\n"
    with zipfile.ZipFile(place / f"{stem}-{tag}.whl", "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", about)
        archive.writestr(f"{stem}.dist-info/WHEEL", kind)
        archive.writestr(f"{stem}.dist-info/RECORD", "")


def _pip(*words: str, **environment: str) -> None:
    """Run pip, with the user's own index settings; raises `InputError` with its reason."""
    command = [sys.executable, "-m", "pip", words[0], "--quiet", *words[1:]]
    env = os.environ | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or [
            "it said nothing"
        ]
        raise InputError(
            f"pip {words[0]} failed ({lines[-1].strip()}); check the network, pip's index settings "
            "and the list of packages"
        )


# --- pieces ---------------------------------------------------------------------------------------


def pack(
    directory: Path,
    groups: Sequence[Group],
    facts: Mapping[str, Any],
    most_bytes: int = MOST_BYTES,
) -> Iterator[Packed]:
    """Write each group's pieces, of at most `most_bytes`, the manifest and the script.

    A killed build goes on: the manifest is written after each group.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for left in directory.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left)
    try:
        groups_there = run.read_manifest(directory)["groups"]
    except run.BundleError:
        groups_there = {}
    manifest: dict[str, Any] = {**facts, "complete": False, "groups": groups_there}
    for group in groups:
        known = groups_there.get(group.name)
        kept = known is not None and known["key"] == group.key and _whole(directory, known)
        if not kept:
            with tempfile.TemporaryDirectory(dir=directory, prefix=_SCRATCH) as scratch:
                pieces = _write(directory, group, Path(scratch), most_bytes)
            known = {"key": group.key, "pieces": pieces}
        manifest["groups"][group.name] = known
        write_json(directory / run.MANIFEST, manifest)
        size = sum(piece["bytes"] for piece in known["pieces"]) / 1e6
        yield Packed(group.name, len(known["pieces"]), round(size, 1), kept)
    shutil.copyfile(Path(run.__file__), directory / "run.py")
    groups_there = {group.name: manifest["groups"][group.name] for group in groups}
    manifest |= {"complete": True, "groups": groups_there}
    write_json(directory / run.MANIFEST, manifest)
    named = {piece["file"] for group in manifest["groups"].values() for piece in group["pieces"]}
    for path in directory.glob("*.[0-9][0-9][0-9]"):
        if path.stem in manifest["groups"] and path.name not in named:
            path.unlink()  # of an earlier, longer archive


def _whole(directory: Path, group: Mapping[str, Any]) -> bool:
    """Whether all pieces of a group are there, as they were made."""
    paths = [(directory / piece["file"], piece["sha256"]) for piece in group["pieces"]]
    return all(path.is_file() and file_sha256(path) == expected for path, expected in paths)


def _write(directory: Path, group: Group, scratch: Path, most_bytes: int) -> list[dict[str, Any]]:
    pieces = _Pieces(directory, group.name, most_bytes)
    with pieces, tarfile.open(fileobj=pieces, mode="w|") as archive:  # type: ignore[call-overload]
        for name, path in sorted(group.collect(scratch)):
            entry = tarfile.TarInfo(name)  # without times and owners: the same bytes again
            entry.size = path.stat().st_size
            with path.open("rb") as stream:
                archive.addfile(entry, stream)
    return pieces.written


class _Pieces:
    """A file that is written as pieces of a size, `written` with their checksums."""

    def __init__(self, directory: Path, name: str, most_bytes: int) -> None:
        self._directory, self._name, self._most = directory, name, most_bytes
        self._stream: io.BufferedRandom | None = None
        self.written: list[dict[str, Any]] = []

    def __enter__(self) -> _Pieces:
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._close(self._stream)

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            if self._stream is None:
                name = f"{self._name}.{len(self.written):03d}"
                self._stream = (self._directory / name).open("w+b")
                self.written.append({"file": name, "bytes": 0, "sha256": ""})
            one = self.written[-1]
            part = left[: self._most - one["bytes"]]
            self._stream.write(part)
            one["bytes"] += len(part)
            left = left[len(part) :]
            if one["bytes"] == self._most:
                self._close(self._stream)
        return len(data)

    def _close(self, stream: io.BufferedRandom) -> None:
        stream.seek(0)
        self.written[-1]["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.close()
        self._stream = None
