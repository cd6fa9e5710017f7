"""Cache of the user: where it is, whether what lies in it is what was put there, how far it grows.

What is put there is sealed: a file of checksums lies beside it. What is damaged is made again with
a note; what an earlier version left without checksums is sealed as it is found.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from squeeze.errors import InputError
from squeeze.files import file_sha256, parse_json, write_json

KINDS = ("models", "tinylm", "kernels", "experiments")
SUMS = "sha256.json"
LIMIT_GB = 50.0  # of experiments, unless $SQUEEZE_CACHE_GB says otherwise
_RECENT = 7 * 86400.0  # what was used since is never removed unasked
_WAY_OUT = "set SQUEEZE_CACHE to a directory that can be written"


def cache_directory() -> Path:
    """The user's cache directory for squeeze: `$SQUEEZE_CACHE`, else `$XDG_CACHE_HOME/squeeze`.

    Raises `InputError` where neither is set and there is no home directory.
    """
    explicit = os.environ.get("SQUEEZE_CACHE")
    if explicit:
        return Path(explicit)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "squeeze"
    except RuntimeError as error:
        raise InputError(f"there is no home directory to keep a cache in; {_WAY_OUT}") from error


def private(directory: Path) -> Path:
    """Make a directory of the cache, which nobody but the user may enter.

    A directory that `$SQUEEZE_CACHE` names keeps the mode that it has. Raises `InputError` where it
    cannot be made.
    """
    root = cache_directory()
    try:
        if not root.is_dir():
            root.mkdir(parents=True, exist_ok=True)
            root.chmod(0o700)
        elif not os.environ.get("SQUEEZE_CACHE") and _is_ours(root):
            root.chmod(0o700)
        directory.mkdir(parents=True, exist_ok=True)
        if directory != root and _is_ours(directory):
            directory.chmod(0o700)
    except OSError as error:
        raise InputError(
            f"the cache {directory} cannot be made ({error.strerror}); {_WAY_OUT}"
        ) from error
    return directory


def _is_ours(path: Path) -> bool:
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()


def only_ours(path: Path) -> bool:
    """Whether nobody but the user may have written a file or into a directory."""
    return _is_ours(path) and not (os.name == "posix" and path.stat().st_mode & 0o022)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Of two processes that need `target` one makes it; raises `InputError` as `private` does."""
    private(target.parent)
    lock = FileLock(target.parent / f"{target.name}.lock")
    try:
        lock.acquire()
    except OSError as error:
        raise InputError(
            f"the cache {target.parent} cannot be written ({error.strerror}); {_WAY_OUT}"
        ) from error
    try:
        yield
    finally:
        lock.release()


# --- whether it is what was put there -------------------------------------------------------------


def seal(directory: Path, names: Iterable[str] | None = None) -> None:
    """Note the checksums of these files of a directory, or of all that are in it now."""
    found = _files(directory) if names is None else list(names)
    known = {} if names is None else _sums(directory)
    sums = {name: file_sha256(directory / name) for name in found if (directory / name).is_file()}
    write_json(directory / SUMS, known | sums)


def unseal(directory: Path, names: Iterable[str]) -> None:
    """Forget the checksums of files that are about to change, so that a kill between loses none."""
    known, changing = _sums(directory), set(names)
    if changing & known.keys():
        write_json(directory / SUMS, {k: v for k, v in known.items() if k not in changing})


def damaged(directory: Path) -> str | None:
    """The name of a file that is not as it was sealed; None where all are, or none was sealed."""
    for name, expected in _sums(directory).items():
        if _sum(directory / name) != expected:
            return name
    return None


def is_sealed(path: Path) -> bool:
    """Whether a file is there as it was sealed, or without a seal; says where it is damaged."""
    if not path.exists():
        return False
    expected = _sums(path.parent).get(path.name)
    if expected is not None and _sum(path) != expected:
        say_damaged(path)
        return False
    return True


