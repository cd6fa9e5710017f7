"""Progress of a run on the terminal: a bar over all arms with time left, and a line a probe."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from squeeze.trajectory import Trajectory


class RunProgress:
    """A progress bar in units of relative cost; `total` is the sum of all `advance` to come.

    It is not `shown` where something else is.
    """

    def __init__(self, console: Console, total: float, shown: bool = True) -> None:
        self.console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not shown,
        )
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def describe(self, text: str) -> None:
        """Say what is being done now."""
        self._bar.update(self._task, description=text)

    def advance(self, cost: float) -> None:
        """Count finished work."""
        self._bar.advance(self._task, cost)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.print(text, highlight=False, soft_wrap=True)


def probe_line(trajectory: Trajectory, arm: str, probe: int) -> str:
    """One line for a probe: mean chosen, rejected, argmax log-prob and margin on training prompts.

    The margin is (chosen − rejected) in nats relative to the arm's first probe. Data without
    rejected answers have neither.
    """
    means = {
        kind: trajectory.by_example(arm, kind, "train").mean() for kind in ("chosen", "rejected")
    }
    argmax = trajectory.by_example(arm, "chosen", "train", "argmax_logp").mean()[probe]
    chosen, rejected = means["chosen"], means["rejected"]
    point = next(p for p in trajectory.points(arm) if p.probe == probe)
    when = "before training" if point.phase == "base" else f"{point.phase} epoch {point.epoch:g}"
    line = f"{arm:>10}  {when:<16} chosen {chosen[probe]:8.2f}  "
    if not len(rejected):
        return f"{line}argmax {argmax:8.2f}"
    margin = (chosen - rejected)[probe] - (chosen - rejected).iloc[0]
    return f"{line}rejected {rejected[probe]:8.2f}  argmax {argmax:8.2f}  margin {margin:+8.2f}"
