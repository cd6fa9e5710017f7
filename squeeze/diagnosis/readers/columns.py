"""Columns of a log: which hold a quantity, of which split, and what kind of training wrote them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from squeeze.diagnosis.consistency import stands
from squeeze.diagnosis.names import SPLIT_NAMES, Meaning, is_step, is_telling, recognise, says_logp
from squeeze.diagnosis.readers.records import Table, number
from squeeze.diagnosis.series import (
    ACCURACY,
    CHOSEN,
    CHOSEN_REWARD,
    ENTROPY,
    LOSS,
    OTHER,
    REJECTED,
    REJECTED_REWARD,
    REWARD_MODEL,
    TELLING,
    TOKEN_ACCURACY,
    Series,
)
from squeeze.errors import InputError

MOST_COLUMNS = 20_000
_TRAINER = re.compile(r"^(train/)?(learning_rate|lr|grad_norm|(rewards|logps|log_probs)/.*)$", re.I)
# A trainer's own words; plain names (chosen, argmax) are somebody's evaluations.
_BARE = {CHOSEN: CHOSEN_REWARD, REJECTED: REJECTED_REWARD}
_NEAR_ZERO = 0.05
_TRAIN_ROWS = {"train", "training"}
_EVAL_ROWS = {"eval", "evaluation", "val", "valid", "validation", "test"}
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


def tells(table: Table) -> bool:
    """Whether a table has a column that says something about the trained answers."""
    return any(map(is_telling, dict.fromkeys(c for r in table.records for c in r)))


def holds(table: Table) -> bool:
    """Whether a table has a column that is known at all."""
    return any(recognise(c) for c in dict.fromkeys(c for r in table.records for c in r))


def method(table: Table, columns: Sequence[str]) -> str:
    """What trained, where the columns or the text around them tell; else ""."""
    lowered = {_plain(c) for c in columns}
    rewards = any((m := recognise(c)) is not None and m.quantity == CHOSEN_REWARD for c in columns)
    if any(map(_is_odds, lowered)):
        return "orpo"
    if any(c.startswith(("objective/", "objective_")) for c in lowered) and rewards:
        return "online dpo"
    if "kl" in lowered and rewards:
        return "kto"
    said = _other_trainer(lowered)
    if not said and _RM_FILE.search(table.name) and not any(map(_TRL.search, lowered)):
        said = "" if "dpo" in table.name.lower() else REWARD_MODEL
    if said == REWARD_MODEL or not table.method:
        return said
    return "" if table.method == "dpo" else table.method


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
    if other in ("grpo", REWARD_MODEL) and quantities & {LOSS, ENTROPY, ACCURACY}:
        return
    if other:
        named = {"grpo": "a GRPO or RLOO run", "ppo": "a PPO run"}.get(other, f"a {other}")
        raise InputError(
            f"{table.source} looks like a log of {named}: it has no chosen or rejected series, so "
            "there is nothing to diagnose here; give the log of a preference or SFT run"
        )
    if not quantities & {LOSS, ACCURACY, TOKEN_ACCURACY}:
        raise InputError(
            f"{table.source} has no column that a diagnosis can use (rewards/chosen, "
            f"logps/chosen, argmax, loss, ...); its columns are {some(columns)}; name that of "
            "the chosen answers' rewards rewards/chosen"
        )


def by_value(table: Table, found: Mapping[str, Meaning]) -> dict[str, Meaning]:
    """Bare "chosen" and "rejected" are rewards where their values cannot be log-probs.

    They begin at 0, or are of both signs; a log-prob is neither.
    """
    bare = [
        c for c, m in found.items() if m.quantity in _BARE and not says_logp(c) and not m.negate
    ]
    by_column = {c: _numbers(table, c) for c in bare}
    held = {c: v for c, v in by_column.items() if v}
    both_signs = {v > 0 for values in held.values() for v in values if v} == {True, False}
    at_zero = all(abs(values[0]) < _NEAR_ZERO for values in held.values())
    if len({found[c].quantity for c in held}) < 2 or not (both_signs or at_zero):
        return dict(found)
    return {c: Meaning(_BARE[m.quantity], m.split) if c in held else m for c, m in found.items()}


def _numbers(table: Table, column: str) -> list[float]:
    """A column's finite values; none of a column that holds something else."""
    try:
        values = [number(r.get(column), "", column) for r in table.records]
    except InputError:
        return []
    return [v for v in values if math.isfinite(v)]


