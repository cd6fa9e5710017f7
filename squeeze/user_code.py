"""Code of the user's own (plugins, kernels, trainers): whatever it raises is one sentence."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from squeeze.errors import InputError

_LIBRARIES = [
    sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")
]
_NOT_THEIRS = (str(Path(__file__).parent), "<frozen", *_LIBRARIES)


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Whatever the block raises as one `InputError`: `what` failed, in which file and line.

    The line is the last one that is neither ours nor a library's. Ctrl-C passes.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        said = str(error) if isinstance(error, InputError) else _said(error)
        raise InputError(f"{what} failed{_place(error)}: {said}") from error


def _said(error: BaseException) -> str:
    name, text = type(error).__name__, error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{name}: {' '.join(text.split())[:300]}" if text else name


def _place(error: BaseException) -> str:
    """ " in FILE, line N" of the user's own code, as far as the error tells."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" in {error.filename}, line {error.lineno}"
    found = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in found if not frame.filename.startswith(_NOT_THEIRS)]
    return f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
