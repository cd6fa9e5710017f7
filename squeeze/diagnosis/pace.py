"""How often the callback scores: at a fixed interval, or as often as a share of the time allows.

Pure bookkeeping of seconds and steps; nothing is scored here.
"""

from __future__ import annotations

import math

MEASURED_STEPS = 3  # steps after which the interval is settled
MOST_PROBES = 100  # more points than a trend needs


class Pace:
    """Decides at which optimizer steps to score.

    `every` is the interval in steps, None until it is known; `settle` derives it from `share`, the
    part of the training time that scoring may take. `steps` holds the seconds of the steps seen so
    far. The last step is always due.
    """

    def __init__(self, every: int | None, share: float) -> None:
        self.every = every
        self.share = share
        self.steps: list[float] = []

    def add_step(self, seconds: float) -> None:
        """Note what one optimizer step took, scoring not counted."""
        self.steps.append(seconds)

    def unsettled(self, step: int, last: int) -> bool:
        """Whether the interval must be settled now."""
        return (
            self.every is None
            and bool(self.steps)
            and (len(self.steps) >= MEASURED_STEPS or step >= last)
        )

    def settle(self, probe_seconds: float, steps_left: int) -> int:
        """The interval in steps that keeps all probes, the first and last included, in the share.

        The fastest step seen counts, as the first ones warm up. Two probes there are always.
        """
        budget = self.share * steps_left * min(self.steps)
        affordable = math.floor(budget / max(probe_seconds, 1e-9))
        probes = min(max(affordable, 2), MOST_PROBES)
        return max(1, math.ceil(steps_left / (probes - 1)))

    def due(self, step: int, last: int) -> bool:
        """Whether to score after that step of a training of `last` steps."""
        return step >= last or (self.every is not None and step % self.every == 0)
