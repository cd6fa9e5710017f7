"""Reader of the training logs that Ren & Sutherland published with their paper.

A run is a JSON Lines file (an evaluation each; the first is the untouched model) and, beside some,
an array of the same values per prompt. Three things in these files mislead and are settled here,
each with a note: an argmax log-prob taken along another text than the chosen answer, lines of two
runs in one file, and aborted starts. Judging is `squeeze.study.published`'s business.

Source: github.com/Joshua-Ren/Learning_dynamics_LLM, `src/exp_results/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeeze.data.probe_set import PAPER_KINDS
from squeeze.errors import InputError
from squeeze.files import parse_json, read_bytes

Array = NDArray[np.float64]

LOG_NAME, ARRAY_NAME = "prob_train_metrics.json", "logp_npy_all_chosen.npy"
CHOSEN, ARGMAX = "logps_eval_prob_train/chosen", "argmax_prob_logits"
# The mended evaluation code writes a kind's ‖A‖ before its log-prob: a log's first key. Its logs
# hold chosen's log-prob alone and ‖A‖ of every kind, early ones the log-prob of every kind.
MENDED_FIRST_KEY = "chosen_A_o"
_LOGP = "logps_eval_prob_train/"
KINDS = {"chosen": "chosen", "rejected": "rejected", **PAPER_KINDS}  # the authors' name -> ours
_SAME = 1e-6  # nats: a mean over prompts and the line that states it
FEWEST = 5  # evaluations that make a run
_WAY_OUT = "give a clone of the authors' repository, Learning_dynamics_LLM"


@dataclass(frozen=True)
class PublishedRun:
    """One run of the authors: means over prompts, and values per prompt where they are.

    `means` is [evaluations, fields] and `prompts` [evaluations, fields, prompts] (or None), in nats
    for log-probs; `fields` are the log's own keys. `argmax_problem` says why the argmax log-prob is
    not chosen's, "" if it may be used. `notes` tell what was left out of the file.
    """

    name: str
    path: Path
    fields: tuple[str, ...]
    means: Array
    prompts: Array | None
    argmax_problem: str
    notes: tuple[str, ...] = ()

    def has(self, field: str) -> bool:
        """Whether the log holds this field."""
        return field in self.fields

    def mean(self, field: str) -> Array:
        """A field's mean over prompts, [evaluations]; `InputError` where the log lacks it."""
        return self.means[:, self._index(field)]

    def values(self, field: str) -> Array:
        """A field per prompt, [evaluations, prompts]; the mean as one column without an array."""
        index = self._index(field)
        return self.means[:, [index]] if self.prompts is None else self.prompts[:, index]

    def kinds(self) -> dict[str, str]:
        """Our names of the response kinds whose log-probs the log holds, with its keys."""
        return {ours: _LOGP + own for own, ours in KINDS.items() if self.has(_LOGP + own)}

    @property
    def n_prompts(self) -> int:
        """Prompts with values of their own: 0 where only means are published."""
        return 0 if self.prompts is None else self.prompts.shape[2]

    def _index(self, field: str) -> int:
        if field not in self.fields:
            raise InputError(f"{self.path} holds no {field!r}; it holds {', '.join(self.fields)}")
        return self.fields.index(field)


def find_logs(directory: Path) -> list[Path]:
    """The logs below a clone of the authors' repository, or in a folder of such files as *.jsonl.

    Raises `InputError` if there is none.
    """
    if not directory.is_dir():
        raise InputError(f"--logs {directory} is no directory; {_WAY_OUT}")
    found = sorted(directory.rglob(LOG_NAME))
    found += sorted(path for path in directory.glob("*.jsonl") if _looks_like_log(path))
    if not found:
        raise InputError(
            f"--logs {directory} holds none of the authors' logs ({LOG_NAME}, or *.jsonl whose "
            f"lines have {CHOSEN!r}); {_WAY_OUT}"
        )
    return found


def read_published(path: Path) -> PublishedRun:
    """Read one log and the array beside it.

    Raises `InputError` naming file and line for a line that is no evaluation, for a truncated
    array, and for one whose means are not the log's.
    """
    fields, means = _read_lines(path)
    array, notes = _read_array(path), []
    if array is not None:
        rows = _rows_of_array(path, fields, means, array)
        if len(rows) < len(means):
            others = sorted(set(range(len(means))) - set(rows))
            notes.append(
                f"{_lines(others)} of {len(means)} left out: not in this run's array, so another's"
            )
        means = means[rows]
    else:
        means, notes = _one_run(means)
    name = path.parent.name if path.name == LOG_NAME else path.stem
    problem = argmax_problem(fields, means, array)
    return PublishedRun(name, path, fields, means, array, problem, tuple(notes))


def impossible_share(chosen: Array, argmax: Array) -> float:
    """The share of cells in which the argmax log-prob lies below that of its own text.

    At every position the largest next-token log-prob is at least the target's, so along one text
    this share is 0.
    """
    valid = np.isfinite(chosen) & np.isfinite(argmax)
    below = argmax[valid] < chosen[valid] - _SAME * np.maximum(1.0, np.abs(chosen[valid]))
    return float(below.mean()) if below.size else 0.0


