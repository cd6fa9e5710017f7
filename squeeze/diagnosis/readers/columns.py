"""Columns of a log: which hold a quantity, of which split, and what kind of training wrote them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from squeeze.diagnosis.names import Meaning, recognise
from squeeze.diagnosis.readers.records import Table
from squeeze.diagnosis.series import ENTROPY, LOSS, OTHER, TELLING, TOKEN_ACCURACY
from squeeze.errors import InputError

MOST_COLUMNS = 20_000
_TRAINER = re.compile(r"^(train/)?(learning_rate|lr|grad_norm|(rewards|logps|log_probs)/.*)$", re.I)
# A trainer's own words; plain names (chosen, argmax) are somebody's evaluations.
_BATCHED = ("chosen_reward", "rejected_reward", "reward_margin", "reward_accuracy", LOSS)


def meanings(table: Table) -> dict[str, Meaning]:
    """What each recognised column holds, with its split.

    Raises `InputError` for more columns than a log has, for two that differ by case only, and where
    there is nothing that a diagnosis can use.
    """
    columns = list(dict.fromkeys(str(c) for record in table.records for c in record))
    if len(columns) > MOST_COLUMNS:
        raise InputError(
            f"{table.source} has {len(columns)} columns; a log has at most {MOST_COLUMNS}: export "
            "the metrics of one run"
        )
    found = {c: m for c in columns if (m := recognise(c)) is not None}
    _require_distinct(table, list(found))
    _require_usable(table, columns, found)
    return _with_split(found, columns)


def method(table: Table, columns: Sequence[str]) -> str:
    """What trained, where the columns or the text around them tell; else ""."""
    lowered = {_plain(c) for c in columns}
    if any("log_odds" in c or "log odds" in c for c in lowered):
        return "orpo"
    if any(c.startswith("objective/") for c in lowered) and "rewards/chosen" in lowered:
        return "online dpo"
    if "kl" in lowered and "rewards/chosen" in lowered:
        return "kto"
    return table.method or _other_trainer(lowered)


def _plain(column: str) -> str:
    return re.sub(r"^(train|eval)[/_]", "", column.lower())


def _require_distinct(table: Table, columns: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for column in columns:
        other = seen.setdefault(column.casefold(), column)
        if other != column:
            raise InputError(
                f"{table.source} has the columns {other!r} and {column!r}, which differ by case "
                "only; rename or delete one, so that it is known which is meant"
            )


def _require_usable(table: Table, columns: Sequence[str], found: Mapping[str, Meaning]) -> None:
    quantities = {m.quantity for m in found.values()}
    if quantities & set(TELLING) or any(m.startswith(OTHER) for m in quantities):
        return
    other = _other_trainer({_plain(c) for c in columns})
    if other == "grpo" and quantities & {LOSS, ENTROPY}:
        return
    if other:
        named = {"grpo": "a GRPO or RLOO run", "ppo": "a PPO run"}.get(other, other)
        raise InputError(
            f"{table.source} looks like a log of {named}: it has no chosen or rejected series, so "
            "there is nothing to diagnose here; give the log of a preference or SFT run"
        )
    if not quantities & {LOSS, TOKEN_ACCURACY}:
        raise InputError(
            f"{table.source} has no column that a diagnosis can use (rewards/chosen, "
            f"logps/chosen, argmax, loss, ...); its columns are {some(columns)}"
        )


def _other_trainer(lowered: set[str]) -> str:
    if any(c.startswith(("completions/", "clip_ratio", "sampling/")) for c in lowered) or (
        "reward_std" in lowered
    ):
        return "grpo"
    if any(c.startswith(("ppo/", "objective/", "policy/")) for c in lowered) or (
        "policy_loss" in lowered and "reward" in lowered
    ):
        return "ppo"
    if {"min_reward", "max_reward"} <= lowered or {"chosen_mean", "reject_mean"} & lowered:
        return "a reward model's training"
    return ""


def _with_split(found: Mapping[str, Meaning], columns: Sequence[str]) -> dict[str, Meaning]:
    """Unprefixed columns: evaluations where they stand beside "Validation Loss", else training.

    transformers' tables in notebooks and model cards have a row an evaluation, whose metrics lose
    their eval_ prefix. Names that no trainer uses ("chosen", "argmax") keep an unnamed split.
    """
    lowered = {c.strip().lower() for c in columns}
    if "validation loss" in lowered:
        default = "eval"
    elif any(m.split.startswith("eval") for m in found.values()) or any(
        _TRAINER.match(c) or (not m.split and m.quantity in _BATCHED)
        for c, m in [*found.items(), *((c, Meaning("", "eval")) for c in columns)]
    ):
        default = "train"
    else:
        default = ""
    return {c: m if m.split else Meaning(m.quantity, default, m.negate) for c, m in found.items()}


def some(names: Sequence[str], limit: int = 8) -> str:
    """The first of some names, quoted, and how many more there are."""
    shown = ", ".join(map(repr, names[:limit]))
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
