"""The one exception users are meant to see; on the command line, one sentence and exit code 2."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one clear sentence or two: it names the row, field, file or flag that is wrong,
    and the way out.

    >>> import squeeze
    >>> try:
    ...     squeeze.get_loss("sigmod")
    ... except squeeze.InputError as error:
    ...     print(str(error).partition(";")[0])
    unknown loss 'sigmod'
    """


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """ "; did you mean 'x'?" for the known name that is most like this one, "" where none is."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SYSTEM = {
    *(_NO_ROOM | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG}),
    *(errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ENOTDIR, errno.EISDIR, errno.ESTALE),
    *(errno.EEXIST, errno.EINVAL, errno.EBUSY, errno.ENXIO, errno.ENODEV, errno.ETXTBSY),
}
# What libraries say that are not written in Python.
_NO_ROOM_WORDS = ("No space left on device", "Disk quota exceeded", "File too large")
_ELSEWHERE = "another place (--out, SQUEEZE_CACHE, TMPDIR)"
_NO_MEMORY_WORDS = ("can't allocate memory", "CUDA out of memory", "not enough memory")


def refused_by_system(error: BaseException) -> str | None:
    """A sentence where the system refused room, memory or permission, whatever library met it.

    None for any other error.
    """
    cause: BaseException | None = error
    while cause is not None:
        if sentence := _refused(cause):
            return sentence
        cause = cause.__cause__ or cause.__context__
    return None


def _refused(error: BaseException) -> str | None:
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in _NO_ROOM or any(words in text for words in _NO_ROOM_WORDS):
        return f"no room to write ({_first_line(text)}); free some space or choose {_ELSEWHERE}"
    if number in _SYSTEM:
        return f"the system refused it ({_first_line(text)}); mend that or choose {_ELSEWHERE}"
    if "No usable temporary directory" in text:
        return f"{_first_line(text)}; set TMPDIR to a directory that can be written"
    if (
        isinstance(error, MemoryError)
        or number == errno.ENOMEM
        or any(words in text for words in _NO_MEMORY_WORDS)
    ):
        return f"not enough memory ({_first_line(text) or 'MemoryError'}); give it less at once"
    return None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
