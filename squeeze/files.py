"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError

from squeeze.errors import InputError

T = TypeVar("T")

_TEMPORARY = "squeeze-"  # in the name of every file that is not finished yet
ABANDONED = 86_400.0  # seconds without a byte, after which nobody is writing one any more


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends without error.

    What a killed process left of the same file goes. Raises `InputError` when the directory cannot
    be written or the disk is full.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"cannot write {path}: a directory, pipe or device of that name is there")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{path.name}.{_TEMPORARY}"
        for left in path.parent.glob(f"{glob.escape(prefix)}*"):
            with suppress(FileNotFoundError):  # another process may sweep, or finish it
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}); free some space or choose another "
            "directory with --out"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; what is no Unicode (a lone surrogate) becomes "?"."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON (no NaN) atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_figure(figure: Any, path: Path, dpi: int) -> None:
    """Write a figure of matplotlib atomically, in the format that the file's suffix names."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


MOST_BYTES = 1 << 30  # of a file that is read whole


def read_bytes(path: Path) -> bytes:
    """A whole file; raise `OSError` for a pipe or a device, which may never end, or a huge one."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is a directory, a pipe or a device, not a file")
    if found.st_size > MOST_BYTES:
        raise OSError(f"{path} is larger than {MOST_BYTES >> 20} MB")
    return path.read_bytes()


def read_text(path: Path, what: str) -> str:
    """Read UTF-8 text; raise `InputError` naming `what` it is and the file if that fails."""
    try:
        return read_bytes(path).decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot read {what} {path} ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text ({error.reason})") from error


def parse_json(text: str | bytes) -> Any:
    """JSON, bare NaN and infinities included; raises `ValueError`, also for what is nested deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> Any:
    """Read JSON; raise `InputError` naming the file if it is missing or malformed."""
    try:
        return parse_json(read_bytes(path).decode("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON ({error})") from error


def read_as(path: Path, declared: TypeAdapter[T], way_out: str) -> T:
    """Read strict JSON of a declared type, nothing converted but whole numbers to floats.

    Raises `InputError` naming the file, the place in it that is not as declared, and the `way_out`.
    """
    try:
        return declared.validate_json(read_bytes(path), strict=True)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        raise InputError(f"{path}{misfit(error)}; it was damaged or edited: {way_out}") from None


def having(*names: str) -> AfterValidator:
    """Part of a declared type: a mapping that has these keys."""

    def check(row: T) -> T:
        if missing := [name for name in names if name not in row]:  # type: ignore[operator]
            raise ValueError(f"it has no {', '.join(missing)}")
        return row

    return AfterValidator(check)


def misfit(error: ValidationError) -> str:
    """The first thing that is not as declared: ", at its.place: what is wrong"."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    said = first["msg"].replace("Input should", "what stands there should")
    return f"{', at ' + place if place else ''}: {said}"


def no_formula(value: Any) -> Any:
    """A cell of a CSV file that no spreadsheet takes for a formula: text with a quote before it."""
    risky = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if risky else value


def require_ours(path: Path, flag: str) -> None:
    """Raise `InputError` if a page that is about to be written would replace a stranger's."""
    if path.exists() and not _is_ours(path):
        raise InputError(
            f"{path} is no page of squeeze and would be overwritten; give {flag} another directory"
        )


def require_output(path: Path | None, flag: str, *inputs: Path | None) -> None:
    """Raise `InputError` if a file that is about to be written is an input, or a stranger's."""
    if path is None or not path.exists():
        return
    if any(read is not None and read.exists() and path.samefile(read) for read in inputs):
        raise InputError(f"{flag} {path} is what is read; give it another file")
    if not _is_ours(path):
        raise InputError(
            f"{flag} {path} is no file of squeeze and would be overwritten; give it another name"
        )


def _is_ours(path: Path) -> bool:
    """Whether a text says who wrote it; of a picture, whether it is one."""
    try:
        held = read_bytes(path)
    except OSError:
        return False
    return held.startswith(b"\x89PNG") if path.suffix == ".png" else b"squeez" in held.lower()


def file_sha256(path: Path) -> str:
    """Checksum of a file, as lowercase hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
