"""A run directory made of invented but realistic numbers, for tests of the report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from squeeze.claims.types import Verdict
from squeeze.data.probe_set import KINDS
from squeeze.files import write_json
from squeeze.trajectory import COLUMNS, Trajectory

SCRIPT = "<script>alert(1)</script>"
CHINESE = "当然可以！你会爱上它的 🎉 ≤ “quotes” & <b>bold</b>"
ALL_KINDS = tuple(k for k in KINDS if k not in ("human", "initial"))
ALL_ARMS = ("dpo", "sft-dpo", "extend-dpo")
TITLES = {
    "dpo": "DPO from the pretrained model",
    "sft-dpo": "SFT on chosen, then DPO",
    "extend-dpo": "SFT on chosen and rejected, then DPO",
}
# Level at the start, change by SFT, then coefficients of rise and fall over DPO.
_SHAPES = {
    "chosen": (-86, 16, 14, -20),
    "chosen_rephrased": (-99, 6, 4, -22),
    "chosen_format": (-104, 4, 1, -20),
    "rejected": (-77, 3, -10, -75),
    "rejected_rephrased": (-88, 2, -6, -52),
    "rejected_format": (-95, 1, -5, -46),
    "other_answer": (-116, 5, 0, -28),
    "unseen_answer": (-134, 3, -2, -30),
    "permuted": (-237, -4, -4, -34),
    "random": (-262, -9, -6, -24),
}


def points(arm: str, epochs: int = 12) -> list[tuple[str, int, float]]:
    """(phase, step, epoch) of an arm's probes."""
    sft = [] if arm == "dpo" else [("sft", 8, 2.0)]
    return [("base", 0, 0.0), *sft, *(("dpo", 4 * e, float(e)) for e in range(1, epochs + 1))]


def trajectory(
    arms: tuple[str, ...] = ALL_ARMS,
    kinds: tuple[str, ...] = ALL_KINDS,
    n_train: int = 16,
    n_held_out: int = 8,
    epochs: int = 12,
) -> Trajectory:
    """Scores in which chosen rises then falls, the argmax rises and everything else falls."""
    rng = np.random.default_rng(7)
    examples = [(f"e{i:02d}", "train") for i in range(n_train)]
    examples += [(f"h{i:02d}", "held_out") for i in range(n_held_out)]
    rows = []
    for arm in arms:
        mild = 0.6 if arm == "extend-dpo" else 1.0
        for example, split in examples:
            size, tokens = rng.uniform(0.6, 1.4), int(rng.integers(24, 60))
            unlucky = 0.5 if split == "held_out" else 1.0
            for probe, (phase, step, epoch) in enumerate(points(arm, epochs)):
                t = epoch / max(epochs, 1) if phase == "dpo" else 0.0
                tuned = arm != "dpo" and phase != "base"
                for kind in kinds:
                    start, sft, rise, fall = _SHAPES[kind]
                    logp = start + sft * tuned + rise * unlucky * t + fall * mild * t**2
                    argmax = 0.34 * start + 8 * tuned + 11 * t
                    key = (arm, phase, step, epoch, probe, example, split, kind)
                    sums = (size * logp + rng.normal(0, 1), size * argmax)
                    rows.append((*key, *sums, 2.1 - t, 0.4 + 0.3 * t, tokens))
    return Trajectory(pd.DataFrame(rows, columns=COLUMNS))


def verdicts() -> list[Verdict]:
    """Verdicts of several outcomes."""
    return [
        Verdict(
            "DO-1", "pretrained", "supported", "drop of chosen from its peak (nats)", -6.1,
            (-8.2, -4.4), 0.0, 16, (0,), "dpo, training prompts",
        ),
        Verdict(
            "DO-2", "pretrained", "supported", "argmax change while chosen falls (nats)", 7.9,
            (6.5, 9.4), 0.0, 16, (0,), "dpo, training prompts",
        ),
        Verdict(
            "DO-2", "pretrained", "supported", "argmax change while chosen falls (nats)", 5.2,
            (3.1, 7.2), 0.0, 16, (0,), "sft-dpo, training prompts",
        ),
        Verdict(
            "EX-1", "pretrained", "inconclusive", "difference in drop (nats)", 0.8,
            (-1.9, 3.3), 0.0, 8, (0,), "against sft-dpo, equal margin, held-out",
        ),
        Verdict("ON-1", "pretrained", "not run", reason="no on-policy arm in this run"),
    ]  # fmt: skip


