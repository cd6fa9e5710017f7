"""The directory that the callback writes: trajectory.parquet and run.json, as reports read them.

Every file is replaced whole, so that a killed training leaves the last complete probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from squeeze.diagnosis.severity import Name
from squeeze.diagnosis.verdict import Diagnosis
from squeeze.errors import InputError
from squeeze.run_directory import RunRecord
from squeeze.trajectory import ProbePoint, Trajectory

if TYPE_CHECKING:  # they need torch, which a log's page does not
    from squeeze.data.encoding import EncodedItem
    from squeeze.scoring import ResponseScores

ARM = "run"
_TONES: Mapping[Name, str] = {
    "healthy": "no",
    "undetermined": "unknown",
    "no learning": "unknown",
    "early": "partly",
    "displacement": "partly",
    "lazy displacement": "partly",
    "entropy collapse": "yes",
    "length collapse": "yes",
    "repetition collapse": "yes",
    "squeezing": "yes",
    "collapse": "yes",
}


class Record:
    """One training's trajectory and what is known of the run; on disk only where `writes`."""

    def __init__(self, directory: Path, writes: bool) -> None:
        self.directory = directory
        self.writes = writes
        self.trajectory = Trajectory.empty()
        self.about: RunRecord | None = None

    @property
    def trajectory_file(self) -> Path:
        """Where the scores are."""
        return self.directory / "trajectory.parquet"

    @property
    def run_file(self) -> Path:
        """Where the facts about the run are."""
        return self.directory / "run.json"

    def resume(self, step: int, items: Sequence[EncodedItem]) -> RunRecord | None:
        """Go on from optimizer step `step`: later probes are dropped; the old `run.json`, or None.

        Step 0 starts anew. Raises `InputError` when the directory holds scores of another probe.
        """
        if step == 0 or not self.trajectory_file.exists():
            return None
        frame = Trajectory.read(self.trajectory_file).frame
        frame = frame[frame["step"] <= step]
        expected = {(i.example, i.split, kind) for i in items for kind in i.response_ids}
        found = set(frame[["example", "split", "kind"]].itertuples(index=False, name=None))
        if found and found != expected:
            raise InputError(
                f"{self.trajectory_file} holds scores of another probe than this training's; "
                "resume with the same probe, or pass another out="
            )
        self.trajectory = Trajectory(frame.reset_index(drop=True))
        return RunRecord.read(self.run_file) if self.run_file.exists() else None

    @property
    def probes(self) -> int:
        """How many probes there are."""
        return len(self.trajectory.points(ARM))

    @property
    def last_step(self) -> int | None:
        """The optimizer step of the newest probe; None without one."""
        points = self.trajectory.points(ARM)
        return points[-1].step if points else None

    def chosen(self) -> float:
        """The newest probe's mean chosen log-prob, in nats: of held-out answers if there are."""
        return float(self._chosen().iloc[-1])

    def best(self) -> float:
        """The largest that `chosen` was at any probe."""
        return float(self._chosen().max())

    def _chosen(self) -> pd.Series:
        splits = self.trajectory.splits()
        split = "held_out" if "held_out" in splits else splits[0]
        return self.trajectory.by_example(ARM, "chosen", split).mean()

    def add(self, phase: str, step: int, epoch: float, scores: Sequence[ResponseScores]) -> None:
        """Add a probe, on disk before anything else goes on."""
        kind = phase if step else "base"
        point = ProbePoint(ARM, kind, step, round(epoch, 6), self.probes)
        self.trajectory = self.trajectory.append(point, scores)
        if self.writes:
            self.trajectory.write(self.trajectory_file)

    def write_about(self, **facts: Any) -> None:
        """Update `run.json`; facts that are no fields of a `RunRecord` go along."""
        assert self.about is not None
        for name, value in facts.items():
            if hasattr(self.about, name):
                setattr(self.about, name, value)
            else:
                self.about.more[name] = value
        if self.writes:
            self.about.write(self.run_file)

    def means(self) -> dict[str, dict[str, float]]:
        """The newest probe by split: mean log-probs by kind, `argmax`, `entropy` and `margin`.

        Nats per response (entropy: per token); `margin` is chosen − rejected since the first probe.
        """
        frame = self.trajectory.frame
        first, last = frame["probe"].min(), frame["probe"].max()
        found = {}
        for split in dict.fromkeys(frame["split"]):
            rows = frame[frame["split"] == split]
            now = rows[rows["probe"] == last]
            chosen = now[now["kind"] == "chosen"]
            values = now.groupby("kind", sort=False)["logp"].mean().to_dict()
            values["argmax"] = chosen["argmax_logp"].mean()
            values["entropy"] = chosen["entropy"].mean()
            if "rejected" in values:
                before = rows[rows["probe"] == first].groupby("kind")["logp"].mean()
                start = before["chosen"] - before["rejected"]
                values["margin"] = values["chosen"] - values["rejected"] - start
            found[str(split)] = {str(name): float(value) for name, value in values.items()}
        return found


def headline(diagnosis: Diagnosis) -> dict[str, str]:
    """The fields of run.json that tell the report of a verdict."""
    return {
        "verdict": diagnosis.verdict,
        "headline": f"{diagnosis.verdict.capitalize()}: {diagnosis.reason}",
        "tone": _TONES[diagnosis.verdict],
    }
