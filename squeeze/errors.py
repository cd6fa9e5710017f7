"""The one exception users are meant to see; on the command line, one sentence and exit code 2."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one clear sentence or two: it names the row, field, file or flag that is wrong,
    and the way out.
    """