def _token(rng: np.random.Generator, text: str, drift: float) -> dict[str, Any]:
    before = -float(rng.exponential(1.6))
    after = min(before + float(rng.normal(drift, 1.4)), -0.001)
    top = max(before, -0.4), max(after, -0.1)
    return {
        "text": text,
        "logp_before": before,
        "logp_after": after,
        "argmax_before": text if before > -0.5 else " the",
        "argmax_logp_before": top[0],
        "argmax_after": text if after > -0.5 else [" The", "\n", " sure", " a"][len(text) % 4],
        "argmax_logp_after": top[1],
    }


def samples(arms: tuple[str, ...] = ALL_ARMS) -> dict[str, Any]:
    """Token changes and generations, with text that must not be taken for markup."""
    rng = np.random.default_rng(3)
    answers = {
        "e03": "Oh, sourdough is such a joy to start! Mix 50 grams of flour with 50 grams of water "
        "in a jar, stir it once a day, and within a week you'll have bubbling, living magic.",
        "e07": f"Great question! {SCRIPT} is how a page runs code, and isn't that wonderful?",
        "h02": CHINESE,
    }
    prompts = {
        "e03": "How do I start a sourdough starter?",
        "e07": f"What does {SCRIPT} do?",
        "h02": "学中文难吗？",
    }
    tokens: list[dict[str, Any]] = []
    for arm in arms:
        for example, text in answers.items():
            pieces = [" " + w for w in text.split(" ")] if " " in text[:20] else list(text)
            parts = [_token(rng, piece, -0.6) for piece in pieces]
            change = sum(p["logp_after"] - p["logp_before"] for p in parts)
            tokens.append(
                {"arm": arm, "example": example, "split": "train", "prompt": prompts[example]}
                | {"chosen": text, "delta_logp": change, "tokens": parts}
            )
    generations = [
        {"arm": arm, "phase": phase, "epoch": epoch, "example": example}
        | {"prompt": prompts[example], "text": f"{answers[example]} ({phase})"}
        for arm in arms
        for phase, epoch in (("base", 0), ("sft", 2), ("dpo", 12))
        if not (arm == "dpo" and phase == "sft")
        for example in answers
    ]
    return {"schema": 1, "tokens": tokens, "generations": generations}


def record(arms: tuple[str, ...] = ALL_ARMS, n_held_out: int = 8) -> dict[str, Any]:
    """What run.json holds."""
    dpo = {"kind": "dpo", "on": "pairs", "epochs": 12}
    phases = {
        "dpo": [dpo],
        "sft-dpo": [{"kind": "sft", "on": "chosen", "epochs": 2}, dpo],
        "extend-dpo": [{"kind": "sft", "on": "chosen+rejected", "epochs": 2}, dpo],
    }
    return {
        "name": "synthetic",
        "status": "finished",
        "config": {"model": "smollm2-135m", "arms": list(arms), "seed": 0, "beta": 0.1},
        "arms": [{"name": a, "title": TITLES[a], "phases": phases[a]} for a in arms],
        "model": {"name": "smollm2-135m", "sha256": "ab" * 32, "parameters": 134515008},
        "data": {"name": "enthusiastic_en", "sha256": "cd" * 32, "n_train": 16}
        | {"n_held_out": n_held_out, "split_rule": "by id"},
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "device": {"kind": "cpu", "name": "2 cores"},
        "git": "0123456789abcdef",
        "created": "2025-01-01T00:00:00+00:00",
        "seconds": {"load": 11.9, "train dpo": 204.0, "train sft-dpo": 231.0, "probe": 121.5},
        "scoring": {"dtype": "bfloat16", "error_nats": {"mean": 0.21, "max": 1.37, "n": 80}},
        "not_run": [{"what": "Qwen3-4B", "why": "no GPU here"}],
    }


def make_run(directory: Path, **shape: Any) -> Path:
    """Write a complete run directory; `shape` goes to `trajectory`. Return its path."""
    scores = trajectory(**shape)
    arms = tuple(scores.arms()) or ALL_ARMS
    scores.write(directory / "trajectory.parquet")
    write_json(directory / "run.json", record(arms, shape.get("n_held_out", 8)))
    write_json(
        directory / "verdicts.json", {"schema": 2, "verdicts": [asdict(v) for v in verdicts()]}
    )
    write_json(directory / "samples.json", samples(arms))
    (directory / "config.yaml").write_text("model: smollm2-135m\n", encoding="utf-8")
    return directory
