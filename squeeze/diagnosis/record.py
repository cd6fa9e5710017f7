"""The directory that the callback writes: trajectory.parquet and run.json, as reports read them.

Every file is replaced whole, so that a killed training leaves the last complete probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from squeeze.data.encoding import EncodedItem
from squeeze.diagnosis.verdict import Diagnosis, Name
from squeeze.errors import InputError
from squeeze.files import read_json, write_json
from squeeze.scoring import ResponseScores
from squeeze.trajectory import ProbePoint, Trajectory

ARM = "run"
_TONES: Mapping[Name, str] = {
    "healthy": "no",
    "undetermined": "unknown",
    "no learning": "unknown",
    "early": "partly",
    "displacement": "partly",
    "squeezing": "yes",
    "collapse": "yes",
}


class Record:
    """One training's trajectory and what is known of the run; on disk only where `writes`."""

    def __init__(self, directory: Path, writes: bool) -> None:
        self.directory = directory
        self.writes = writes
        self.trajectory = Trajectory.empty()
        self.about: dict[str, Any] = {}

    @property
    def trajectory_file(self) -> Path:
        """Where the scores are."""
        return self.directory / "trajectory.parquet"

    @property
    def run_file(self) -> Path:
        """Where the facts about the run are."""
        return self.directory / "run.json"

    def resume(self, step: int, items: Sequence[EncodedItem]) -> dict[str, Any]:
        """Go on from optimizer step `step`: later probes are dropped; the old `run.json`, or {}.

        Step 0 starts anew. Raises `InputError` when the directory holds scores of another probe.
        """
        if step == 0 or not self.trajectory_file.exists():
            return {}
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
        known = read_json(self.run_file) if self.run_file.exists() else {}
        return known if isinstance(known, dict) else {}

    @property
    def probes(self) -> int:
        """How many probes there are."""
        return len(self.trajectory.points(ARM))

    def add(self, phase: str, step: int, epoch: float, scores: Sequence[ResponseScores]) -> None:
        """Add a probe, on disk before anything else goes on."""
        kind = phase if step else "base"
        point = ProbePoint(ARM, kind, step, round(epoch, 6), self.probes)
        self.trajectory = self.trajectory.append(point, scores)
        if self.writes:
            self.trajectory.write(self.trajectory_file)

    def write_about(self, **facts: Any) -> None:
        """Update `run.json`."""
        self.about |= facts
        if self.writes:
            write_json(self.run_file, self.about)

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


def now() -> str:
    """The time, as run.json holds it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
