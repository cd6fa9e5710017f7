"""The diagnosis station's input: what one run's log says, as named series over training time.

Reading files is the readers' work and judging is `verdict`'s; here are only the types.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# The quantities a verdict can use; "other:<kind>" are log-probs of further response kinds.
CHOSEN, REJECTED, ARGMAX = "chosen_logp", "rejected_logp", "argmax_logp"
CHOSEN_REWARD, REJECTED_REWARD, MARGIN = "chosen_reward", "rejected_reward", "reward_margin"
ACCURACY, LOSS, ENTROPY, TOKEN_ACCURACY = "reward_accuracy", "loss", "entropy", "token_accuracy"
REPETITION, NLL = "repetition", "nll"
# Of what a checkpoint generates: the share of answers that end, and their length in tokens.
END_OF_TEXT, LENGTH = "end_of_text", "length"
# Of what a training samples: the mean reward, the share of answers cut at the longest length, and
# the share of groups whose answers all have one reward.
REWARD, CUT, TIED = "reward", "cut", "tied"
OTHER = "other:"
REWARD_MODEL = "reward model"  # a method; with "?" where the numbers alone say so
LOG_PROBS = (CHOSEN, REJECTED, ARGMAX)
# Series that say something about the trained answers; the rest only accompanies them.
TELLING = (*LOG_PROBS, CHOSEN_REWARD, REJECTED_REWARD, MARGIN)


@dataclass(frozen=True)
class Series:
    """One quantity on one split; `steps` [points] strictly increase, `values` [points] are finite.

    Log-probs are in nats (per sequence or per token, as logged), rewards in β × nats. `split` is
    "train", "eval", "eval <set>", a trajectory's own split, or "" where the log does not say.
    `column` is what the log calls it. `examples` [examples, points] holds the values behind each
    mean where the log has them. `batches` says that every value is of other prompts (a trainer's
    own lines); a fixed set is scored exactly, so that its first value is the model that training
    started from.
    """

    quantity: str
    split: str
    steps: Array
    values: Array
    column: str
    examples: Array | None = None
    batches: bool = False

    def __len__(self) -> int:
        return int(self.values.size)

    def part(self, keep: slice | NDArray[np.bool_]) -> Series:
        """Some of the points."""
        examples = None if self.examples is None else self.examples[:, keep]
        return replace(self, steps=self.steps[keep], values=self.values[keep], examples=examples)


@dataclass(frozen=True)
class Finding:
    """One thing that is certain, or inconsistent, in a log: what, at which place, its usual cause.

    `kind` is a word for programs: "diverged", "saturated", "reference" (it is not the model that
    training started from), "no loss", "margin", "swapped", "accuracy", "loss bound", "first loss",
    "drift", "direction", "copies" or "argmax". The first four lead the verdict's reason.
    """

    kind: str
    what: str
    where: str = ""
    cause: str = ""
    split: str = ""

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.what}{place}" + (f": {self.cause}" if self.cause else "")


# What usually makes a run diverge.
DIVERGES = (
    "a learning rate that is too high, half precision that overflows, or a batch whose answers are "
    "empty"
)


@dataclass(frozen=True)
class RunSeries:
    """All series of one run. `axis` says what `steps` count; `notes` what was mended or doubted.

    `phase` is "sft" or "dpo" where the source states it, else "". `method` is what trained, where
    the columns tell: "orpo", "simpo", "kto", "grpo", ..., else "". `findings` are what a reader saw
    that no series can hold (values that are no numbers).
    """

    name: str
    source: str
    format: str
    axis: str
    series: tuple[Series, ...]
    phase: str = ""
    notes: tuple[str, ...] = field(default=())
    method: str = ""
    findings: tuple[Finding, ...] = ()

    def get(self, quantity: str, split: str) -> Series | None:
        """The series of that quantity on that split, if the log has it."""
        for series in self.series:
            if series.quantity == quantity and series.split == split:
                return series
        return None

    def splits(self) -> list[str]:
        """Splits that have a telling series, in order of appearance."""
        return list(dict.fromkeys(s.split for s in self.series if s.quantity in TELLING))
