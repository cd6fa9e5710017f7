"""Answers that a training samples, as the callback sees them: a probe out of the first ones.

Of each prompt an answer that was rewarded above its group becomes chosen, one below it rejected.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from squeeze.data.encoding import EncodedItem
from squeeze.data.probe_set import CHOSEN, REJECTED
from squeeze.diagnosis.probe import SPLIT
from squeeze.files import read_as, write_json
from squeeze.text_statistics import repeated_share

FILE = "probe.json"
_PROBE = TypeAdapter(list[EncodedItem])
KINDS = (CHOSEN, REJECTED)
WAIT = 10  # optimizer steps after which a smaller probe is taken as it is
FEWEST = 2  # pairs of a smaller probe


class SampledAnswers:
    """Notes a trainer's rollouts: pairs for a probe of `limit` prompts, and how they repeat."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._answers: dict[tuple[int, ...], dict[str, tuple[float, list[int]]]] = {}
        self._repeated: list[float] = []

    def note(self, batch: Mapping[str, Any]) -> None:
        """Take up a batch of TRL's: prompt_ids, completion_ids, their masks, and advantages."""
        advantages = batch["advantages"].reshape(len(batch["prompt_ids"]), -1)[:, 0].tolist()
        prompts = _rows(batch["prompt_ids"], batch["prompt_mask"])
        answers = _rows(batch["completion_ids"], batch["completion_mask"])
        self._repeated += [repeated_share([str(token) for token in ids]) for ids in answers]
        for prompt, answer, advantage in zip(prompts, answers, advantages, strict=True):
            if not answer or advantage == 0:
                continue
            known = self._answers.setdefault(tuple(prompt), {})
            kind = CHOSEN if advantage > 0 else REJECTED
            if kind not in known or abs(advantage) > abs(known[kind][0]):
                known[kind] = (advantage, answer)

    def repetition(self) -> float | None:
        """The mean share of repeated 4-grams of the answers since the last call; None for none."""
        found, self._repeated = self._repeated, []
        return float(np.mean(found)) if found else None

    def probe(self, steps: int) -> list[EncodedItem]:
        """Pairs of the first prompts that have both, once there are enough of them; else none."""
        pairs = [(prompt, both) for prompt, both in self._answers.items() if len(both) == 2]
        if len(pairs) < self.limit and (steps < WAIT or len(pairs) < FEWEST):
            return []
        return [
            EncodedItem(
                f"rollout-{number}",
                SPLIT,
                list(prompt),
                {k: both[k][1] for k in (CHOSEN, REJECTED)},
            )
            for number, (prompt, both) in enumerate(pairs[: self.limit])
        ]


def _rows(ids: Any, mask: Any) -> list[list[int]]:
    return [row[kept].tolist() for row, kept in zip(ids, mask.bool(), strict=True)]


def write_probe(directory: Path, items: list[EncodedItem]) -> None:
    """Keep a probe beside its scores, so that a resumed training is watched on."""
    rows = [vars(item) for item in items]
    write_json(directory / FILE, rows)


def read_probe(directory: Path) -> list[EncodedItem]:
    """The probe that was kept there; none without one."""
    path = directory / FILE
    return read_as(path, _PROBE, "delete it: a new probe is sampled") if path.is_file() else []