def argmax_problem(fields: Sequence[str], means: Array, prompts: Array | None = None) -> str:
    """Why a log's argmax log-prob is not chosen's; "" where nothing speaks against it."""
    if CHOSEN not in fields or ARGMAX not in fields:
        return "the log holds no argmax log-prob"
    chosen, argmax = fields.index(CHOSEN), fields.index(ARGMAX)
    in_means = impossible_share(means[:, chosen], means[:, argmax])
    cells = prompts if prompts is not None else means[:, :, None]
    share = impossible_share(cells[:, chosen], cells[:, argmax])
    where = "(evaluation, prompt) cells" if prompts is not None and not in_means else "evaluations"
    below = f"below chosen's own log-prob in {in_means or share:.1%} of all {where}: impossible"
    if fields[0] != MENDED_FIRST_KEY:
        last = "the early evaluation code took it along the last kind of its loop, random words"
        return f"{last}; it lies {below} along one text" if share else last
    return f"it lies {below} along one text" if share else ""


# --- reading --------------------------------------------------------------------------------------


def _looks_like_log(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return CHOSEN in file.readline(100_000)


def _read_lines(path: Path) -> tuple[tuple[str, ...], Array]:
    rows: list[dict[str, Any]] = []
    try:
        lines = read_bytes(path).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)  # bare NaN is what the authors' code writes, and json reads
        except ValueError as error:
            raise InputError(
                f"{path}, line {number} is not JSON ({error}); fetch the file again"
            ) from None
        if not isinstance(row, dict) or CHOSEN not in row:
            raise InputError(f"{path}, line {number} is no evaluation: it lacks {CHOSEN!r}")
        rows.append(row)
    if not rows:
        raise InputError(f"{path} is empty; fetch the file again")
    fields = tuple(rows[0])
    for number, row in enumerate(rows, 1):
        if set(row) != set(fields):
            differing = ", ".join(sorted(set(row) ^ set(fields)))
            raise InputError(
                f"{path}, evaluation {number} has other fields than the first ({differing})"
            )
    try:
        means = np.array([[float(row[field]) for field in fields] for row in rows])
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} holds a value that is no number ({error})") from None
    return fields, means


def _read_array(path: Path) -> Array | None:
    beside = path.with_name(ARRAY_NAME if path.name == LOG_NAME else f"{path.stem}.{ARRAY_NAME}")
    if not beside.exists():
        return None
    try:
        array = np.load(beside, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError, MemoryError) as error:
        raise InputError(f"{beside} is no whole array ({error}); fetch the file again") from None
    if array.ndim != 3 or array.dtype.kind != "f":
        raise InputError(
            f"{beside} must be numbers [evaluations, fields, prompts], not {array.dtype} of shape "
            f"{array.shape}"
        )
    values: Array = array.astype(np.float64)
    return values


def _rows_of_array(path: Path, fields: Sequence[str], means: Array, array: Array) -> list[int]:
    """The lines whose means the array's evaluations are, in order: the earliest that fits each."""
    if array.shape[1] != len(fields):
        raise InputError(
            f"the array beside {path} has {array.shape[1]} fields, its lines {len(fields)}; they "
            "are not of one run"
        )
    rows: list[int] = []
    for number, evaluation in enumerate(array.mean(axis=2)):
        after = rows[-1] + 1 if rows else 0
        found = next((i for i in range(after, len(means)) if _equal(means[i], evaluation)), None)
        if found is None:
            raise InputError(
                f"evaluation {number + 1} of the array beside {path} has means that no line of the "
                "log states; the two are not of one run, or one was cut: fetch both again"
            )
        rows.append(found)
    return rows


def _equal(a: Array, b: Array) -> bool:
    both = np.isfinite(a) & np.isfinite(b)  # a field may hold no value for some prompt
    return bool(both.any() and np.allclose(a[both], b[both], rtol=1e-6, atol=_SAME))


def _one_run(means: Array) -> tuple[Array, list[str]]:
    """The lines of one run where no array tells: the untouched model is evaluated at its start."""
    starts = [i for i in range(len(means)) if i == 0 or _equal(means[i], means[0])]
    if len(starts) == 1:
        return means, []
    ends = [*starts[1:], len(means)]
    longest = max(range(len(starts)), key=lambda k: ends[k] - starts[k])
    first, end = starts[longest], ends[longest]
    left_out = [i for i in range(len(means)) if not first <= i < end]
    aborted = max(left_out) < first and len(left_out) < FEWEST
    whose = "an aborted start" if aborted else "another run"
    return means[first:end], [
        f"{_lines(left_out)} of {len(means)} left out, {whose}: the untouched model is evaluated "
        f"{len(starts)} times"
    ]


def _lines(indices: Sequence[int]) -> str:
    """Line numbers counted from 0, as in the docs: "line 0", "lines 32, 34, 36"."""
    shown = ", ".join(map(str, indices[:12])) + (", …" if len(indices) > 12 else "")
    return f"line{'s' if len(indices) > 1 else ''} {shown}"