def _sums(directory: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        found = parse_json((directory / SUMS).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _files(directory: Path) -> list[str]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != SUMS)
    return [path.relative_to(directory).as_posix() for path in paths]


def _sum(path: Path) -> str:
    try:
        found = path.stat()
        return _sum_as_it_is(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    except OSError:
        return "missing"


@functools.lru_cache(maxsize=1024)
def _sum_as_it_is(path: Path, *state: int) -> str:
    return file_sha256(path)


def kept(target: Path, make: Callable[[Path], object]) -> Path:
    """The cache's directory `target`, made by `make(scratch)` where it is missing or damaged."""
    if _is_whole(target):
        return target
    with locked(target):
        if _is_whole(target):
            return target
        if target.exists():
            say_damaged(target / (damaged(target) or ""))
            shutil.rmtree(target)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            scratch = Path(temporary) / target.name
            make(scratch)
            seal(scratch)
            scratch.rename(target)
    return target


def _is_whole(target: Path) -> bool:
    if not target.is_dir():
        return False
    if not (target / SUMS).exists():
        with suppress(InputError):  # a cache that is read only stays without checksums
            seal(target)
    return damaged(target) is None


def say_damaged(path: Path) -> None:
    """Tell that something cached is not what was put there."""
    print(f"squeeze: {path} is damaged; it is made again", file=sys.stderr)


# --- how far it grows -----------------------------------------------------------------------------


@dataclass(frozen=True)
class CacheEntry:
    """What can be removed by itself; `used` is when it was last used, in seconds of the clock."""

    kind: str
    path: Path
    size: int
    used: float

    @property
    def days(self) -> float:
        """How long it was not used."""
        return max(time.time() - self.used, 0.0) / 86400

    def remove(self) -> bool:
        """Remove it unless a process is at it; whether it was removed."""
        locks = [self.path.parent / f"{self.path.name}.lock", *self.path.rglob("*lock")]
        try:
            for lock in locks:
                if lock.is_file():
                    with FileLock(lock, blocking=False):
                        pass
        except Timeout:
            return False
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)
        for beside in (locks[0], self.path.with_suffix(".sha256")):
            beside.unlink(missing_ok=True)
        return True


# A key, a record, or what a killed process left: SQUEEZE_CACHE may name a directory of more.
_OURS = re.compile(r"([a-z\d]+-)?[\da-f]{16}(\.\w+)?|[a-z-]+-[\w.-]+-\d+\.json|tmp[a-z\d_]{8}")


def entries() -> list[CacheEntry]:
    """All of ours that lies in the cache, by kind, the longest unused first."""
    root, found = cache_directory(), []
    for kind in KINDS:
        for path in (root / kind).glob("*"):
            if path.is_symlink() or not _OURS.fullmatch(path.name):
                continue
            entry = _entry(kind, path)
            made_now = path.name.startswith("tmp") and entry.days < 1  # else a killed process's
            if path.suffix not in (".lock", ".sha256") and not made_now:
                found.append(entry)
    return sorted(found, key=lambda entry: (KINDS.index(entry.kind), entry.used))


def _entry(kind: str, path: Path) -> CacheEntry:
    size, used = 0, path.stat().st_mtime
    for part in path.rglob("*") if path.is_dir() else [path]:
        with suppress(OSError):  # removed meanwhile
            state = part.stat()
            size += state.st_size if part.is_file() else 0
            used = max(used, state.st_mtime)
    return CacheEntry(kind, path, size, used)


def bound() -> None:
    """Remove the experiments longest unused where all take more than the limit, and say so.

    The limit is `LIMIT_GB`, or $SQUEEZE_CACHE_GB; what was used in the last week stays.
    """
    given = os.environ.get("SQUEEZE_CACHE_GB", str(LIMIT_GB))
    try:
        limit = float(given) * 1e9
        if not limit >= 0:  # nor NaN, which everything would be more than
            raise ValueError
    except ValueError:
        raise InputError(f"SQUEEZE_CACHE_GB must be a number of gigabytes, not {given!r}") from None
    experiments = [entry for entry in entries() if entry.kind == "experiments"]
    total = sum(entry.size for entry in experiments)
    for entry in experiments:
        if total <= limit or time.time() - entry.used < _RECENT:
            return
        if entry.remove():
            total -= entry.size
            print(
                f"squeeze: {entry.path} ({entry.size / 1e6:.0f} MB, {entry.days:.0f} days unused) "
                f"was removed: the cache holds more than {limit / 1e9:g} GB (SQUEEZE_CACHE_GB)",
                file=sys.stderr,
            )