def with_split_of_lines(table: Table) -> Table:
    """The table with eval_ before all metrics of a line that has eval_loss but no loss.

    Trainers that sample their answers log some of an evaluation's without the prefix.
    """
    if not any("loss" in record for record in table.records):
        return table
    records = [
        _as_eval(record) if "eval_loss" in record and "loss" not in record else record
        for record in table.records
    ]
    return replace(table, records=records)


def with_split_of_rows(table: Table) -> Table:
    """Where a column says of each line "Train" or "Eval", the eval lines' names say so instead."""
    for column in dict.fromkeys(c for record in table.records for c in record):
        if str(column).strip().lower() not in SPLIT_NAMES:
            continue
        said = [str(record.get(column, "")).strip().lower() for record in table.records]
        both = set(said) & _TRAIN_ROWS and set(said) & _EVAL_ROWS
        if not both and not set(said) <= _EVAL_ROWS:
            continue
        kept = [i for i, word in enumerate(said) if word in _TRAIN_ROWS | _EVAL_ROWS]
        part = table.only(kept)
        records = [
            _as_eval(record) if said[i] in _EVAL_ROWS else record
            for i, record in zip(kept, part.records, strict=True)
        ]
        return replace(part, records=records)
    return table


def _as_eval(record: Mapping[str, Any]) -> dict[str, Any]:
    return {c: v for c, v in record.items() if not _unnamed(c)} | {
        f"eval_{c}": v for c, v in record.items() if _unnamed(c)
    }


def _unnamed(column: str) -> bool:
    """Whether a column that is known does not say of which split it is."""
    meaning = None if is_step(column) else recognise(column)
    return meaning is not None and not meaning.split


def names_trainer(column: str) -> bool:
    """Whether a column by itself tells of a trainer that samples its answers."""
    return _plain(column) in _SCORES or bool(_other_trainer({_plain(column)}))


def names_method(column: str) -> bool:
    """Whether a column, beside others, tells of what trained."""
    return names_trainer(column) or _plain(column) == "kl" or _is_odds(_plain(column))


def _is_odds(plain: str) -> bool:
    return "log_odds" in plain or "log odds" in plain


_TRL = re.compile(r"\brewards\s*/", re.IGNORECASE)
_GRPO = ("completions_", "clip_ratio", "sampling_", "critic_score", "actor_pg_")
_RM_FILE = re.compile(r"(?:^|[_.\- ])(?:rm|reward[_\- ]?model)(?:[_.\- ]|$)", re.IGNORECASE)
_SCORES = {"min_reward", "max_reward", "reward_mean", "chosen_mean", "reject_mean"}


def like_scores(table: Table, chosen: Series | None, rejected: Series | None) -> bool:
    """Whether rewards may be a reward model's scores, which OpenRLHF and others log by one name.

    They begin away from 0 and alike, where DPO's begin at 0. A log that names DPO, or has TRL's
    "rewards/chosen", is none of a reward model.
    """
    named = f"{table.method} {table.name} {table.source}".lower()
    if chosen is None or rejected is None or _TRL.search(chosen.column) or "dpo" in named:
        return False
    if not stands(chosen.values[:8]) or not stands(rejected.values[:8]):
        return False
    one, other = float(chosen.values[:3].mean()), float(rejected.values[:3].mean())
    return one * other > 0 and abs(one - other) < 0.5 * min(abs(one), abs(other)) > _NEAR_ZERO / 2


def _other_trainer(lowered: set[str]) -> str:
    if {"min_reward", "max_reward"} <= lowered or "reject_mean" in lowered:
        return REWARD_MODEL
    if lowered & _SCORES and any("chosen" in c and "reward" in c for c in lowered):
        return REWARD_MODEL
    if any("chosen" in c and c.endswith("_scores") for c in lowered):  # DeepSpeed-Chat
        return REWARD_MODEL
    if any(c.replace("/", "_").startswith(_GRPO) for c in lowered) or "reward_std" in lowered:
        return "grpo"
    if any(c.startswith(("ppo/", "objective/", "policy/")) for c in lowered) or (
        "policy_loss" in lowered and "reward" in lowered
    ):
        return "ppo"
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
