"""What becomes of entropy in GRPO on the tiny world, and what keeps it: the table of a page.

`python -m benchmarks.grpo_entropy` prints the table of docs/my-grpo-entropy-collapses.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from squeeze.diagnosis import series as q
from squeeze.diagnosis.rollouts import ROLLOUTS, judge_rollouts
from squeeze.diagnosis.series import RunSeries, Series
from squeeze.study.group_relative import Recipe, SignedGRPOTrainer, group_trainer
from squeeze.study.verifiable import TASKS, Turns, names_the_value
from squeeze.training.trainers import quiet

RECIPE = Recipe(
    questions=40, group=8, tokens=20, temperature=1.0, step=0.0, questions_a_step=3, steps=120,
    learning_rate=5e-4,
)  # fmt: skip
LOGGED = {q.ENTROPY: "entropy", q.REWARD: "reward", q.LENGTH: "completions/mean_length"}


def brevity(completions: Sequence[Turns], **_: Any) -> list[float]:
    """1 for an answer of no words, 0 for one of twenty."""
    return [1 - len(turns[-1]["content"].split()) / 20 for turns in completions]


@dataclass(frozen=True)
class Arm:
    """One way to train: what is rewarded beside the right word, and what differs from TRL's GRPO.

    `positive` multiplies the advantages above 0, `slower` divides the learning rate.
    """

    name: str
    brief: float = 0.2  # weight of brevity in the reward
    positive: float = 1.0
    slower: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)


ARMS = (
    Arm("right or wrong", brief=0.0),
    Arm("right, and 0.2 for brevity"),
    Arm("… advantages not divided by the group's deviation", settings={"scale_rewards": "none"}),
    Arm("… KL to the start, β = 0.1", settings={"beta": 0.1}),
    Arm("… a third of the learning rate", slower=3.0),
    Arm("… right answers' advantages times 0.1", positive=0.1),
)


class Weighted(SignedGRPOTrainer):
    """TRL's trainer with the advantages above 0 times `positive`."""

    positive = 1.0

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss of these rollouts."""
        a = inputs["advantages"]
        inputs = {**inputs, "advantages": torch.where(a > 0, self.positive * a, a)}
        return super().compute_loss(model, inputs, *args, **kwargs)


def train(arm: Arm, seed: int, steps: int) -> list[dict[str, float]]:
    """What TRL logs of each step."""
    TASKS["arm"] = replace(TASKS["tinylm"], reward=[names_the_value, brevity])
    with tempfile.TemporaryDirectory() as place:
        trainer = group_trainer(
            *("arm", seed, RECIPE, place, RECIPE.questions_a_step),
            kind=Weighted,
            max_steps=steps,
            learning_rate=RECIPE.learning_rate / arm.slower,
            reward_weights=[1.0, arm.brief],
            **arm.settings,
        )
        trainer.positive = arm.positive
        trainer.train()
    return [row for row in trainer.state.log_history if "entropy" in row]


def verdict(rows: Sequence[Mapping[str, float]]) -> str:
    """What `squeeze diagnose` says of such a log."""
    steps = np.arange(1.0, len(rows) + 1)
    series = tuple(
        Series(name, ROLLOUTS, steps, np.array([row[key] for row in rows]), key, None, True)
        for name, key in LOGGED.items()
    )
    log = RunSeries("grpo", "trained", "trained", "step", series, method="grpo")
    return judge_rollouts(log).verdict


def table(arms: Sequence[Arm], seeds: Sequence[int], steps: int) -> Iterator[str]:
    """A row an arm: means over seeds of the first five and the last fifth of the steps."""
    yield "| reward, and how trained | entropy, nats a token | right answers | tokens | verdicts |"
    yield "|---|---|---|---|---|"
    keys = "entropy", "rewards/names_the_value/mean", "completions/mean_length"
    for arm in arms:
        logs = [train(arm, seed, steps) for seed in seeds]
        first, last = (
            {k: [float(np.mean([row[k] for row in log[part]])) for log in logs] for k in keys}
            for part in (slice(5), slice(-max(1, steps // 5), None))
        )
        ends = ", ".join(f"{value:.2f}" for value in last[keys[0]])
        start, right, length = (float(np.mean(first[k])) for k in keys)
        counts = Counter(map(verdict, logs)).most_common()
        yield (
            f"| {arm.name} | {start:.2f} → {ends} | {right:.0%} → {np.mean(last[keys[1]]):.0%} "
            f"| {length:.0f} → {np.mean(last[keys[2]]):.0f} "
            f"| {', '.join(f'{name} {n}' for name, n in counts)} |"
        )


def main() -> None:
    """Train every arm on each seed and print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    given = parser.parse_args()
    quiet()
    for row in table(ARMS, given.seeds, given.steps):
        print(row, flush=True)


if __name__ == "__main__":
    main()
