"""The one exception users are meant to see; on the command line, one sentence and exit code 2."""

from __future__ import annotations

import difflib
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
