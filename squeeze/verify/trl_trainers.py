"""TRL's own trainers by name, as factories: `dpo`, `kto`, `cpo`, `simpo`, `orpo`, `sft`, `reward`,
`grpo`, `rloo`.

Nothing of TRL is changed; a trainer that the installed version has not is an `InputError`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from squeeze.errors import InputError
from squeeze.training.trl_compat import model_name
from squeeze.verify.groups import GroupSubject
from squeeze.verify.subject import TrainerSubject
from squeeze.verify.tiny import tiny_rows


def _unpaired() -> list[dict[str, Any]]:
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in tiny_rows()
        for side in ("chosen", "rejected")
    ]


def _completions() -> list[dict[str, Any]]:
    return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in tiny_rows()]


def _prompts() -> list[dict[str, Any]]:
    return [{"prompt": row["prompt"]} for row in tiny_rows()]


def tiny_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that differs between rollouts: the sum of the token ids, modulo 7."""
    return [float(sum(ids) % 7) for ids in completion_ids]


# name -> TRL's prefix of trainer and configuration, experimental module, data, settings
TRAINERS: Mapping[str, tuple[str, str, Callable[[], list[dict[str, Any]]], dict[str, Any]]] = {
    "dpo": ("DPO", "dpo", tiny_rows, {}),
    "kto": ("KTO", "kto", _unpaired, {}),
    "cpo": ("CPO", "cpo", tiny_rows, {}),
    "simpo": ("CPO", "cpo", tiny_rows, {"loss_type": "simpo", "cpo_alpha": 0.0}),
    "orpo": ("ORPO", "orpo", tiny_rows, {}),
    "sft": ("SFT", "sft", _completions, {}),
    "reward": ("Reward", "reward", tiny_rows, {}),
    "grpo": ("GRPO", "grpo", _prompts, {}),
    "rloo": ("RLOO", "rloo", _prompts, {}),
}
GROUPS = ("grpo", "rloo")  # which sample, and are given `tiny_reward`


def trl_class(prefix: str, module: str, kind: str) -> Any:
    """TRL's class, from its top level or its experimental part; `InputError` if it has none."""
    import trl

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    name = f"{prefix}{kind}"
    try:
        return getattr(trl, name)
    except (AttributeError, ImportError):
        pass
    try:
        return getattr(importlib.import_module(f"trl.experimental.{module}"), name)
    except (AttributeError, ImportError) as error:
        raise InputError(f"TRL {trl.__version__} has no {name}: {error}") from error


def trl_subject(
    name: str,
    loss_type: str | None = None,
    *,
    model_directory: Path | None = None,
    data: list[dict[str, Any]] | None = None,
    trainer_class: Any = None,
    **settings: Any,
) -> TrainerSubject:
    """A TRL trainer by name, with a loss type and other settings of its configuration.

    `trainer_class` puts a subclass in the trainer's place. Raises `InputError` for an unknown name.
    """
    if name not in TRAINERS:
        raise InputError(f"no trainer {name!r} is known; there are {', '.join(TRAINERS)}")
    prefix, module, rows, own = TRAINERS[name]
    cls = trainer_class or trl_class(prefix, module, "Trainer")
    config = trl_class(prefix, module, "Config")
    chosen: dict[str, Any] = own | settings
    if loss_type is not None:
        chosen["loss_type"] = loss_type
        if loss_type == "exo_pair":  # TRL refuses it at 0
            chosen.setdefault("label_smoothing", 1e-3)

    def make(model: Any, data: Any, **options: Any) -> Any:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model_name(model))
        rewards = {"reward_funcs": tiny_reward} if name in GROUPS else {}
        return cls(
            model=model,
            **rewards,
            args=config(**chosen | options),
            train_dataset=data,
            processing_class=tokenizer,
        )

    label = f"TRL {cls.__name__}" + (f", {chosen['loss_type']}" if "loss_type" in chosen else "")
    kind = GroupSubject if name in GROUPS else TrainerSubject
    return kind(
        make,
        name=label,
        data=data or rows(),
        model_directory=model_directory,
        reward_model=name == "reward",
    )
